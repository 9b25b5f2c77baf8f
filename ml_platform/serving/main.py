"""Process main of the model server: `python -m ml_platform.serving.main`."""

import logging
import os
import sys

import uvicorn

from ml_platform.core.settings import load_settings
from ml_platform.core.threads import wait_passively
from ml_platform.serving.app import create_app
from ml_platform.serving.guard import TIMEOUT
from ml_platform.serving.json_log import JsonFormatter

THREAD_SWITCH = 0.0005  # seconds that a busy thread, such as one that loads a bundle, keeps requests waiting


def main() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # an unreachable registry is reported in words of ours
    # Small batches are slower on several threads than on one. Libraries read this when a bundle first loads them.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    wait_passively()
    sys.setswitchinterval(THREAD_SWITCH)
    settings = load_settings()
    uvicorn.run(
        create_app(settings),
        host=settings.model_server_host,
        port=settings.model_server_port,
        access_log=False,
        log_config=None,
        server_header=False,
        # On SIGTERM: no new connections, requests in flight are answered, then the prediction log is written.
        timeout_graceful_shutdown=int(TIMEOUT) + 1,
    )


if __name__ == "__main__":
    main()
