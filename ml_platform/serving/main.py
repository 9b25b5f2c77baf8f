"""Process main of the model server: `python -m ml_platform.serving.main`."""

import resource
from typing import Any, cast

import uvicorn

from ml_platform.core.settings import Settings, load_settings
from ml_platform.serving.app import create_app
from ml_platform.serving.aside import Aside
from ml_platform.serving.connections import Door
from ml_platform.serving.guard import TIMEOUT
from ml_platform.serving.metrics import Metrics
from ml_platform.serving.process import prepare

SPARE_FILES = 256  # beside connections: bundles, databases, logs


def configured(settings: Settings, metrics: Metrics, aside: Aside | None) -> uvicorn.Config:
    """The server as uvicorn is to run it."""
    door = Door(settings.model_server_connections, metrics.sent_away)
    return uvicorn.Config(
        create_app(settings, metrics, aside),
        host=settings.model_server_host,
        port=settings.model_server_port,
        http=cast(Any, door.connection),  # it is called, and that is all that uvicorn does with it
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        # On SIGTERM: no new connections, requests in flight are answered, then the prediction log is written.
        timeout_graceful_shutdown=int(TIMEOUT) + 1,
    )


def main() -> None:
    prepare()
    settings = load_settings()
    files, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(files, settings.model_server_connections + SPARE_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, most_files), most_files))
    metrics = Metrics()
    uvicorn.Server(configured(settings, metrics, Aside(metrics))).run()


if __name__ == "__main__":
    main()
