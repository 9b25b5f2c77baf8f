"""The training manifest: everything that a model was made from, so that it can be made again."""

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ml_platform.core import digest
from ml_platform.core.settings import load_settings
from ml_platform.core.spec import CandidateSpec, FeatureViewSpec, ModelSpec
from ml_platform.features.views import definition
from ml_platform.training.training_set import SPLIT
from ml_platform.training.windows import windows

RELEVANT_PACKAGES = (
    "torch", "numpy", "pyarrow", "duckdb", "ibis-framework", "scikit-learn", "scipy", "xgboost", "lightgbm", "pyspark",
    "safetensors",
)  # fmt: skip


def training_manifest(
    spec: ModelSpec,
    candidate: CandidateSpec,
    training_date: date,
    inputs: Iterable[dict[str, Any]],
    training_set: str,
    leaderboard: Sequence[Mapping[str, Any]] = (),
    described: Mapping[str, Any] | None = None,
) -> bytes:
    """JSON with the content hash of the training set and of every partition behind it, the spec, code, seed and packages.

    `candidate` is the one that was selected, `leaderboard` has a row for each that was trained, `described` is what
    `describe` says of the training set. It says nothing of when and by which run: the same inputs on the same kind of
    machine give the same bytes.
    """
    content = {
        "model": spec.name,
        "training_date": training_date.isoformat(),
        "training_set": training_set,
        **(described or {}),
        "inputs": list(inputs),
        "spec_digest": digest.of_json(spec.model_dump(mode="json")),
        "trainer": candidate.trainer,
        "params": candidate.params,
        "leaderboard": list(leaderboard),
        "seed": spec.training.seed,
        **environment(),
    }
    return json.dumps(content, indent=1).encode()


def describe(
    spec: ModelSpec, label_delay: int, training_date: date, views: Sequence[FeatureViewSpec], table: pa.Table
) -> dict[str, Any]:
    """What a training set is: its rows, windows, embargo and the age of its labels, and the definitions of its features."""
    used = windows(spec.training, label_delay, training_date)
    embargo = spec.training.embargo(label_delay)
    return {
        "rows": {part: pc.sum(pc.equal(table[SPLIT], part)).as_py() or 0 for part in ("train", "validation")},  # type: ignore[attr-defined]
        "windows": {
            name: [day.isoformat() for day in days]
            for name, days in (("train", used.train), ("validation", used.validation))
        },
        "embargo_days": embargo,
        "label_delay_days": label_delay,
        "views": {view.name: {"definition": definition(view), "features": list(view.features)} for view in views},
    }


def environment() -> dict[str, Any]:
    """What of this process decides the bits of a fit: code, packages, and the kind of machine; and its image, if it has one."""
    return {
        "code_version": digest.code_version(),
        "image": load_settings().image,
        "python": platform.python_version(),
        "packages": _installed(),
        "machine": _machine(),
    }


def _installed() -> dict[str, str]:
    """Versions of the relevant packages that are there; some are extras."""
    found = {}
    for name in RELEVANT_PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _machine() -> dict[str, Any]:
    """Kernels are chosen by the instructions that the processor has, and sums are split by the number of threads."""
    import torch
    from threadpoolctl import threadpool_info

    blas = max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)
    on_gpu = torch.cuda.is_available()
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": {"torch": torch.get_num_threads(), "blas": blas},
        "gpu": torch.cuda.get_device_name() if on_gpu else "",
        **({"cuda": torch.version.cuda} if on_gpu else {}),
    }
