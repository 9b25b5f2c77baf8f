"""Training in processes of its own: a job is written to the lake, launched, listened to, and its result is read.

A launcher knows where processes run; what they print is the same everywhere (workloads/train.py): an epoch's figures or the
outcome as a line of JSON, anything else is for people.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Protocol

from ml_platform.core import errors, keys
from ml_platform.core.errors import Interrupted, WorkloadError
from ml_platform.core.spec import CandidateSpec
from ml_platform.core.threads import OPENMP, given
from ml_platform.resources.lake import Lake
from ml_platform.training import job as jobs
from ml_platform.training.trainers import Context, Labelled, Trainer, load_fitted, trainer_named

EX_TEMPFAIL = 75
PARENT = "ML_PLATFORM_LAUNCHED_BY"  # process id without which the launched process has nothing to live for
LAST_LINES = 5
LAST_WAIT = 10.0  # seconds
AGAIN = "run it again: it goes on from its last checkpoint"

Hear = Callable[[str], None]


@dataclass(frozen=True)
class Training:
    """A job in the lake: of the candidate at a position of the model file, or of a trial.

    `on_ranks` says whether several processes can fit it together; `content` is the digest of the job.
    """

    model: str
    day: date
    fit: int | str
    on_ranks: bool
    content: str = ""

    @property
    def subject(self) -> str:
        return keys.partition(keys.trained(self.model, self.fit), self.day)

    def command(self, *options: object) -> list[str]:
        """The arguments of Python by which a process fits it."""
        workload = ["-m", "ml_platform.workloads.train", self.model, self.day.isoformat(), "--fit", str(self.fit)]
        return [*workload, *map(str, options)]


class Launcher(Protocol):
    def takes(self, on_ranks: bool) -> bool:
        """Whether it launches trainings that several processes can fit together, or those that one fits."""
        ...

    def run(self, training: Training, hear: Hear, interrupted: Callable[[], bool]) -> None:
        """Run the job to its end; `hear` gets each line that is printed, as it is printed.

        Once `interrupted` says yes, the processes are asked to stop. However this ends, none of them is left.

        Raises:
            Interrupted: if they ended because they were asked to.
            WorkloadError: if they failed or died.
        """
        ...


class LocalLauncher:
    """torchrun on this machine: in a step's pod, its own cores and GPUs."""

    def __init__(self, processes: int) -> None:
        self.processes = processes

    def takes(self, on_ranks: bool) -> bool:
        return on_ranks and self.processes > 0

    def run(self, training: Training, hear: Hear, interrupted: Callable[[], bool]) -> None:
        # The working directory may lie on the import path of this process only.
        paths = os.pathsep.join(dict.fromkeys(filter(None, [*sys.path, os.environ.get("PYTHONPATH", "")])))
        environment = {**os.environ, "PYTHONPATH": paths, PARENT: str(os.getpid())}
        if self.processes > 1:
            environment[OPENMP] = str(max(1, given() // self.processes))
        last: deque[str] = deque(maxlen=LAST_LINES)
        with subprocess.Popen(
            [sys.executable, *training.command("--processes", self.processes)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                _listen(process, lambda line: (last.append(line), hear(line)), interrupted)
            finally:
                process.kill()  # its ranks go with it; the pipe closes when they are gone
                with suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=LAST_WAIT)
        if process.returncode in (EX_TEMPFAIL, -signal.SIGTERM):  # the latter while it was starting
            raise Interrupted(training.subject, "was asked to stop", AGAIN)
        if process.returncode:
            problem = f"its processes ended with {process.returncode}: {' | '.join(last)}"
            raise WorkloadError(training.subject, problem, "it is tried again, from its last checkpoint")


def fitting(
    launcher: Launcher, lake: Lake, model: str, day: date, log: Hear
) -> Callable[[int | str, CandidateSpec, Labelled, Labelled, Context], Trainer]:
    """How a candidate or trial is fitted: launched, if the launcher takes it, else right here.

    `log` gets what launched processes print for people. Raises what `Trainer.fit` does, and WorkloadError if processes died.
    """

    def fit(
        name: int | str, candidate: CandidateSpec, train: Labelled, validation: Labelled, context: Context
    ) -> Trainer:
        trainer = trainer_named(candidate.trainer)
        on_ranks = bool(getattr(trainer, "on_ranks", False))
        if not launcher.takes(on_ranks):
            return trainer.fit(candidate.params, train, validation, context)
        job = jobs.to_files(jobs.Job.of(candidate.trainer, candidate.params, context), train, validation)
        key, result = keys.training_job(model, name), keys.trained(model, name)
        ordered = lake.write_files(key, day, job, [])
        training = Training(model, day, name, on_ranks, ordered.content_hash)
        heard = _Heard(context, log)
        try:
            launcher.run(training, heard.line, context.interrupted)
        except (Interrupted, WorkloadError):
            heard.raise_outcome()  # they said it better
            raise
        if lake.require(result, day).inputs != (ordered.as_input(key, day),):
            problem = "another run of the same partition has put its job in the place of this one's"
            raise WorkloadError(training.subject, problem, "let one of them end; it is tried again")
        return load_fitted(candidate.trainer, lake.read_files(result, day), candidate.trainers)

    return fit


def clear_job(lake: Lake, model: str, day: date, fit: int | str) -> None:
    """Remove the job and its result, if there were any, once the result is kept elsewhere."""
    for key in (keys.training_job(model, fit), keys.trained(model, fit)):
        lake.remove(key, day)


@dataclass
class _Heard:
    """What the processes of a fit have said."""

    context: Context
    log: Hear
    outcome: Mapping[str, Any] = field(default_factory=dict)

    def line(self, line: str) -> None:
        said = _as_json(line)
        if "outcome" in said:
            if self.outcome.get("outcome") != "failed":  # others are stopped then, and say so
                self.outcome = said
        elif "epoch" in said:
            self.context.on_epoch(said["epoch"], {name: value for name, value in said.items() if name != "epoch"})
        else:
            self.log(line)

    def raise_outcome(self) -> None:
        """Raise the error that ended the fit, as it was raised there, if one did."""
        if "error" in self.outcome:
            kind = getattr(errors, self.outcome["error"])
            raise kind(self.outcome["subject"], self.outcome["problem"], self.outcome["next_step"])


def _listen(process: subprocess.Popen[bytes], hear: Callable[[str], object], interrupted: Callable[[], bool]) -> None:
    """Until the last process that holds the pipe is gone."""
    assert process.stdout is not None, "it was started with a pipe"
    asked, rest, pipe = False, b"", process.stdout.fileno()
    while True:
        if not asked and interrupted():
            process.terminate()
            asked = True
        if not select.select([pipe], [], [], 0.2)[0]:
            continue
        content = os.read(pipe, 65_536)
        *lines, rest = (rest + content).split(b"\n")
        for line in lines if content else filter(None, [rest]):
            hear(line.decode(errors="replace"))
        if not content:
            return


def _as_json(line: str) -> dict[str, Any]:
    try:
        said = json.loads(line) if line.startswith("{") else {}
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
