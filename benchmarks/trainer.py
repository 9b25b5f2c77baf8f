"""What our training loop costs over a bare one: the same model, rows, steps and optimizer, by turns in one process.

In CPU seconds of one thread, so that other work on the machine counts for neither. Where there is a GPU, also how busy it is.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.figure import Figure
from ml_platform.training import loop
from ml_platform.training.trainers import Context, Labelled
from ml_platform.training.trainers.mlp import MLP, MLPArchitecture

ROWS, FEATURES, BATCH, ROUNDS = 100_000, 24, 512, 9
GPU_ROWS, GPU_BATCH, GPU_HIDDEN = 4_000_000, 16_384, (1024, 1024)


def trainer() -> Iterator[Figure]:
    rows, held_out = rows_of(ROWS), rows_of(1_000)
    ours, bare = [], []
    with _one_thread(), patch("torch.cuda.is_available", lambda: False):
        for _ in range(ROUNDS):
            bare.append(_seconds(time.process_time, lambda: _bare_loop(rows)))
            ours.append(_seconds(time.process_time, lambda: fit_rows(rows, held_out, batch_size=BATCH)))
    yield Figure("trainer.rows_per_cpu_second", ROWS / median(ours), "rows/s")
    yield Figure("trainer.share_of_bare_loop", median(bare) / median(ours), "x", 0.95, at_least=True)
    if torch.cuda.is_available():
        yield from _on_gpu()
    else:
        print("trainer: no GPU here, so nothing about one", file=sys.stderr)


def _on_gpu() -> Iterator[Figure]:
    """Samples/s, and how they compare with those of the same loop where one batch, already there, stands for all."""
    rows, held_out = rows_of(GPU_ROWS), rows_of(1_000)
    params = {"batch_size": GPU_BATCH, "hidden": list(GPU_HIDDEN), "precision": "bfloat16"}
    fit_rows(rows, held_out, **params)  # compiles kernels, fills caches
    real = _seconds(time.perf_counter, lambda: fit_rows(rows, held_out, **params))
    whole, batches = loop.Rows.at, {}

    def same_batch(self: loop.Rows, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if len(index) not in batches:
            batches[len(index)] = whole(self, index)
        return batches[len(index)]

    with patch.object(loop.Rows, "at", same_batch):
        fed = _seconds(time.perf_counter, lambda: fit_rows(rows, held_out, **params))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        seconds = _seconds(time.perf_counter, lambda: fit_rows(rows, held_out, **params))
    busy = sum(event.self_device_time_total for event in profile.key_averages()) / 1e6
    yield Figure("trainer.gpu_samples_per_second", GPU_ROWS / real, "rows/s")
    yield Figure("trainer.gpu_busy_share", busy / seconds, "x")
    yield Figure("trainer.gpu_share_of_free_input", fed / real, "x", 0.95, at_least=True)


def fit_rows(rows: Labelled, held_out: Labelled, **params: object) -> MLP:
    return MLP.fit({"epochs": 1, **params}, rows, held_out, Context("binary_classification", 2, 1))


def _bare_loop(rows: Labelled) -> None:
    network = MLPArchitecture(features=FEATURES, hidden=(128, 128), dropout=0.1).build()
    x, y = torch.from_numpy(rows.x), torch.from_numpy(rows.y)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2, fused=True)
    for batch in torch.randperm(ROWS).split(BATCH):
        loss = binary_cross_entropy_with_logits(network(x[batch]), y[batch])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()


def rows_of(number: int) -> Labelled:
    x = np.random.default_rng(0).normal(size=(number, FEATURES)).astype(np.float32)
    return Labelled(x, (x[:, 0] * x[:, 1] > 0).astype(np.float32))


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seconds(clock: Callable[[], float], fit: Callable[[], object]) -> float:
    began = clock()
    fit()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - began
