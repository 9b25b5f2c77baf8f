"""Process main of a training: `python -m ml_platform.workloads.train MODEL DATE`, alone, as several processes, or below torchrun.

It reads the job `<model>/training_job_<fit>` of the date from the lake (training/job.py says what is in it), and writes
what it fitted to `<model>/trained_<fit>`, made from exactly this job. Run again, it goes on from its last checkpoint, or
has nothing to do. The first rank prints each epoch's figures as a line of JSON, and at last the outcome: done, or, from
every rank that meets it, interrupted (by SIGTERM, with a checkpoint) or failed with the error.

With `--nodes` as many machines start it alike; which of them one is, and who the first is, they are told by options or by what a
Kubernetes Job (JOB_COMPLETION_INDEX) or Kubeflow's operator (RANK, MASTER_ADDR) sets.

Exit codes: 0 done, 75 interrupted, 1 failed. torchrun itself, unlike `--processes`, exits 1 in both of the latter cases.

    python -m ml_platform.workloads.train fraud_detection 2018-05-31 --processes 2
    python -m ml_platform.workloads.train fraud_detection 2018-05-31 --processes 8 --nodes 2 --node 1 --master node-0
    torchrun --nnodes 2 --nproc-per-node 8 ... -m ml_platform.workloads.train fraud_detection 2018-05-31 --lake s3://lake
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import TextIO

from ml_platform.core import keys
from ml_platform.core.catalog import catalog_at
from ml_platform.core.digest import code_version
from ml_platform.core.errors import Interrupted, PlatformError
from ml_platform.core.settings import load_settings
from ml_platform.core.spec import CandidateSpec
from ml_platform.resources.checkpoints import LakeCheckpoints
from ml_platform.resources.lake import Lake
from ml_platform.resources.launcher import EX_TEMPFAIL, PARENT
from ml_platform.resources.stopping import Stop, end_with_parent, stoppable
from ml_platform.training import job as jobs
from ml_platform.training.trainers import TRAINERS, Context, check_kind, trainer_named

PORT = 29500  # torch's own default
MEET_WITHIN = 3_600  # seconds in which the other machines may come; torch's default is 600
SET_BY_OPERATORS = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if _is_rank():
        end_with_parent()  # torchrun gives ranks sessions of their own, and they would outlive it
    elif PARENT in os.environ:
        end_with_parent(parent=int(os.environ[PARENT]))
    if options.processes:
        return _as_processes(options)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    with stoppable(Stop()) as stop:  # to the last word: torchrun sends SIGTERM more than once
        return _report(lambda: _fit_as_rank(options, stop.asked))


def _report(work: Callable[[], None]) -> int:
    """Do the work, tell the outcome, and return the exit code."""
    try:
        work()
    except PlatformError as error:
        interrupted = isinstance(error, Interrupted)
        said = {"subject": error.subject, "problem": error.problem, "next_step": error.next_step}
        said |= {"outcome": "interrupted" if interrupted else "failed", "error": type(error).__name__}
        _print(json.dumps(said))  # from each rank that it meets
        _print(str(error), sys.stderr)
        return EX_TEMPFAIL if interrupted else 1
    _tell({"outcome": "done"})
    return 0


def _fit_as_rank(options: argparse.Namespace, interrupted: Callable[[], bool]) -> None:
    settings = load_settings()
    lake = Lake.at(settings.model_copy(update={"lake": options.lake}) if options.lake else settings)
    with _process_group():
        fit(lake, options.model, options.date, options.fit, interrupted)


def fit(lake: Lake, model: str, day: date, name: str, interrupted: Callable[[], bool] = lambda: False) -> None:
    """Fit a job and store what came of it; nothing, if this code has done so already.

    Raises:
        LakeError: if there is no such job.
        TrainingError, SpecError: if it cannot be fitted.
        Interrupted: once `interrupted` says yes.
    """
    key, result = keys.training_job(model, name), keys.trained(model, name)
    ordered = lake.require(key, day).as_input(key, day)
    done = lake.manifest(result, day)
    if done and done.inputs == (ordered,) and done.code_version == code_version():
        return
    job, train, validation = jobs.from_files(lake.read_files(key, day), keys.partition(key, day))
    # Of an ensemble its members too. The project is read only where something is not built in.
    for trainer in {*CandidateSpec(trainer=job.trainer, params=job.params).trainers} - {*TRAINERS}:
        check_kind(trainer, catalog_at(load_settings()).plugins)
    checkpoints = LakeCheckpoints(lake, keys.checkpoint(model, name), day)
    context = Context(job.task, job.classes, job.seed, _on_epoch, checkpoints, interrupted, job.features)
    fitted = trainer_named(job.trainer).fit(job.params, train, validation, context)
    if _is_first():
        lake.write_files(result, day, fitted.save(), [ordered])
        checkpoints.clear()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ml_platform.workloads.train", description="Fit one training job.")
    parser.add_argument("model")
    parser.add_argument("date", type=date.fromisoformat, help="the training date, YYYY-MM-DD")
    parser.add_argument(
        "--fit", default="1", help="the candidate's position in the model file, from 1, or a trial's name"
    )
    parser.add_argument("--processes", type=int, metavar="N", help="start torchrun with so many on this machine")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="machines that do so, for one fit together")
    parser.add_argument("--node", default=_given("JOB_COMPLETION_INDEX", "RANK", default="0"), help="this one, from 0")
    parser.add_argument("--master", default=_given("MASTER_ADDR", default="127.0.0.1"), help="address of the first")
    parser.add_argument("--port", default=_given("MASTER_PORT", default=str(PORT)), help="where the first listens")
    parser.add_argument("--lake", help="folder or s3://bucket[/prefix]; default ML_PLATFORM_LAKE")
    return parser


def _as_processes(options: argparse.Namespace) -> int:
    """Be torchrun, but tell an interrupted training from a failed one."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    meeting = ["--standalone"]
    if options.nodes > 1:
        meeting = ["--nnodes", str(options.nodes), "--node-rank", options.node]
        meeting += ["--master-addr", options.master, "--master-port", options.port]
        meeting += ["--rdzv-conf", f"timeout={MEET_WITHIN}"]
    for variable in [name for name in os.environ if name in SET_BY_OPERATORS or name.startswith("PET_")]:
        del os.environ[variable]  # of the pods; the ranks get their own, and torchrun takes PET_* for options
    command = [*meeting, "--nproc-per-node", str(options.processes), "-m", "ml_platform.workloads.train"]
    command += [options.model, str(options.date), "--fit", options.fit]
    try:
        torchrun([*command, *(["--lake", options.lake] if options.lake else [])])
    except SignalException:
        return EX_TEMPFAIL
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        print(f"rank {rank} was the first to end: {failure.exitcode}", file=sys.stderr)
        return EX_TEMPFAIL if failure.exitcode == EX_TEMPFAIL else 1
    return 0


def _given(*variables: str, default: str) -> str:
    return next((os.environ[name] for name in variables if os.environ.get(name)), default)


def _is_rank() -> bool:
    """torchrun has started this process. Kubeflow's operator sets RANK and WORLD_SIZE too, but of pods."""
    return "LOCAL_RANK" in os.environ


@contextmanager
def _process_group() -> Iterator[None]:
    """Join the ranks that torchrun started, if it did."""
    if not _is_rank():
        yield
        return
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def _is_first() -> bool:
    """The first rank is the one that writes and prints; a process without torchrun is it."""
    return not _is_rank() or os.environ["RANK"] == "0"


def _on_epoch(epoch: int, figures: dict[str, float]) -> None:
    _tell({"epoch": epoch, **figures})


def _tell(content: dict[str, object]) -> None:
    if _is_first():
        _print(json.dumps(content))


def _print(line: str, stream: TextIO | None = None) -> None:
    """Ranks share one pipe, and torchrun runs them unbuffered, where `print` writes a line and its end one after the other:
    only what is written at once stays in one piece.
    """
    print(f"{line}\n", end="", file=stream, flush=True)


if __name__ == "__main__":
    sys.exit(main())
