"""Candidates of one training, side by side: each is tried, the best is selected."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ml_platform.core.errors import Interrupted, TrainingError
from ml_platform.core.spec import CandidateSpec
from ml_platform.core.tasks import LOWER_IS_BETTER, Metric
from ml_platform.evaluation.metrics import measure
from ml_platform.training.trainers import Context, Labelled, Trainer, trainer_named

Fit = Callable[[CandidateSpec, Labelled, Labelled, Context], Trainer]


@dataclass(frozen=True)
class Entry:
    """What became of one candidate. `error` says why one failed, `note` what else is worth knowing."""

    candidate: str
    trainer: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    status: Literal["selected", "trained", "failed"]
    error: str
    seconds: float
    note: str = ""

    def outcome(self) -> dict[str, Any]:
        """The entry without what differs from run to run: the same inputs give the same bundle."""
        return {name: value for name, value in asdict(self).items() if name != "seconds"}


@dataclass(frozen=True)
class Attempt:
    """An entry with the fitted trainer, or with the error in its place."""

    entry: Entry
    trainer: Trainer | None = None
    problem: Exception | None = None


def labels_of(candidates: Sequence[CandidateSpec]) -> list[str]:
    """A name for each candidate, unlike all others: its position, from 1, and its trainer."""
    return [f"{position}_{candidate.trainer}" for position, candidate in enumerate(candidates, start=1)]


def fit_here(candidate: CandidateSpec, train: Labelled, validation: Labelled, context: Context) -> Trainer:
    return trainer_named(candidate.trainer).fit(candidate.params, train, validation, context)


def attempt(
    label: str,
    candidate: CandidateSpec,
    select_by: Metric,
    train: Labelled,
    validation: Labelled,
    context: Context,
    fit: Fit = fit_here,
) -> Attempt:
    """Fit and measure one candidate. Whatever goes wrong with it is noted, and does not stop the others."""
    began = time.perf_counter()
    figures: dict[str, float] = {}

    def heard(epoch: int, new: dict[str, float]) -> None:
        figures.update(new)
        context.on_epoch(epoch, new)

    entry = Entry(label, candidate.trainer, candidate.params, {}, "trained", "", 0.0)
    try:
        trainer = fit(candidate, train, validation, replace(context, on_epoch=heard))
        metrics = measure(context.task, validation.y, trainer.predict(validation.x))
        if not math.isfinite(metrics[select_by]):
            raise TrainingError(f"candidate {label}", f"{select_by} has no value", "mend candidates.params")
    except Interrupted:
        raise  # that is no fault of the candidate
    except Exception as error:  # noqa: BLE001  # whatever is wrong with one family, the others go on
        said = str(error) if isinstance(error, TrainingError) else f"{type(error).__name__}: {error}"
        failed = replace(entry, status="failed", error=said, seconds=time.perf_counter() - began)
        return Attempt(failed, problem=error)
    done = replace(entry, metrics=metrics, seconds=time.perf_counter() - began, note=_note(figures))
    return Attempt(done, trainer)


def _note(figures: Mapping[str, float]) -> str:
    """Of a fit whose last figures are these."""
    if not figures.get("halvings"):
        return ""
    return f"memory ran out: {figures['part_rows']:.0f} rows at once, and gradients added up to the same batch"


def select(attempts: Sequence[Attempt], select_by: Metric, subject: str) -> tuple[int, Trainer, list[Entry]]:
    """The best candidate's position and trainer, the first of equals, and all entries.

    Raises:
        TrainingError: naming each candidate, if all have failed. A candidate that is the only one raises its own error.
    """
    sign = -1.0 if select_by in LOWER_IS_BETTER else 1.0
    trained = {position: one for position, one in enumerate(attempts) if one.trainer is not None}
    if not trained:
        if len(attempts) == 1 and attempts[0].problem:
            raise attempts[0].problem
        reasons = "; ".join(f"{one.entry.candidate}: {one.entry.error}" for one in attempts)
        raise TrainingError(subject, f"all {len(attempts)} candidates failed: {reasons}", "mend candidates")
    best = max(trained, key=lambda position: sign * trained[position].entry.metrics[select_by])
    trainer = trained[best].trainer
    assert trainer is not None, "only those that were trained are compared"
    entries = [
        replace(one.entry, status="selected") if position == best else one.entry
        for position, one in enumerate(attempts)
    ]
    return best, trainer, entries
