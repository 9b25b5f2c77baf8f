import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from ml_platform.core.errors import StackError
from ml_platform.local import supervisor
from ml_platform.local.supervisor import Program, Supervisor
from ml_platform_tests.processes import eventually

pytestmark = pytest.mark.usefixtures("processes")


class Told(list[str]):
    def has(self, words: str) -> bool:
        return any(words in line for line in self)


@pytest.fixture
def told() -> Told:
    return Told()


def supervised(tmp_path: Path, told: Told, programs: list[Program], act: Callable[[Supervisor], None]) -> Supervisor:
    """Run the programs; `act` is run beside them, then they are stopped."""
    made = Supervisor(programs, os.environ, tmp_path, tmp_path / "logs", told.append)

    def beside() -> None:
        try:
            act(made)
        finally:
            made.stop()

    thread = threading.Thread(target=beside)
    thread.start()
    try:
        made.run()
    finally:
        thread.join()
    return made


def pid_in(path: Path) -> int:
    eventually(lambda: path.exists() and path.read_text().strip() != "")
    return int(path.read_text())


def test_program_that_dies_is_started_again_and_what_it_left_is_ended_before(tmp_path: Path, told: Told) -> None:
    program = Program("a", "sleep 1000 & echo $! > child; echo $$ > pid; wait")
    seen = {}

    def act(_: Supervisor) -> None:
        first, child = pid_in(tmp_path / "pid"), pid_in(tmp_path / "child")
        (tmp_path / "pid").unlink()
        os.kill(first, 9)
        seen["again"] = pid_in(tmp_path / "pid")
        seen["left"] = psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE

    supervised(tmp_path, told, [program], act)
    assert not seen["left"]
    assert told == ["a died (status -9), and is started again in 1 s"]
    assert not psutil.pid_exists(seen["again"])


def test_program_that_keeps_dying_is_given_up_with_its_last_words(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "RESTARTS", 1)
    programs = [Program("good", "sleep 1000"), Program("bad", "echo out of luck; exit 3")]
    with pytest.raises(StackError, match=r"stack/bad: died \(status 3\), 2 times in 10 minutes.*out of luck"):
        supervised(tmp_path, told, programs, lambda made: eventually(lambda: made.is_stopping))


def test_program_that_was_well_and_does_not_answer_any_more_is_started_again(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "ASKED_EVERY", 0.1)
    monkeypatch.setattr(supervisor, "UNWELL_FOR", 1.0)
    program = Program("a", "echo $$ > pid; sleep 1000", is_well=lambda: (tmp_path / "well").exists())
    (tmp_path / "well").touch()

    def act(_: Supervisor) -> None:
        first = pid_in(tmp_path / "pid")
        time.sleep(2)
        assert not told, "it is well"
        (tmp_path / "well").unlink()
        eventually(lambda: told.has("a does not answer, and is started again in 1 s"))
        eventually(lambda: pid_in(tmp_path / "pid") != first)
        time.sleep(2)

    supervised(tmp_path, told, [program], act)
    assert len(told) == 1, "one that was never well is still starting"


def test_programs_end_in_the_opposite_order_each_with_its_grace(tmp_path: Path, told: Told) -> None:
    """The one that is started last may still need the others while it finishes."""
    first = Program("first", "trap 'echo first >> ended; exit' TERM; echo $$ > one; while :; do sleep 0.05; done")
    last = Program(
        "last", "trap 'sleep 0.5; echo last >> ended; exit' TERM; echo $$ > two; while :; do sleep 0.05; done"
    )
    supervised(tmp_path, told, [first, last], lambda _: (pid_in(tmp_path / "one"), pid_in(tmp_path / "two"), None)[-1])
    assert (tmp_path / "ended").read_text().split() == ["last", "first"]
    assert told == []


def test_programs_heed_signals_though_whoever_started_the_stack_ignores_them(tmp_path: Path, told: Told) -> None:
    """As a shell does that starts it in the background; a shell cannot trap what is ignored as it begins."""
    polite = Program("a", "trap 'echo TERM >> ended; exit' TERM; echo $$ > pid; while :; do sleep 0.05; done")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    supervised(tmp_path, told, [polite], lambda _: (pid_in(tmp_path / "pid"), None)[-1])
    assert (tmp_path / "ended").read_text().split() == ["TERM"]
    assert told == []


def test_what_does_not_end_within_its_grace_is_killed_and_that_is_said(tmp_path: Path, told: Told) -> None:
    stubborn = Program("a", "trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done", grace=0.5)
    supervised(tmp_path, told, [stubborn], lambda _: (pid_in(tmp_path / "pid"), None)[-1])
    assert told.has("a did not end within 0.5 s: ")


def test_asked_twice_it_ends_at_once(tmp_path: Path, told: Told) -> None:
    stubborn = Program("a", "trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done", grace=1000)
    began = time.monotonic()

    def act(made: Supervisor) -> None:
        pid_in(tmp_path / "pid")
        made.stop()

    supervised(tmp_path, told, [stubborn], act)
    assert time.monotonic() - began < 500
