"""Servers that tests start."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def wait_until_it_answers(
    process: subprocess.Popen, name: str, log: Path, ask: Callable[[], object], silence: type[Exception], timeout: float
) -> None:
    """Ask again as long as that raises `silence`; the log says why a process has died or does not answer."""
    deadline = time.monotonic() + timeout
    while True:
        assert process.poll() is None, f"{name} died: {log.read_text()[-2000:]}"
        assert time.monotonic() < deadline, f"{name} does not answer: {log.read_text()[-2000:]}"
        try:
            ask()
            return
        except silence:
            time.sleep(0.1)
