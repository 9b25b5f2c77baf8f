"""From a training set to a bundle."""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import pyarrow as pa

from ml_platform.core.spec import FeatureViewSpec, ModelSpec, SourceSpec
from ml_platform.evaluation.metrics import binary_metrics
from ml_platform.features.transforms import Transforms
from ml_platform.registry import bundle
from ml_platform.training.manifest import training_manifest
from ml_platform.training.trainers import OnEpoch, trainer_named
from ml_platform.training.training_set import LABEL, split_columns


def train_candidate(
    spec: ModelSpec,
    training_date: date,
    rows: SourceSpec,
    daily_views: Sequence[FeatureViewSpec],
    request_views: Sequence[FeatureViewSpec],
    training_set: pa.Table,
    training_set_hash: str,
    inputs: Iterable[dict[str, Any]],
    on_epoch: OnEpoch,
) -> dict[str, bytes]:
    """Fit transforms and trainer on the training rows and pack them; returns the bundle's files.

    Raises:
        TrainingError: if the rows cannot be trained or judged on.
        SpecError: if the trainer or one of its params is unknown.
    """
    parts = split_columns(training_set, f"{spec.name}/candidate [{training_date}]")
    transforms = Transforms.fit(
        tuple(name for view in daily_views for name in view.features),
        {name: feature.expression or "" for view in request_views for name, feature in view.features.items()},
        parts.train,
    )
    candidate = spec.candidates[0]
    held_out = transforms.apply(parts.validation), parts.validation[LABEL]
    trainer = trainer_named(candidate.trainer).fit(
        candidate.params, transforms.apply(parts.train), parts.train[LABEL], held_out, spec.training.seed, on_epoch
    )
    return bundle.pack(
        spec,
        trainer,
        transforms,
        bundle.InputSchema.of(transforms, rows, daily_views),
        binary_metrics(held_out[1], trainer.predict(held_out[0])),
        training_manifest(spec, candidate, training_date, inputs, training_set_hash),
    )
