"""What tests of processes and servers need: ports, programs of this environment, and patience."""

import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(condition: Callable[[], bool], timeout: float = 120) -> None:
    """Wait until a condition holds. The limit is for what will never come true: a busy machine takes its time."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"it did not come true within {timeout:.0f} s"
        time.sleep(0.05)


def wait_until_it_answers(
    process: Any, name: str, log: Path, ask: Callable[[], object], silence: type[Exception], timeout: float = 120
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
            time.sleep(0.05)
