"""From a training set and a point to the record of one trial."""

from collections.abc import Callable, Sequence

from ml_platform.core.spec import CandidateSpec, ModelSpec
from ml_platform.core.tasks import LOWER_IS_BETTER
from ml_platform.registry.candidate import Prepared
from ml_platform.registry.leaderboard import Fit, attempt, fit_here
from ml_platform.training.trainers import Checkpoints, OnEpoch
from ml_platform.training.trials import Pruned, Pruning, Record


def tuned(candidate: CandidateSpec, point: dict[str, object]) -> CandidateSpec:
    """The candidate with the params that a search has found."""
    return candidate.model_copy(update={"params": {**candidate.params, **point}})


def fit_trial(
    spec: ModelSpec,
    candidate: CandidateSpec,
    record: Record,
    rows: Prepared,
    others: Callable[[], Sequence[Record]],
    on_epoch: OnEpoch,
    checkpoints: Checkpoints | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    fit: Fit = fit_here,
) -> tuple[Record, Exception | None]:
    """Fit (by `fit`) and measure the point of a running trial; returns what became of it, and its error if it failed.

    Raises:
        Interrupted: if the process was asked to stop; the trial goes on from its checkpoint.
    """
    assert candidate.search, "trials are of a search"
    pruning = Pruning(candidate.search, others)

    def heard(epoch: int, figures: dict[str, float]) -> None:
        on_epoch(epoch, figures)
        pruning.hear(epoch, figures)

    context = rows.context(spec, heard, checkpoints, interrupted)
    tuned_candidate = tuned(candidate, record.params)
    tried = attempt(record.trial, tuned_candidate, spec.select_by, rows.train, rows.validation, context, fit)
    entry = tried.entry
    record = record.model_copy(update={"losses": pruning.losses, "seconds": entry.seconds, "error": ""})
    if isinstance(tried.problem, Pruned):
        return record.model_copy(update={"status": "pruned"}), None
    if tried.problem:
        return record.model_copy(update={"status": "failed", "error": entry.error}), tried.problem
    value = entry.metrics[spec.select_by]
    cost = value if spec.select_by in LOWER_IS_BETTER else -value
    return record.model_copy(update={"status": "complete", "metrics": dict(entry.metrics), "cost": cost}), None
