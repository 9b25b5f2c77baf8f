"""Being asked to stop: by a signal, as when a pod is evicted or a run cancelled, or by the clock."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal

from ml_platform.core.errors import Interrupted

PR_SET_PDEATHSIG = 1
# Kubernetes kills a pod 30 s after SIGTERM.
GRACE = 20.0  # seconds that work has to come to its next question, before it is broken off
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Whether work is to stop, and why: a signal, or `timeout` seconds from now on."""

    def __init__(self, timeout: float | None = None) -> None:
        self.reason: Literal["signal", "timeout"] | None = None
        self.timeout = timeout
        self._deadline = time.monotonic() + timeout if timeout is not None else float("inf")

    def asked(self) -> bool:
        if self.reason is None and time.monotonic() >= self._deadline:
            self.reason = "timeout"
        return self.reason is not None


@contextmanager
def stoppable(stop: Stop, grace: float = GRACE) -> Iterator[Stop]:
    """A block of work that is asked to stop instead of being broken off wherever it is: it asks `Stop.asked` now and then.

    Within it SIGTERM and SIGINT are only noted, and so is the end of its time. Work that has not ended `grace` seconds later
    is broken off by raising `Interrupted` in it. Signals reach main threads alone; elsewhere only the time is left, and
    nothing is broken off.
    """
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    waiting = over = False

    def noted(number: int, frame: FrameType | None) -> None:
        nonlocal waiting
        if over:
            return  # it came as the work ended; an alarm that is set now would find nobody, and end the process
        if not waiting:  # though the work may have looked at the clock before the alarm came
            waiting = True
            stop.reason = stop.reason or ("timeout" if number == signal.SIGALRM else "signal")
            signal.setitimer(signal.ITIMER_REAL, grace, grace)  # again, if what is raised is lost, as in a destructor
        elif number == signal.SIGALRM:
            raise Interrupted("training", f"did not stop within {grace:g} s, and was broken off", "run it again")

    before = {number: signal.signal(number, noted) for number in (*SIGNALS, signal.SIGALRM)}
    try:
        if stop.timeout is not None:
            signal.setitimer(signal.ITIMER_REAL, stop.timeout)
        try:
            yield stop
        finally:
            over = True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent(number: int = signal.SIGKILL, parent: int | None = None) -> None:
    """From now on this process gets the signal when its parent ends, however that was. On Linux only; elsewhere nothing happens.

    `parent` is the process id that the parent had, in case that it is gone already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
        if parent is not None and os.getppid() != parent:
            os.kill(os.getpid(), number)
