"""Keeps the processes of a stack running: one that dies or hangs is started again, and all of them end together.

Each program leads a process group of its own. What it leaves behind when it dies is ended before it is started again, and
so is everything if this process is killed: two of a kind never run beside each other.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from ml_platform.core.errors import StackError
from ml_platform.resources.stopping import end_with_parent

TICK = 0.2  # seconds between looks at the programs
RESTARTS, WITHIN = 5, 600.0  # deaths of one program in that many seconds; then everything is stopped
LONGEST_PAUSE = 10.0  # seconds before a program that dies at once is started again
ASKED_EVERY, UNWELL_FOR = 10.0, 90.0  # seconds; a program that was well and then is not for so long is started again
LOG_BYTES = 20 << 20  # of a program's log, before its next start begins another
LAST_LINES = 5  # of the log of a program that is given up


@dataclass(frozen=True)
class Program:
    """One process: a shell command. `grace`: seconds that all it started has after SIGTERM, before SIGKILL.

    `is_well` asks it, and may take a while; a busy machine takes its time.
    """

    name: str
    command: str
    grace: float = 10.0
    is_well: Callable[[], bool] | None = None


@dataclass
class _Running:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    deaths: list[float] = field(default_factory=list)
    start_at: float = 0.0
    well_at: float | None = None  # when it last was, since its start

    def has_hung(self, now: float) -> bool:
        return self.well_at is not None and now - self.well_at > UNWELL_FOR


class Supervisor:
    """Runs programs in the order given until `stop` is called, and ends them in the opposite one."""

    def __init__(
        self,
        programs: Iterable[Program],
        environment: Mapping[str, str],
        folder: Path,
        logs: Path,
        tell: Callable[[str], None],
        held: Iterable[int] = (),
    ) -> None:
        """`held`: file descriptors that every program keeps open, such as of a lock."""
        self.environment, self.folder, self.logs, self.tell, self.held = environment, folder, logs, tell, tuple(held)
        self._all = [_Running(program) for program in programs]
        self._stopping = threading.Event()
        self._at_once = False

    def stop(self) -> None:
        """End `run`; asked twice, without grace."""
        self._at_once = self._stopping.is_set()
        self._stopping.set()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def run(self) -> None:
        """Run the programs until `stop`. From the main thread: programs end with the thread that started them.

        Raises:
            StackError: if a program keeps dying; all are stopped then.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        for one in self._all:
            if one.program.is_well:
                threading.Thread(target=self._ask, args=(one,), daemon=True).start()
        try:
            while not self._stopping.wait(TICK):
                for one in self._all:
                    self._look(one)
        finally:
            self._stopping.set()
            for one in reversed(self._all):
                self._end(one)

    def _look(self, one: _Running) -> None:
        now = time.monotonic()
        if one.process is None:
            if now >= one.start_at:
                self._start(one)
            return
        if one.process.poll() is None and not one.has_hung(now):
            return
        how = f"died (status {one.process.returncode})" if one.process.returncode is not None else "does not answer"
        one.deaths = [at for at in one.deaths if now - at < WITHIN] + [now]
        self._end(one)
        if len(one.deaths) > RESTARTS:
            raise StackError(
                f"stack/{one.program.name}",
                f"{how}, {len(one.deaths)} times in {WITHIN / 60:.0f} minutes, so everything was stopped: "
                + " | ".join(self._last_lines(one.program)),
                f"read {self._log(one.program)}",
            )
        pause = min(2.0 ** (len(one.deaths) - 1), LONGEST_PAUSE)
        one.start_at = time.monotonic() + pause
        self.tell(f"{one.program.name} {how}, and is started again in {pause:.0f} s")

    def _ask(self, one: _Running) -> None:
        """Note when the program is well, as long as all run. One that never was is still starting."""
        assert one.program.is_well is not None
        while not self._stopping.wait(ASKED_EVERY):
            process = one.process
            if process is not None and one.program.is_well() and one.process is process:
                one.well_at = time.monotonic()

    def _start(self, one: _Running) -> None:
        log = self._log(one.program)
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as output:
            one.process = subprocess.Popen(
                [sys.executable, "-m", "ml_platform.local.supervisor", str(os.getpid()), one.program.command],
                env=dict(self.environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=self.held,
            )

    def _end(self, one: _Running) -> None:
        """End what the program is and what it started."""
        if one.process is None:
            return
        group = one.process.pid
        deadline = time.monotonic() + one.program.grace
        _signal(group, signal.SIGTERM)
        while _members(group) and time.monotonic() < deadline and not self._at_once:
            one.process.poll()  # or it stays in the process table
            time.sleep(TICK / 4)
        if left := _members(group):
            self.tell(
                f"{one.program.name} did not end within {one.program.grace:g} s: {len(left)} processes are killed"
            )
            _signal(group, signal.SIGKILL)
        one.process.wait()
        one.process, one.well_at = None, None

    def _log(self, program: Program) -> Path:
        return self.logs / f"{program.name}.log"

    def _last_lines(self, program: Program) -> list[str]:
        return self._log(program).read_text(errors="replace").strip().splitlines()[-LAST_LINES:]


def _signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return  # all of it has ended


def _members(group: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for process in psutil.process_iter(["pid", "status"]):
        try:
            if process.info["status"] != psutil.STATUS_ZOMBIE and os.getpgid(process.info["pid"]) == group:
                found.append(process.info["pid"])
        except ProcessLookupError:
            continue
    return found


def main() -> None:
    """What each program begins as: it ends with the supervisor, and becomes the command.

    A stack that was started in the background (`make dev &`, nohup) ignores SIGINT, and with it all that it starts; Dagster then makes
    its runs ignore SIGTERM too, which are to save their work when they are asked to stop.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    end_with_parent(signal.SIGTERM, int(sys.argv[1]))
    os.execvp("/bin/sh", ["sh", "-c", sys.argv[2]])


if __name__ == "__main__":
    main()
