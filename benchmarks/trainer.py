"""What our training loop costs over a bare one: the same model, rows and steps, by turns in one process."""

import time
from collections.abc import Callable, Iterator
from statistics import median

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.figure import Figure
from ml_platform.training.trainers import Context, Labelled
from ml_platform.training.trainers.mlp import MLP, Architecture

ROWS, FEATURES, BATCH, ROUNDS = 100_000, 24, 512, 5


def trainer() -> Iterator[Figure]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    rows = Labelled(x, (x[:, 0] * x[:, 1] > 0).astype(np.float32))
    held_out = Labelled(rows.x[:1_000], rows.y[:1_000])
    ours, bare = [], []
    for _ in range(ROUNDS):
        bare.append(_timed(lambda: _bare_loop(rows)))
        params = {"epochs": 1, "batch_size": BATCH}
        ours.append(
            _timed(lambda params=params: MLP.fit(params, rows, held_out, Context("binary_classification", 2, 1)))
        )
    yield Figure("trainer.rows_per_second", ROWS / median(ours), "rows/s")
    yield Figure("trainer.share_of_bare_loop", median(bare) / median(ours), "x", 0.95, at_least=True)


def _bare_loop(rows: Labelled) -> None:
    network = Architecture(features=FEATURES, hidden=(128, 128), dropout=0.1).build()
    x, y = torch.from_numpy(rows.x), torch.from_numpy(rows.y)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    for batch in torch.randperm(ROWS).split(BATCH):
        loss = binary_cross_entropy_with_logits(network(x[batch]), y[batch])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()


def _timed(fit: Callable[[], object]) -> float:
    began = time.perf_counter()
    fit()
    return time.perf_counter() - began
