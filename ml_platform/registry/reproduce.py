"""Whether a bundle can be made again from what its manifest names, and whether the same comes out."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import safetensors.numpy

from ml_platform.core import digest, keys
from ml_platform.core.spec import CandidateSpec, FeatureViewSpec, SourceSpec
from ml_platform.core.threads import limited
from ml_platform.features.views import definition
from ml_platform.registry import bundle
from ml_platform.registry.bundle import Bundle
from ml_platform.registry.candidate import train_candidate
from ml_platform.training.trainers import OnEpoch, check_kind

# What is not fitted: the model file and what is said about the training. Their differences are named as changes.
NOT_FITTED = (bundle.SPEC, bundle.MANIFEST, bundle.MODEL_CARD, bundle.FILES)
ENVIRONMENT = ("code_version", "image", "python", "packages", "machine")
MISSING = "missing"


@dataclass(frozen=True)
class Change:
    """Something that the manifest names, as it was when the model was trained and as it is now."""

    what: str
    was: str
    now: str

    @property
    def missing(self) -> bool:
        return self.now == MISSING


def changed_inputs(inputs: Iterable[Mapping[str, Any]], hash_of: Callable[[str, date], str | None]) -> list[Change]:
    """The input partitions that are missing or have other content; `hash_of` gives a partition's present content hash."""
    found = []
    for one in inputs:
        now = hash_of(*keys.parse_partition(one["name"]))
        if now != one["version"]:
            found.append(Change(one["name"], one["version"], now or MISSING))
    return found


def changed_environment(manifest: Mapping[str, Any], environment: Mapping[str, Any]) -> list[Change]:
    """How code, packages and machine differ from those that the manifest names."""
    was = _flat({name: manifest.get(name, "") for name in ENVIRONMENT})
    now = _flat({name: environment[name] for name in ENVIRONMENT})
    return [
        Change(name, was.get(name, "") or MISSING, now.get(name, "") or MISSING)
        for name in dict.fromkeys([*was, *now])
        if was.get(name, "") != now.get(name, "")
    ]


def changed_views(manifest: Mapping[str, Any], views: Mapping[str, FeatureViewSpec]) -> list[Change]:
    """Feature views whose declarations are others than those that the manifest names."""
    found = []
    for name, described in manifest.get("views", {}).items():
        now = definition(views[name]) if name in views else MISSING
        if now != described["definition"]:
            found.append(Change(keys.feature_view(name), described["definition"], now))
    return found


def refit(
    original: Bundle,
    rows: SourceSpec,
    daily_views: Sequence[FeatureViewSpec],
    request_views: Sequence[FeatureViewSpec],
    training_set: pa.Table,
    on_epoch: OnEpoch = lambda epoch, figures: None,
    plugins: Collection[str] = (),
) -> dict[str, bytes]:
    """Fit the selected candidate anew, with its params, its seed and as many threads as then; returns the bundle's files.

    `plugins` are import paths of trainers that the project declares.

    Raises:
        TrainingError, SpecError: if it cannot be fitted.
    """
    manifest = original.manifest
    selected = CandidateSpec(trainer=manifest["trainer"], params=manifest["params"])
    for name in selected.trainers:  # which the bundle names; its own files were loaded by the same rule
        check_kind(name, plugins)
    # Of before there were cold starts, whatever the default is now.
    share = {"cold_start_share": manifest.get("cold_starts", {}).get("share", 0.0)}
    training = original.spec.training.model_copy(update=share)
    spec = original.spec.model_copy(update={"candidates": (selected,), "training": training})
    day = date.fromisoformat(manifest["training_date"])
    with _as_then(manifest.get("machine", {}).get("threads", {})):
        trained = train_candidate(
            spec, day, rows, daily_views, request_views, training_set, digest.of_table(training_set), [], on_epoch
        )
    return trained.files


def differences(original: Mapping[str, bytes], rebuilt: Mapping[str, bytes]) -> dict[str, str]:
    """What differs, in words, by file; of the files that are fitted, bit for bit."""
    found = {}
    for name in sorted({*original, *rebuilt} - {*NOT_FITTED}):
        before, after = original.get(name), rebuilt.get(name)
        if before != after:
            found[name] = _difference(name, before, after)
    return found


def _difference(name: str, before: bytes | None, after: bytes | None) -> str:
    if before is None or after is None:
        return f"only in the {'rebuilt' if before is None else 'registered'} bundle"
    if name.endswith(".safetensors"):
        return _tensors(safetensors.numpy.load(before), safetensors.numpy.load(after))
    if name == bundle.METRICS:
        was, now = json.loads(before), json.loads(after)
        changed = [n for n in dict.fromkeys([*was, *now]) if was.get(n) != now.get(n)]
        return ", ".join(f"{n} was {was.get(n)}, is {now.get(n)}" for n in changed)
    return f"digest was {digest.of_bytes(before)[:12]}, is {digest.of_bytes(after)[:12]}"


def _tensors(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> str:
    shapes = {
        n: (before[n].shape if n in before else None, after[n].shape if n in after else None) for n in {*before, *after}
    }
    if other := sorted(name for name, (was, now) in shapes.items() if was != now):
        return f"tensors of other shapes: {', '.join(other)}"
    apart = {n: float(np.abs(before[n].astype(np.float64) - after[n].astype(np.float64)).max()) for n in before}
    changed = [n for n in before if before[n].tobytes() != after[n].tobytes()]
    return f"{len(changed)} of {len(before)} tensors differ, by {max(apart.values()):.3g} at most"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": str(value)}
    return flat


def _as_then(threads: Mapping[str, int]) -> AbstractContextManager[None]:
    """Within the block sums are split as they were: among as many threads."""
    then = threads.get("torch")
    return limited(then, threads.get("blas")) if then else nullcontext()
