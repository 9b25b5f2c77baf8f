"""What a model's scores are worth before labels are known.

Labels are drawn for the rows by what labelled rows with such scores had, and the metric is taken of the drawn labels; so is any
metric, and its interval has all three uncertainties: which labelled rows there were, which rows came, and what becomes of
them. For classes that is the confidence-based performance estimation (CBPE) of NannyML with calibrated probabilities. For a
value a label is the score plus the error of a labelled row with a score nearby.

It holds as long as rows with such scores have such labels. `importance` weighs the labelled rows by how much likelier they
are among the new ones, which mends that where the features have moved. Where what a label means has changed, nothing but
labels tells.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from ml_platform.core.tasks import Metric, Task
from ml_platform.evaluation.bootstrap import interval
from ml_platform.evaluation.weighted import weighted

DRAWS = 200
MOST_ROWS = 20_000  # of either side; more would take long and tell little
MOST_WEIGHT = 20.0  # of one labelled row, in means: a few rows must not speak for all
RANKS = 101  # that values of a feature are told apart by
NEIGHBOURS = 50  # labelled rows on either side of a score, of whose errors one is drawn

Draw = Callable[[np.ndarray], np.ndarray]  # uniform numbers [rows] to labels [rows]


@dataclass(frozen=True)
class Estimate:
    """A metric's value with an interval of 90 %; `positives`: rows of the rarest class to expect, or rows for a value."""

    value: float
    low: float
    high: float
    rows: int
    positives: float


@dataclass(frozen=True)
class Labelled:
    """Scores [rows] or [rows, classes] of rows whose labels [rows] are known, and how much each counts."""

    scores: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None

    @property
    def worth(self) -> float:
        """Rows of weight 1 that say as much (L. Kish, 1965): fewer if some count much more than others."""
        if self.weights is None:
            return float(len(self.labels))
        return float(self.weights.sum() ** 2 / (self.weights**2).sum())

    def drawn(self, random: np.random.Generator) -> "Labelled":
        """As many rows again as these are worth, drawn with replacement by their weights."""
        chosen = _drawn(random, len(self.labels), min(round(self.worth), MOST_ROWS), self.weights)
        return Labelled(self.scores[chosen], self.labels[chosen])

    @property
    def sorted(self) -> "Labelled":
        """The same by ascending score, which is drawn from and calibrated on several times as fast."""
        if self.scores.ndim > 1:
            return self
        order = np.argsort(self.scores, kind="stable")
        return Labelled(self.scores[order], self.labels[order], None if self.weights is None else self.weights[order])


def estimate(
    task: Task,
    metric: Metric,
    known: Labelled,
    scores: np.ndarray,
    seed: int,
    parts: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Estimate | None]:
    """The metric of scores without labels: of all rows under "", and of each part (bool [rows]) under its name.

    None where the metric has no value, such as without a positive row.
    """
    random, known = np.random.default_rng(seed), known.sorted
    order = np.argsort(scores, kind="stable") if scores.ndim == 1 else np.arange(len(scores))
    scores = scores[order]
    masks = {"": np.ones(len(scores), dtype=bool), **{name: mask[order] for name, mask in (parts or {}).items()}}
    found: dict[str, list[float]] = {name: [] for name in masks}
    rarest: dict[str, list[float]] = {name: [] for name in masks}
    for _ in range(DRAWS):
        chosen = _drawn(random, len(scores), min(len(scores), MOST_ROWS))
        drawn = scores[chosen]
        labels = _labels(task, known.drawn(random), drawn, random.random(len(drawn)))
        for name, mask in masks.items():
            mine = mask[chosen]
            if mine.any():
                value = weighted(task, metric, labels[mine], drawn[mine])(np.ones(int(mine.sum())))
                found[name].append(value)
                rarest[name].append(rarest_rows(task, labels[mine]) * len(scores) / len(drawn))
    return {name: _summary(found[name], rarest[name], int(mask.sum())) for name, mask in masks.items()}


def importance(reference: np.ndarray, now: np.ndarray, seed: int) -> np.ndarray:
    """How much likelier each reference row is among the new ones: weights [rows] with mean 1, from features [rows, features].

    They are the odds that a logistic regression gives the row to be a new one.
    """
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(seed)
    size = min(len(reference), len(now), MOST_ROWS)
    sides = [side[random.choice(len(side), size, replace=False)] for side in (reference, now)]
    both = np.vstack(sides)
    model = LogisticRegression(C=0.1, max_iter=500).fit(_ranks(both, both), np.repeat([0, 1], size))
    odds = np.exp(np.clip(model.decision_function(_ranks(reference, both)), -10, 10))
    return np.minimum(odds / odds.mean(), MOST_WEIGHT)


def calibrate(known: Labelled, scores: np.ndarray) -> np.ndarray:
    """The share of positive rows at each score, by isotonic regression on labelled rows: [rows]."""
    values, position = np.unique(known.scores, return_inverse=True)
    often = np.bincount(position).astype(np.float64)
    shares = isotonic_regression(np.bincount(position, known.labels) / often, weights=often).x
    return np.interp(scores, values, shares)


def rarest_rows(task: Task, labels: np.ndarray) -> float:
    """Rows of the rarest class that there are; all rows for a value."""
    if task == "regression" or not len(labels):
        return float(len(labels))
    counts = np.bincount(labels.astype(np.int64), minlength=2)
    return float(counts.min() if task == "binary_classification" else counts[counts > 0].min())


def _labels(task: Task, known: Labelled, scores: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """A label for each row, drawn by what labelled rows with such a score had."""
    if task == "binary_classification":
        return (uniform < calibrate(known, scores)).astype(np.int64)
    if task == "multiclass_classification":
        of = [
            calibrate(Labelled(s, known.labels == c), t)
            for c, (s, t) in enumerate(zip(known.scores.T, scores.T, strict=True))
        ]
        shares = np.maximum(np.column_stack(of), 1e-12)
        so_far = np.cumsum(shares / shares.sum(axis=1, keepdims=True), axis=1)
        return np.minimum((so_far < uniform[:, None]).sum(axis=1), scores.shape[1] - 1)
    order = np.argsort(known.scores, kind="stable")
    errors = (known.labels - known.scores)[order]
    nearest = np.searchsorted(known.scores[order], scores) + ((2 * uniform - 1) * NEIGHBOURS).astype(np.int64)
    return scores + errors[np.clip(nearest, 0, len(errors) - 1)]


def _drawn(random: np.random.Generator, rows: int, size: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Positions of rows that are drawn with replacement, in ascending order."""
    uniform = np.sort(random.random(size))
    if weights is None:
        return (uniform * rows).astype(np.int64)
    so_far = np.cumsum(weights)
    return np.minimum(np.searchsorted(so_far / so_far[-1], uniform, "right"), rows - 1)


def _ranks(rows: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Ranks from -1 to 1, so that no amount, however large, decides alone; and their squares, so that the middle can be
    likelier than both ends: [rows, 2 * features]."""
    edges = np.quantile(among, np.linspace(0, 1, RANKS), axis=0)
    below = [
        np.searchsorted(e, values, "left") + np.searchsorted(e, values, "right")
        for e, values in zip(edges.T, rows.T, strict=True)
    ]
    ranks = np.column_stack(below) / RANKS - 1
    return np.hstack([ranks, ranks**2])


def _summary(values: list[float], positives: list[float], rows: int) -> Estimate | None:
    finite = [value for value in values if np.isfinite(value)]
    ends = interval(finite)
    if ends is None or len(finite) < len(values) / 2:
        return None
    return Estimate(float(np.mean(finite)), *ends, rows, float(np.mean(positives)))
