"""Trainings in processes of their own: real torchrun, stopped, killed, and looked after."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from ml_platform.core import keys
from ml_platform.core.errors import Interrupted, SpecError, WorkloadError
from ml_platform.core.settings import load_settings
from ml_platform.core.spec import CandidateSpec
from ml_platform.resources.checkpoints import LakeCheckpoints
from ml_platform.resources.lake import Lake
from ml_platform.resources.launcher import Hear, LocalLauncher, Training, clear_job, fitting
from ml_platform.training import job as jobs
from ml_platform.training.trainers import Context, Labelled, Trainer
from ml_platform.training.trainers.mlp import MLP
from ml_platform.workloads import train
from ml_platform_tests.processes import eventually

DAY = date(2018, 5, 31)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2_000, 5)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(np.int64)
TRAIN, HELD_OUT = Labelled(X[:1_500], Y[:1_500]), Labelled(X[1_500:], Y[1_500:])
PARAMS = {"hidden": [16], "epochs": 2, "batch_size": 50, "dropout": 0.0, "checkpoint_every": 5}
ENDLESS = {**PARAMS, "epochs": 100_000}


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("ML_PLATFORM_LAKE", str(tmp_path / "lake"))
    return Lake.at(load_settings())


def fit(lake: Lake, processes: int, params: dict = PARAMS, trainer: str = "mlp", **context: object) -> Trainer:
    how = fitting(LocalLauncher(processes), lake, "m", DAY, print)
    whole = Context("binary_classification", 2, 5, **context)  # type: ignore[arg-type]
    return how(1, CandidateSpec(trainer=trainer, params=params), TRAIN, HELD_OUT, whole)


def processes_of(lake: Lake) -> list[int]:
    """Every process that was launched for this lake."""
    mark = f"ML_PLATFORM_LAKE={lake.root}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue  # it is gone, or not ours
    return found


def has_checkpoint(lake: Lake) -> bool:
    return LakeCheckpoints(lake, keys.checkpoint("m", 1), DAY).load() is not None


@pytest.mark.processes
def test_one_process_gives_the_bits_of_this_one_and_two_the_same_within_rounding(lake: Lake) -> None:
    here = MLP.fit(PARAMS, TRAIN, HELD_OUT, Context("binary_classification", 2, 5)).save()["model.safetensors"]
    heard: list[tuple[int, float]] = []
    one = fit(lake, 1, on_epoch=lambda epoch, figures: heard.append((epoch, figures["train_loss"])))
    assert one.save()["model.safetensors"] == here
    assert [epoch for epoch, _ in heard] == [1, 2]
    two = fit(lake, 2, PARAMS | {"patience": 99})  # other params, so that it is fitted again
    np.testing.assert_allclose(two.predict(X), one.predict(X), atol=1e-3)
    clear_job(lake, "m", DAY, 1)
    assert lake.manifest(keys.training_job("m", 1), DAY) is None
    assert lake.manifest(keys.trained("m", 1), DAY) is None
    assert processes_of(lake) == []


def test_trainer_that_one_process_fits_is_fitted_here(lake: Lake) -> None:
    assert fit(lake, 2, {"max_iter": 5}, "linear").predict(X).shape == (2_000,)
    assert lake.manifest(keys.training_job("m", 1), DAY) is None


@pytest.mark.processes
def test_error_in_the_processes_is_the_error_here(lake: Lake) -> None:
    with pytest.raises(SpecError, match=r"mend candidates.params.epoch"):
        fit(lake, 2, {"epoch": 3})
    assert processes_of(lake) == []


@pytest.mark.processes
def test_stopped_it_leaves_a_checkpoint_and_no_process(lake: Lake) -> None:
    with pytest.raises(Interrupted, match="goes on from its checkpoint"):
        fit(lake, 2, ENDLESS, interrupted=lambda: has_checkpoint(lake))
    assert has_checkpoint(lake)
    assert processes_of(lake) == []


@pytest.fixture
def sigterm() -> Iterator[None]:
    """As every process has it at first: pytest-xdist ignores it, and what ignores it starts processes that do."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("sigterm")
@pytest.mark.processes
def test_stopped_while_it_starts_it_is_no_failure(lake: Lake) -> None:
    with pytest.raises(Interrupted):
        fit(lake, 1, ENDLESS, interrupted=lambda: True)
    assert processes_of(lake) == []


class Overtaken:
    """Another run of the partition writes its own job before the processes have read this one's."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    def takes(self, on_ranks: bool) -> bool:
        return True

    def run(self, training: Training, hear: Hear, interrupted: Callable[[], bool]) -> None:
        theirs = jobs.Job(trainer="linear", params={"alpha": 7.0})
        self.lake.write_files(keys.training_job("m", 1), DAY, jobs.to_files(theirs, TRAIN, HELD_OUT), [])
        train.fit(self.lake, "m", DAY, "1")


@pytest.mark.processes
def test_result_of_another_runs_job_is_not_taken_for_ones_own(lake: Lake) -> None:
    how = fitting(Overtaken(lake), lake, "m", DAY, print)
    ours = CandidateSpec(trainer="linear", params={"alpha": 1.0})
    with pytest.raises(WorkloadError, match="another run of the same partition has put its job in the place"):
        how(1, ours, TRAIN, HELD_OUT, Context("binary_classification", 2, 5))


@pytest.mark.processes
def test_result_of_other_code_is_made_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    job = jobs.Job(trainer="linear")
    lake.write_files(keys.training_job("m", 1), DAY, jobs.to_files(job, TRAIN, HELD_OUT), [])
    written = []
    for code in (train.code_version(), train.code_version(), "newer"):
        monkeypatch.setattr(train, "code_version", lambda code=code: code)
        train.fit(lake, "m", DAY, "1")
        written.append(lake.require(keys.trained("m", 1), DAY).written_at)
    assert written[0] == written[1] != written[2]


@pytest.mark.processes
def test_rank_that_is_killed_takes_the_others_along(lake: Lake) -> None:
    def kill_a_rank() -> None:
        eventually(lambda: has_checkpoint(lake))
        os.kill(max(processes_of(lake)), signal.SIGKILL)

    killer = threading.Thread(target=kill_a_rank)
    killer.start()
    with pytest.raises(WorkloadError, match="was the first to end"):
        fit(lake, 2, ENDLESS)
    killer.join()
    assert processes_of(lake) == []


@pytest.fixture
def step(processes: None, lake: Lake) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has launched an endless training, as a step does."""
    code = "from ml_platform_tests.resources.test_launcher import *; fit(Lake.at(load_settings()), 2, ENDLESS)"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        eventually(lambda: has_checkpoint(lake))
        yield process


@pytest.mark.skipif(sys.platform != "linux", reason="a process elsewhere does not learn that its parent was killed")
def test_no_process_outlives_a_step_that_is_killed(lake: Lake, step: subprocess.Popen[bytes]) -> None:
    assert len(processes_of(lake)) >= 4
    step.kill()
    step.wait()
    eventually(lambda: processes_of(lake) == [], timeout=10)
    time.sleep(0.2)
    assert processes_of(lake) == []
