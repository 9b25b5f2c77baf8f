"""The training process: real processes, killed and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow.fs as pafs
import pytest
import safetensors.numpy

from ml_platform.core import keys
from ml_platform.core.errors import SpecError
from ml_platform.features.transforms import Feature
from ml_platform.resources.lake import Lake
from ml_platform.resources.storage import Storage
from ml_platform.training import job as jobs
from ml_platform.training.trainers import Labelled
from ml_platform.training.trainers.sequence import Sequence
from ml_platform.workloads import train
from ml_platform_tests.forks import Fork, Nursery
from ml_platform_tests.processes import free_port

pytestmark = pytest.mark.processes

DAY = date(2018, 5, 31)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(3_001, 5)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(np.int8)
PARAMS = {"hidden": [16], "epochs": 4, "batch_size": 50, "dropout": 0.2, "checkpoint_every": 5}
AGENT = ("-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


STEPS = (*(Feature(f"v_{n}", default=9.0, vector="v") for n in range(1, 4)), Feature("a"), Feature("b"))


def lake_with_job(folder: Path, trainer: str = "mlp", **params: object) -> Lake:
    lake = Lake(Storage(pafs.LocalFileSystem()), str(folder), lambda: datetime.now(UTC))
    train, validation = Labelled(X[:2_501], Y[:2_501]), Labelled(X[2_501:], Y[2_501:])
    files = jobs.to_files(jobs.Job(trainer=trainer, params={**PARAMS, **params}, features=STEPS), train, validation)
    lake.write_files(keys.training_job("m", 1), DAY, files, [])
    return lake


def start(nursery: Nursery, lake: Lake, ranks: int = 1, launcher: tuple[str, ...] | None = None) -> Fork:
    launcher = (TORCHRUN if ranks == 2 else ()) if launcher is None else launcher
    command = [sys.executable, *launcher, "-m", "ml_platform.workloads.train", "m", str(DAY), "--lake", lake.root]
    return nursery.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: Fork) -> tuple[int | None, str, str]:
    out, err = process.communicate()
    return process.returncode, out, err


def trained(lake: Lake) -> dict[str, np.ndarray]:
    return safetensors.numpy.load(lake.read_files(keys.trained("m", 1), DAY)["model.safetensors"])


def run(nursery: Nursery, lake: Lake, ranks: int = 1) -> dict[str, np.ndarray]:
    code, _, err = finish(start(nursery, lake, ranks))
    assert code == 0, err[-3000:]
    return trained(lake)


def after_checkpoint(lake: Lake, number: int) -> None:
    """Wait for the checkpoint of this number, or a later one."""
    folder = Path(lake.root) / keys.checkpoint("m", 1) / f"date={DAY}"
    deadline = time.monotonic() + 60
    while not [path for path in folder.glob("*.checkpoint") if int(path.name[:8]) >= number]:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill(process: Fork) -> None:
    """kill -9 of the process and its ranks, which torchrun puts into sessions of their own."""
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (process.pid, *map(int, ranks)):
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=30)


def assert_same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.fixture(scope="module")
def uninterrupted(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, np.ndarray]]:
    return {ranks: run(nursery, lake_with_job(tmp_path_factory.mktemp("whole")), ranks) for ranks in (1, 2)}


def test_two_ranks_give_the_weights_of_one(nursery: Nursery, tmp_path: Path) -> None:
    one, two = (run(nursery, lake_with_job(tmp_path / str(n), dropout=0.0, batch_size=51), ranks=n) for n in (1, 2))
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-3, atol=1e-5)


def test_two_nodes_give_the_bits_of_two_ranks_on_one(
    nursery: Nursery, tmp_path: Path, uninterrupted: dict[int, dict[str, np.ndarray]]
) -> None:
    """An agent per node, which meet at an address, as the pods of a training job do."""
    lake, port = lake_with_job(tmp_path), str(free_port())
    agents = [
        start(
            nursery,
            lake,
            launcher=(*AGENT, "--node-rank", str(node), "--master-addr", "127.0.0.1", "--master-port", port),
        )
        for node in (0, 1)
    ]
    assert [finish(agent)[0] for agent in agents] == [0, 0]
    assert_same_bits(trained(lake), uninterrupted[2])


@pytest.mark.parametrize("cell", ["gru", "attention"])
def test_two_ranks_give_the_sequence_network_of_one(nursery: Nursery, tmp_path: Path, cell: str) -> None:
    """The last batch has one row, so that one of the ranks has none. The job says which columns are steps."""
    params = {"steps": ["v"], "width": 8, "cell": cell, "dropout": 0.0, "epochs": 1}
    scores = {}
    for ranks in (1, 2):
        run(nursery, lake := lake_with_job(tmp_path / str(ranks), "sequence", **params), ranks)
        scores[ranks] = Sequence.load(lake.read_files(keys.trained("m", 1), DAY)).predict(X)
    # Not the weights: attention has some, the bias of its keys, that change no score and go where rounding leads them.
    np.testing.assert_allclose(scores[2], scores[1], rtol=1e-3)
    assert scores[1].std() > 0


@pytest.mark.parametrize(("ranks", "number"), [(1, 1), (1, 14), (2, 3)])
def test_killed_goes_on_to_the_same_bits(
    nursery: Nursery, tmp_path: Path, uninterrupted: dict[int, dict[str, np.ndarray]], ranks: int, number: int
) -> None:
    lake = lake_with_job(tmp_path)
    process = start(nursery, lake, ranks)
    after_checkpoint(lake, number)
    kill(process)
    assert lake.manifest(keys.trained("m", 1), DAY) is None
    code, _, err = finish(start(nursery, lake, ranks))
    assert code == 0, err[-3000:]
    assert "going on from the checkpoint" in err
    assert_same_bits(trained(lake), uninterrupted[ranks])
    assert not list((Path(lake.root) / keys.checkpoint("m", 1)).rglob("*.checkpoint"))


def test_sigterm_exits_75_and_goes_on_to_the_same_bits(
    nursery: Nursery, tmp_path: Path, uninterrupted: dict[int, dict[str, np.ndarray]]
) -> None:
    lake = lake_with_job(tmp_path)
    process = start(nursery, lake)
    after_checkpoint(lake, 2)
    process.terminate()
    code, out, err = finish(process)
    assert (code, json.loads(out.splitlines()[-1])["outcome"]) == (75, "interrupted")
    assert "goes on from its checkpoint" in err
    assert_same_bits(run(nursery, lake), uninterrupted[1])


def test_sigterm_to_torchrun_leaves_a_checkpoint(
    nursery: Nursery, tmp_path: Path, uninterrupted: dict[int, dict[str, np.ndarray]]
) -> None:
    lake = lake_with_job(tmp_path)
    process = start(nursery, lake, 2)
    after_checkpoint(lake, 2)
    process.terminate()
    code, out, _ = finish(process)
    assert code != 0
    told = [json.loads(line) for line in out.splitlines() if line.startswith("{")]  # Gloo writes lines of its own
    assert told[-1]["outcome"] == "interrupted", out
    assert_same_bits(run(nursery, lake, 2), uninterrupted[2])


def test_figures_are_lines_of_json_from_one_rank_and_a_second_run_has_nothing_to_do(
    nursery: Nursery, tmp_path: Path
) -> None:
    lake = lake_with_job(tmp_path, epochs=2)
    code, out, err = finish(start(nursery, lake, 2))
    assert code == 0, err
    assert [line.get("epoch") for line in map(json.loads, out.splitlines())] == [1, 2, None]
    manifest = lake.manifest(keys.trained("m", 1), DAY)
    assert finish(start(nursery, lake))[0] == 0
    assert lake.manifest(keys.trained("m", 1), DAY) == manifest


def test_failure_is_one_line_and_exit_1(nursery: Nursery, tmp_path: Path) -> None:
    code, out, err = finish(start(nursery, lake_with_job(tmp_path, epoch=3)))
    assert (code, err.count("\n")) == (1, 1)
    assert json.loads(out) | {"error": "SpecError", "outcome": "failed"} == json.loads(out)
    assert "mend candidates.params.epoch" in err


@pytest.mark.parametrize(
    ("trainer", "params"),
    [("os.path", {}), ("ensemble", {"members": [{"trainer": "os.path"}]})],
    ids=["by itself", "as a member"],
)
def test_trainer_that_the_project_does_not_name_is_not_imported(
    tmp_path: Path, trainer: str, params: dict[str, object]
) -> None:
    """A job lies in the lake, where others may write."""
    lake = Lake(Storage(pafs.LocalFileSystem()), str(tmp_path), lambda: datetime.now(UTC))
    job = jobs.Job(trainer=trainer, params=params, features=STEPS)
    lake.write_files(keys.training_job("m", 1), DAY, jobs.to_files(job, Labelled(X, Y), Labelled(X, Y)), [])
    with pytest.raises(SpecError, match="'os.path': is none that this process may load"):
        train.fit(lake, "m", DAY, "1")
