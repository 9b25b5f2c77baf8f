"""Work is asked to stop, and broken off only if it does not listen."""

import os
import signal
import threading
import time

import pytest

from ml_platform.core.errors import Interrupted
from ml_platform.resources.stopping import Stop, stoppable


def wait(stop: Stop) -> None:
    while not stop.asked():
        time.sleep(0.001)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_is_noted_and_the_work_ends_by_itself(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stoppable(Stop()) as stop:
        assert not stop.asked()
        os.kill(os.getpid(), number)
        wait(stop)
    assert stop.reason == "signal"
    assert signal.getsignal(number) is before


def test_end_of_the_time_is_noted_also_beside_the_main_thread() -> None:
    reasons = []

    def work() -> None:
        with stoppable(Stop(0.02)) as stop:
            wait(stop)
        reasons.append(stop.reason)

    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert reasons == ["timeout", "timeout"]


@pytest.mark.parametrize("timeout", [None, 0.01])
def test_work_that_does_not_listen_is_broken_off(timeout: float | None) -> None:
    def work() -> None:
        with stoppable(Stop(timeout), grace=0.05):
            if timeout is None:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)

    with pytest.raises(Interrupted, match="did not stop within 0.05 s"):
        work()


def test_nothing_is_left_behind() -> None:
    with stoppable(Stop(0.05)):
        pass
    time.sleep(0.1)  # the alarm would end this process
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_alarm_that_comes_as_the_work_ends_is_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would otherwise go off when nobody listens any more, and end the process."""
    before, set_timer = signal.getsignal(signal.SIGALRM), signal.setitimer

    def set_late(which: int, seconds: float) -> None:
        set_timer(which, seconds)
        if seconds == 0:
            os.kill(os.getpid(), signal.SIGALRM)

    monkeypatch.setattr(signal, "setitimer", set_late)
    with stoppable(Stop(timeout=60)):
        pass
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) == before
