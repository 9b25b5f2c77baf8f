import io
from pathlib import Path

import pytest
from rich.console import Console

from ml_platform.core.settings import Settings
from ml_platform.local.watch import BUSY, IDLE, Doing, Patience, display, stuck


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


RUN = Doing("abc", "STARTED", ("transactions/raw",), 3)
FAR = {"transactions/raw": (3, 60)}


def test_run_that_gets_on_is_waited_for_however_long_it_takes(clock: Clock) -> None:
    patience = Patience(clock)
    for done in range(20):
        clock.now += BUSY - 1
        assert not patience.is_over(FAR, [Doing("abc", "STARTED", ("transactions/raw",), done)])


def test_run_that_does_not_get_on_is_given_up_after_long_and_nothing_at_all_sooner(clock: Clock) -> None:
    patience = Patience(clock)
    assert not patience.is_over(FAR, [RUN])
    clock.now = IDLE + 1
    assert not patience.is_over(FAR, [RUN])
    clock.now = BUSY + 1
    assert patience.is_over(FAR, [RUN])
    assert not patience.is_over(FAR, []), "the run has ended"
    clock.now += IDLE + 1
    assert patience.is_over(FAR, [])


def test_who_gives_up_names_stage_run_and_log(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, dagster_port=3000)
    words = stuck({"a/raw": (2, 2), **FAR}, [RUN], ["dead"], settings)
    assert words == (
        f"nothing has happened for {BUSY:.0f} s; transactions/raw is at 3 of 60; "
        "transactions/raw is started: http://127.0.0.1:3000/runs/abc; failed: http://127.0.0.1:3000/runs/dead; "
        f"logs: {tmp_path / 'logs'}"
    )
    assert "no run is queued or running" in stuck(FAR, [], [], settings)


def test_without_a_terminal_there_is_a_line_now_and_then(clock: Clock) -> None:
    out = io.StringIO()
    with display(Console(file=out), clock) as shown:
        for second in range(12):
            clock.now = float(second)
            shown.show({"transactions/raw": (second, 11), "features/a": (0, 11)})
    said = [line.split(" ", 1)[1] for line in out.getvalue().splitlines()]
    assert said == [f"transactions/raw: {done} of 11" for done in (1, 6, 11)]
