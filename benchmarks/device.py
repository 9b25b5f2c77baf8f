"""What the training loop makes of a GPU: `python -m benchmarks.device`, on a machine that needs nothing but torch, numpy, pydantic,
safetensors and cronsim. About five minutes.

Each figure is of whole epochs after one that warms up. The bare loop has the same network, rows, batches and optimizer, and does
nothing else; rows and their order are on the device already.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.figure import Figure
from ml_platform.core.errors import Interrupted
from ml_platform.features.transforms import Feature
from ml_platform.training.trainers import Context, Labelled
from ml_platform.training.trainers.mlp import MLP
from ml_platform.training.trainers.network import NetworkTrainer
from ml_platform.training.trainers.sequence import Sequence

PEAK = {"H100": (67e12, 989e12), "H200": (67e12, 989e12), "A100": (19.5e12, 312e12)}  # float32, bfloat16: operations/s
EVENTS, FACTS, PLAIN = 8, 3, 24
EPOCHS = 4


@dataclass(frozen=True)
class Case:
    """One fit: a family with its params, on that many rows."""

    name: str
    family: type[NetworkTrainer]
    rows: int
    params: Mapping[str, Any]

    def but(self, name: str, **params: object) -> "Case":
        return replace(self, name=f"{self.name}.{name}", params={**self.params, **params})


WIDE = {"hidden": [512, 512], "batch_size": 8_192, "epochs": EPOCHS, "dropout": 0.1}
STEPS = {
    "steps": [f"fact_{number}" for number in range(FACTS)],
    "hidden": [128],
    "width": 64,
    "batch_size": 8_192,
    "epochs": EPOCHS,
}
MLP_CASE = Case("mlp", MLP, 4_000_000, WIDE)
CASES = (
    MLP_CASE.but("batch_512", batch_size=512),
    MLP_CASE.but("batch_8192"),
    MLP_CASE.but("batch_65536", batch_size=65_536),
    MLP_CASE.but("bfloat16", precision="bfloat16"),
    MLP_CASE.but("compiled", compile=True),
    MLP_CASE.but("bfloat16_compiled", precision="bfloat16", compile=True),
    Case("gru", Sequence, 1_000_000, {**STEPS, "cell": "gru"}),
    Case("gru", Sequence, 1_000_000, {**STEPS, "cell": "gru"}).but("compiled", compile=True),
    Case("attention", Sequence, 1_000_000, {**STEPS, "cell": "attention"}),
    Case("attention", Sequence, 1_000_000, {**STEPS, "cell": "attention"}).but("bfloat16", precision="bfloat16"),
)


def device() -> Iterator[Figure]:
    if not torch.cuda.is_available():
        print("device: no GPU here, so nothing about one", file=sys.stderr)
        return
    print(f"device: {torch.cuda.get_device_name()}, torch {torch.__version__}", file=sys.stderr)
    for case in CASES:
        yield from _speed(case)
    yield from _streamed(MLP_CASE)
    yield from _resumed(MLP_CASE)


def _speed(case: Case) -> Iterator[Figure]:
    rows = _rows(case)
    torch.cuda.reset_peak_memory_stats()
    ours, model = _rows_per_second(case, rows)
    memory = torch.cuda.max_memory_allocated() / 2**20
    bare = _bare_rows_per_second(model, case, rows)
    yield Figure(f"device.{case.name}.rows_per_second", ours, "rows/s")
    goal = 0.97 if case.params["batch_size"] >= 8_192 else None
    yield Figure(f"device.{case.name}.share_of_bare_loop", ours / bare, "x", goal, at_least=True)
    busy = _busy_share(case, rows)
    yield Figure(f"device.{case.name}.busy_share", busy, "x", 0.95 if goal else None, at_least=True)
    yield Figure(f"device.{case.name}.peak_memory", memory, "MB")
    for name, peaks in PEAK.items():
        if name in torch.cuda.get_device_name() and case.family is MLP:
            weights = sum(parameter.numel() for parameter in model.network.parameters())
            peak = peaks[case.params.get("precision") == "bfloat16"]
            yield Figure(f"device.{case.name}.model_flops_utilization", 6 * weights * ours / peak, "x")


def _streamed(case: Case) -> Iterator[Figure]:
    """Rows that do not fit onto the device, and are moved batch by batch, against rows that stay there."""
    rows = _rows(case)
    resident, _ = _rows_per_second(case, rows)
    with patch("torch.cuda.mem_get_info", lambda device: (0, 0)):
        streamed, _ = _rows_per_second(case, rows)
    yield Figure("device.mlp.streamed.rows_per_second", streamed, "rows/s")
    yield Figure("device.mlp.streamed.share_of_resident", streamed / resident, "x")


def _resumed(case: Case) -> Iterator[Figure]:
    """The largest relative difference of an epoch's training loss after a stop in the middle of the second one."""
    rows = _rows(case)
    whole = _losses(case, rows, _context())
    store, asked = _Store(), iter(range(10**9))
    stop = len(rows.x) // case.params["batch_size"] * 3 // 2
    try:
        _losses(case, rows, replace(_context(), checkpoints=store, interrupted=lambda: next(asked) == stop))
    except Interrupted:
        resumed = _losses(case, rows, replace(_context(), checkpoints=store))
    else:
        raise AssertionError("the fit was not interrupted")
    yield Figure(
        "device.mlp.resumed.loss_difference",
        max(abs(a - b) / b for a, b in zip(resumed, whole, strict=True)),
        "x",
        1e-3,
    )


class _Store:
    files: Mapping[str, bytes] | None = None

    def load(self) -> Mapping[str, bytes] | None:
        return self.files

    def save(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)


def _context() -> Context:
    features = [
        Feature(f"fact_{fact}[{event}]", vector=f"fact_{fact}") for fact in range(FACTS) for event in range(EVENTS)
    ]
    plain = [Feature(f"plain_{number}", vector=f"plain_{number}") for number in range(PLAIN - len(features))]
    return Context("binary_classification", 2, 1, features=(*features, *plain))


def _rows(case: Case) -> Labelled:
    x = np.random.default_rng(0).normal(size=(case.rows, PLAIN)).astype(np.float32)
    return Labelled(x, (x[:, 0] * x[:, 1] > 0).astype(np.float32))


def _fit(case: Case, rows: Labelled, context: Context) -> NetworkTrainer:
    return case.family.fit(case.params, rows, Labelled(rows.x[:1_000], rows.y[:1_000]), context)


def _rows_per_second(case: Case, rows: Labelled) -> tuple[float, NetworkTrainer]:
    heard: list[float] = []
    context = replace(_context(), on_epoch=lambda _, figures: heard.append(figures["rows_per_second"]))
    model = _fit(case, rows, context)
    return median(heard[1:]), model


def _losses(case: Case, rows: Labelled, context: Context) -> list[float]:
    heard: list[float] = []
    _fit(case, rows, replace(context, on_epoch=lambda _, figures: heard.append(figures["train_loss"])))
    return heard


def _bare_rows_per_second(model: NetworkTrainer, case: Case, rows: Labelled) -> float:
    network = model.architecture.build().cuda().train()
    forward = torch.compile(network) if case.params.get("compile") else network
    x, y = torch.from_numpy(rows.x).cuda(), torch.from_numpy(rows.y).cuda()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2, fused=True)
    mixed = case.params.get("precision") == "bfloat16"

    def epoch() -> None:
        for batch in torch.randperm(len(x), device="cuda").split(case.params["batch_size"]):
            with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
                output = forward(x[batch])
            loss = binary_cross_entropy_with_logits(output.float(), y[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()

    return len(x) / median([_seconds(epoch) for _ in range(EPOCHS)][1:])


def _busy_share(case: Case, rows: Labelled) -> float:
    """The device's kernel time over the time of an epoch's steps: from the fit of two epochs less that of one."""
    kernels, seconds = [], []
    few = Labelled(rows.x[:1_000_000], rows.y[:1_000_000])
    for epochs in (1, 3):
        fit = case.but("", epochs=epochs)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            seconds.append(_seconds(lambda fit=fit: _fit(fit, few, _context())))
        kernels.append(sum(event.self_device_time_total for event in profile.key_averages()) / 1e6)
    return (kernels[1] - kernels[0]) / (seconds[1] - seconds[0])


def _seconds(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    for figure in device():
        print(figure.line(), flush=True)
