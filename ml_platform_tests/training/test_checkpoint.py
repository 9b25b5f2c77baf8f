"""A checkpoint is the whole state of a fit, and of no other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ml_platform.core.spec.trainers import LoopParams
from ml_platform.training import checkpoint
from ml_platform.training.checkpoint import Progress, State
from ml_platform.training.trainers import Context, Labelled

ROWS = Labelled(np.arange(6, dtype=np.float32).reshape(3, 2), np.array([0, 1, 0]))
CONTEXT = Context("binary_classification", 2, 7)


def state(seed: int, steps: int) -> State:
    torch.manual_seed(seed)
    network = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(network.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.ones(3, 2)).sum().backward()
        optimizer.step()
    return State(network, optimizer, Progress(epoch=2, step=steps, loss_sum=0.1, part_rows=3, figures=[{"loss": 1.0}]))


@pytest.mark.parametrize("steps", [0, 3])
def test_state_comes_back_to_the_bit(steps: int) -> None:
    saved, other = state(1, steps), state(2, 1)
    saved.best = {"weight": torch.full((1, 2), 5.0)}
    files = checkpoint.to_files(saved, "print")
    checkpoint.restore(other, files)
    assert checkpoint.fingerprint_of(files) == "print"
    assert other.progress == saved.progress
    assert torch.equal(other.network.weight, saved.network.weight)  # type: ignore[arg-type]
    assert torch.equal(other.best["weight"], saved.best["weight"])
    assert checkpoint.to_files(other, "print") == files


def test_fingerprint_is_of_params_rows_task_and_seed() -> None:
    first = checkpoint.fingerprint(LoopParams(), ROWS, ROWS, CONTEXT)
    assert checkpoint.fingerprint(LoopParams(), ROWS, ROWS, replace(CONTEXT, on_epoch=print)) == first
    changed = Labelled(ROWS.x + 1, ROWS.y)
    others = [
        checkpoint.fingerprint(LoopParams(lr=1e-3), ROWS, ROWS, CONTEXT),
        checkpoint.fingerprint(LoopParams(), changed, ROWS, CONTEXT),
        checkpoint.fingerprint(LoopParams(), ROWS, changed, CONTEXT),
        checkpoint.fingerprint(LoopParams(), ROWS, ROWS, replace(CONTEXT, seed=8)),
    ]
    assert len({first, *others}) == 5
