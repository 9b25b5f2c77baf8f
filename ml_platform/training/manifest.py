"""The training manifest: everything that a model was made from, so that it can be made again."""

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ml_platform.core import digest
from ml_platform.core.spec import CandidateSpec, ModelSpec

RELEVANT_PACKAGES = ("torch", "numpy", "pyarrow", "duckdb", "ibis-framework", "scikit-learn", "xgboost", "lightgbm")


def training_manifest(
    spec: ModelSpec,
    candidate: CandidateSpec,
    training_date: date,
    inputs: Iterable[dict[str, Any]],
    training_set: str,
    leaderboard: Sequence[Mapping[str, Any]] = (),
) -> bytes:
    """JSON with the content hash of the training set and of every partition behind it, the spec, code, seed and packages.

    `candidate` is the one that was selected, `leaderboard` has a row for each that was trained. It says nothing of when, where and by which run: the same inputs give the same bytes.
    """
    content = {
        "model": spec.name,
        "training_date": training_date.isoformat(),
        "training_set": training_set,
        "inputs": list(inputs),
        "spec_digest": digest.of_json(spec.model_dump(mode="json")),
        "trainer": candidate.trainer,
        "params": candidate.params,
        "leaderboard": list(leaderboard),
        "seed": spec.training.seed,
        "code_version": digest.code_version(),
        "python": platform.python_version(),
        "packages": _installed(),
    }
    return json.dumps(content, indent=1).encode()


def _installed() -> dict[str, str]:
    """Versions of the relevant packages that are there; some are extras."""
    found = {}
    for name in RELEVANT_PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
