"""Process main of a training: `python -m ml_platform.workloads.train MODEL DATE`, alone or below torchrun.

It reads the job `<model>/training_job_<position>` of the date from the lake (training/job.py says what is in it), and writes
what it fitted to `<model>/trained_<position>`, made from exactly this job. Run again, it goes on from its last checkpoint, or
has nothing to do. The first rank prints each epoch's figures as a line of JSON.

Exit codes: 0 done, 75 interrupted by SIGTERM with a checkpoint, 1 failed. torchrun itself exits 1 in both of the latter cases:
the line `{"outcome": "interrupted"}` on stdout tells them apart.

    torchrun --standalone --nproc-per-node 2 -m ml_platform.workloads.train fraud_detection 2018-05-31 --lake s3://lake
"""

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date

from ml_platform.core import keys
from ml_platform.core.errors import Interrupted, PlatformError
from ml_platform.core.settings import load_settings
from ml_platform.resources.checkpoints import LakeCheckpoints
from ml_platform.resources.lake import Lake
from ml_platform.training import job as jobs
from ml_platform.training.trainers import Context, trainer_named

EX_TEMPFAIL = 75


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    interrupted = _sigterm()
    try:
        settings = load_settings()
        lake = Lake.at(settings.model_copy(update={"lake": options.lake}) if options.lake else settings)
        with _process_group():
            fit(lake, options.model, options.date, options.candidate, interrupted)
    except Interrupted as error:
        _tell({"outcome": "interrupted"})
        print(error, file=sys.stderr)
        return EX_TEMPFAIL
    except PlatformError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def fit(lake: Lake, model: str, day: date, position: int, interrupted: Callable[[], bool] = lambda: False) -> None:
    """Fit the job of one candidate and store what came of it; nothing, if that is there already.

    Raises:
        LakeError: if there is no such job.
        TrainingError, SpecError: if it cannot be fitted.
        Interrupted: once `interrupted` says yes.
    """
    key, result = keys.training_job(model, position), keys.trained(model, position)
    ordered = lake.require(key, day).as_input(key, day)
    done = lake.manifest(result, day)
    if done and done.inputs == (ordered,):
        return
    job, train, validation = jobs.from_files(lake.read_files(key, day), keys.partition(key, day))
    checkpoints = LakeCheckpoints(lake, keys.checkpoint(model, position), day)
    context = Context(job.task, job.classes, job.seed, _on_epoch, checkpoints, interrupted)
    fitted = trainer_named(job.trainer).fit(job.params, train, validation, context)
    if _is_first():
        lake.write_files(result, day, fitted.save(), [ordered])
        checkpoints.clear()
    _tell({"outcome": "done"})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ml_platform.workloads.train", description="Fit one training job.")
    parser.add_argument("model")
    parser.add_argument("date", type=date.fromisoformat, help="the training date, YYYY-MM-DD")
    parser.add_argument("--candidate", type=int, default=0, metavar="POSITION", help="in the model file; default 0")
    parser.add_argument("--lake", help="folder or s3://bucket[/prefix]; default ML_PLATFORM_LAKE")
    return parser


def _sigterm() -> Callable[[], bool]:
    """Whether this process was asked to stop since now."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    return lambda: bool(asked)


@contextmanager
def _process_group() -> Iterator[None]:
    """Join the ranks that torchrun started, if it did."""
    if "WORLD_SIZE" not in os.environ:
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
    return os.environ.get("RANK", "0") == "0"


def _on_epoch(epoch: int, figures: dict[str, float]) -> None:
    _tell({"epoch": epoch, **figures})


def _tell(content: dict[str, object]) -> None:
    if _is_first():
        print(json.dumps(content), flush=True)


if __name__ == "__main__":
    sys.exit(main())
