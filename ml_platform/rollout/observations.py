# pyright: reportAttributeAccessIssue=false
# The stubs of PyArrow know fewer functions than it has.
"""What the prediction log says about a step of a rollout."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_platform.core.spec.rollout import RowMetric
from ml_platform.core.tasks import Task
from ml_platform.features.health import shift
from ml_platform.rollout.sequential import Interval, certainly_differ, difference, proportion
from ml_platform.rollout.state import Rollout

LABEL = "label"  # of the log's rows, where it is known
SLOW_SHARE = 0.01  # of the requests may be slower than a limit on the 99th percentile
_LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True)
class Observed:
    """Figures of the new version since the step began; None where the model file has no limit, or nothing is known yet.

    `trouble` is a reason to end the rollout that is not in the log. `slow` is the share of requests above the latency limit.
    `metric` is how much worse the new version is than the champion, on `labels` of its requests. `shifted`: the scores'
    distributions differ for certain; `score_psi` says how much.
    """

    requests: int = 0
    champion_requests: int = 0
    errors: Interval | None = None
    slow: Interval | None = None
    latency_p99_ms: float | None = None
    score_psi: float | None = None
    shifted: bool = False
    metric: Interval | None = None
    labels: int = 0
    trouble: str = ""

    def figures(self) -> dict[str, Any]:
        """For people: the figures that have a value."""
        found: dict[str, Any] = {"requests": self.requests, "champion_requests": self.champion_requests}
        for name, one in (("error_rate", self.errors), ("share_too_slow", self.slow), ("metric_worse_by", self.metric)):
            if one is not None and np.isfinite(one.value):
                found |= {name: _short(one.value), f"{name}_interval": [_short(one.lower), _short(one.upper)]}
        found |= {
            name: _short(value)
            for name in ("latency_p99_ms", "score_psi")
            if (value := getattr(self, name)) is not None
        }
        return {**found, "labels": self.labels} if self.labels else found


def observe(rollout: Rollout, log: pa.Table, task: Task, trouble: str = "") -> Observed:
    """What the rows of the log since the step began say; a column `label` has the labels that are known."""
    challenger = log.filter(pc.equal(log["version"], rollout.version))
    champion = log.filter(pc.and_(pc.equal(log["version"], rollout.champion or ""), pc.equal(log["arm"], "champion")))
    limits, alpha = rollout.spec.abort_if, rollout.spec.alpha
    requests, latency = challenger.num_rows, challenger["latency_ms"].to_numpy()
    failed = int(pc.sum(pc.not_equal(challenger["error"], "")).as_py() or 0)
    slow = None
    if limits.latency_p99_ms is not None:
        slow = proportion(int((latency > limits.latency_p99_ms).sum()), requests, alpha)
    psi, shifted = _shift(challenger, champion, alpha) if limits.score_psi is not None else (None, False)
    metric, labels = None, 0
    if limits.metric is not None and LABEL in log.column_names:
        (losses, others) = (row_losses(limits.metric.name, task, arm) for arm in (challenger, champion))
        metric, labels = difference(losses, others, alpha), len(losses)
    return Observed(
        requests,
        champion.num_rows,
        proportion(failed, requests, alpha),
        slow,
        float(np.percentile(latency, 99)) if requests else None,
        psi,
        shifted,
        metric,
        labels,
        trouble,
    )


def row_losses(metric: RowMetric, task: Task, rows: pa.Table) -> np.ndarray:
    """The metric of each row that has a score and a label; lower is better."""
    several = task == "multiclass_classification"
    known = rows.filter(pc.and_(pc.is_valid(rows[LABEL]), pc.is_valid(rows["scores" if several else "score"])))
    labels = known[LABEL].to_numpy().astype(np.float64)
    if not len(labels):
        return np.empty(0)
    if several:
        scores = np.stack(known["scores"].to_numpy(zero_copy_only=False))
        score = scores.argmax(axis=1).astype(np.float64)
        of_label, wrong = scores[np.arange(len(labels)), labels.astype(int)], score != labels
    else:
        score = known["score"].to_numpy().astype(np.float64)
        of_label, wrong = np.where(labels == 1, score, 1 - score), (score >= 0.5) != (labels == 1)
    losses: dict[RowMetric, Callable[[], np.ndarray]] = {
        "accuracy": lambda: wrong.astype(np.float64),
        "log_loss": lambda: -np.log(np.clip(of_label, _LEAST_PROBABILITY, 1.0)),
        "brier": lambda: (1 - of_label) ** 2,
        "mae": lambda: np.abs(score - labels),
        "mape": lambda: np.abs((score - labels) / np.where(labels == 0, np.nan, labels)),
    }
    found = losses[metric]()
    return found[np.isfinite(found)]


def _shift(challenger: pa.Table, champion: pa.Table, alpha: float) -> tuple[float | None, bool]:
    """The PSI of the scores against the champion's, and whether they differ for certain.

    A sample's index is too large by about (bins - 1) (1/n + 1/m) (B. Yurdakul, "Statistical properties of the population
    stability index", 2018), which is taken off.
    """
    now, norm = _scores(challenger), _scores(champion)
    if not len(now) or not len(norm):
        return None, False
    found = shift("score", norm, now)
    # Fifths: with fewer bins there is less to be uncertain about, and shifts are seldom within a fifth.
    fifths = [
        np.add.reduceat(np.rint(shares * len(sample)).astype(int), np.arange(0, len(shares), 2)).tolist()
        for shares, sample in ((found.now, now), (found.norm, norm))
    ]
    excess = len(found.edges) * (1 / len(now) + 1 / len(norm))
    return max(0.0, found.index - excess), certainly_differ(fifths[0], fifths[1], alpha)


def _scores(rows: pa.Table) -> np.ndarray:
    """A number for each row that has a score; of several classes the likeliest."""
    known = rows.filter(pc.is_valid(rows["score"]))
    if known.num_rows:
        return known["score"].to_numpy().astype(np.float64)
    several = rows.filter(pc.is_valid(rows["scores"]))["scores"].to_pylist()
    return np.array([int(np.argmax(scores)) for scores in several], dtype=np.float64)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
