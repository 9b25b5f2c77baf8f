"""What is set once in a process of the server, before anything is loaded."""

import logging
import os
import sys

from ml_platform.core.threads import wait_passively
from ml_platform.serving.json_log import JsonFormatter

THREAD_SWITCH = 0.0005  # seconds that a busy thread, such as one that loads a bundle, keeps requests waiting


def prepare() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # an unreachable registry is reported in words of ours
    # Small batches are slower on several threads than on one. Libraries read this when a bundle first loads them.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    wait_passively()
    sys.setswitchinterval(THREAD_SWITCH)
