"""From a training set to a bundle."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from ml_platform.core.spec import CandidateSpec, FeatureViewSpec, ModelSpec, SourceSpec
from ml_platform.features.transforms import Transforms
from ml_platform.registry import bundle
from ml_platform.registry.leaderboard import Entry, attempt, fit_here, labels_of, select
from ml_platform.training.cold_start import with_cold_starts
from ml_platform.training.manifest import training_manifest
from ml_platform.training.trainers import Checkpoints, Context, Labelled, OnEpoch, Trainer
from ml_platform.training.training_set import LABEL, class_count, split_columns


@dataclass(frozen=True)
class Prepared:
    """Rows as trainers take them, and the transforms, fitted on the training rows, that made them so.

    `cold_starts`: how many of the training rows were shown as such, by entity.
    """

    transforms: Transforms
    schema: bundle.InputSchema
    train: Labelled
    validation: Labelled
    classes: int
    cold_starts: Mapping[str, int]

    def context(
        self, spec: ModelSpec, on_epoch: OnEpoch, checkpoints: Checkpoints | None, interrupted: Callable[[], bool]
    ) -> Context:
        """What a fit on these rows needs beside them."""
        features = self.transforms.describe(self.schema.features)
        return Context(spec.task, self.classes, spec.training.seed, on_epoch, checkpoints, interrupted, features)


@dataclass(frozen=True)
class Trained:
    """The bundle of the best candidate, and what became of all."""

    files: dict[str, bytes]
    leaderboard: list[Entry]


def prepare(
    spec: ModelSpec,
    rows: SourceSpec,
    training_set: pa.Table,
    daily_views: Sequence[FeatureViewSpec],
    request_views: Sequence[FeatureViewSpec],
    subject: str,
) -> Prepared:
    """Show some of the rows to fit on as cold starts, fit the transforms and apply them.

    Raises:
        TrainingError: if the rows cannot be trained or judged on.
    """
    parts = split_columns(training_set, subject, spec.task)
    training, identity = spec.training, [*rows.key, rows.event_time]
    shown, cold_starts = with_cold_starts(parts.train, daily_views, identity, training.cold_start_share, training.seed)
    transforms = Transforms.of_views(daily_views, request_views, shown)
    label_type = np.float64 if spec.task == "regression" else np.int64
    train, validation = (
        Labelled(transforms.apply(part), part[LABEL].astype(label_type)) for part in (shown, parts.validation)
    )
    schema = bundle.InputSchema.of(transforms, rows, daily_views)
    return Prepared(transforms, schema, train, validation, class_count(parts, spec.task), cold_starts)


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
    checkpoints: Callable[[int], Checkpoints] | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    fit: Callable[[int, CandidateSpec, Labelled, Labelled, Context], Trainer] | None = None,
    described: Mapping[str, Any] | None = None,
    may_pass: Callable[[Exception], bool] = lambda error: False,
) -> Trained:
    """Fit the transforms, then every candidate on the same rows, and pack the best by `spec.select_by`.

    `checkpoints` gives for a candidate's position, from 1, where its fit goes on from if it was interrupted; `fit` fits the
    candidate at a position otherwise than in this process. `described` is what the manifest says of the training set.
    What went wrong with a candidate is noted, unless it `may_pass`: then it is raised, for the training is tried again.
    With several candidates the figures that `on_epoch` hears begin with `<position>_<trainer>_`.

    Raises:
        TrainingError: if the rows cannot be trained or judged on, or if all of several candidates failed.
        SpecError: if the only candidate's trainer or one of its params is unknown.
        Interrupted: once `interrupted` says yes.
    """
    subject = f"{spec.name}/candidate [{training_date}]"
    prepared = prepare(spec, rows, training_set, daily_views, request_views, subject)
    attempts = []
    for position, (label, candidate) in enumerate(zip(labels_of(spec.candidates), spec.candidates, strict=True), 1):
        heard = on_epoch if len(spec.candidates) == 1 else _prefixed(label, on_epoch)
        kept = checkpoints(position) if checkpoints else None
        context = prepared.context(spec, heard, kept, interrupted)
        how = partial(fit, position) if fit else fit_here
        tried = attempt(label, candidate, spec.select_by, prepared.train, prepared.validation, context, how)
        if tried.problem and may_pass(tried.problem):
            raise tried.problem
        attempts.append(tried)
    best, trainer, leaderboard = select(attempts, spec.select_by, subject)
    files = bundle.pack(
        spec,
        trainer,
        prepared.transforms,
        prepared.schema,
        leaderboard[best].metrics,
        training_manifest(
            spec,
            spec.candidates[best],
            training_date,
            inputs,
            training_set_hash,
            [entry.outcome() for entry in leaderboard],
            {
                **(described or {}),
                "cold_starts": {"share": spec.training.cold_start_share, "rows": prepared.cold_starts},
            },
        ),
    )
    return Trained(files, leaderboard)


def _prefixed(label: str, on_epoch: OnEpoch) -> OnEpoch:
    """So that figures of several candidates do not overwrite each other in one tracking run."""
    return lambda epoch, figures: on_epoch(epoch, {f"{label}_{name}": value for name, value in figures.items()})
