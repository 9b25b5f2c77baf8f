"""Metrics of weighted rows: sorted and multiplied out once, then O(rows) for each of many weights.

scikit-learn's functions take weights too, but sort for each. The definitions are scikit-learn's, and tests compare them.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ml_platform.core.tasks import Task
from ml_platform.evaluation.metrics import DECISION_THRESHOLD, NO_VALUE

Weighted = Callable[[np.ndarray], float]


def weighted(
    task: Task, metric: str, labels: np.ndarray, scores: np.ndarray, at_recall: float | None = None
) -> Weighted:
    """The metric as a function of the rows' weights [rows]. It is NaN where the metric has no value.

    With `at_recall` it is the best precision at a threshold with at least this recall.
    """
    if task == "regression":
        return _of_errors(metric, labels.astype(np.float64), scores.astype(np.float64))
    if task == "multiclass_classification":
        return _of_classes(metric, labels.astype(np.int64), scores)
    if at_recall is not None or metric in ("average_precision", "roc_auc"):
        return _of_ranks(metric, labels.astype(bool), scores, at_recall)
    return _of_decisions(metric, labels.astype(bool), scores)


class _Ranks(NamedTuple):
    """Weights by descending score, at each distinct score that a positive row has."""

    true: np.ndarray  # of positive rows with at least this score
    all: np.ndarray  # of rows with at least this score
    above: np.ndarray  # of rows with a higher score
    rows: float


def _of_ranks(metric: str, labels: np.ndarray, scores: np.ndarray, at_recall: float | None) -> Weighted:
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # the last row of each distinct score
    starts = np.append(0, ends[:-1] + 1)
    positive = np.flatnonzero(labels[order])
    so_far = np.searchsorted(positive, ends, side="right")
    with_positive = np.diff(so_far, prepend=0) > 0
    ends, starts, so_far = ends[with_positive], starts[with_positive], so_far[with_positive]
    figure = _best_precision(at_recall) if at_recall is not None else _RANK_FIGURES[metric]

    def value(weights: np.ndarray) -> float:
        mine = weights[order]
        total = np.cumsum(mine)
        true = np.cumsum(mine[positive])
        if not len(true) or true[-1] == 0:
            return NO_VALUE
        return figure(_Ranks(true[so_far - 1], total[ends], total[starts] - mine[starts], total[-1]))

    return value


def _average_precision(ranks: _Ranks) -> float:
    gained = np.diff(ranks.true, prepend=0)
    precision = ranks.true / np.maximum(ranks.all, 1e-300)  # rows of weight 0 gain nothing
    return float(np.dot(gained, precision) / ranks.true[-1])


def _roc_auc(ranks: _Ranks) -> float:
    gained = np.diff(ranks.true, prepend=0)
    negatives = ranks.rows - ranks.true[-1]
    if negatives == 0:
        return NO_VALUE
    tied = ranks.all - ranks.above - gained
    below = negatives - (ranks.all - ranks.true)
    return float(np.dot(gained, below + tied / 2) / (ranks.true[-1] * negatives))


def _best_precision(recall: float) -> Callable[[_Ranks], float]:
    def figure(ranks: _Ranks) -> float:
        enough = ranks.true >= recall * ranks.true[-1] * (1 - 1e-12)
        return float(np.max(ranks.true[enough] / ranks.all[enough]))

    return figure


_RANK_FIGURES = {"average_precision": _average_precision, "roc_auc": _roc_auc}


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0  # nothing decided: no precision


def _of_decisions(metric: str, labels: np.ndarray, scores: np.ndarray) -> Weighted:
    """Threshold metrics decide at 0.5."""
    decided = scores >= DECISION_THRESHOLD
    if metric in ("accuracy", "brier", "log_loss"):
        per_row = {
            "accuracy": lambda: decided == labels,
            "brier": lambda: (scores.astype(np.float64) - labels) ** 2,
            "log_loss": lambda: -np.log(_inner(np.where(labels, scores, 1 - scores))),
        }[metric]()
        return _mean(per_row.astype(np.float64))
    sums = np.stack([decided & labels, decided, labels]).astype(np.float64)
    figure: Callable[[float, float, float], float] = {
        "precision": lambda true, decided, actual: _share(true, decided),
        "recall": lambda true, decided, actual: _share(true, actual),
        "f1": lambda true, decided, actual: _share(2 * true, decided + actual),
    }[metric]
    return lambda weights: figure(*(sums * weights).sum(axis=1))


def _of_classes(metric: str, labels: np.ndarray, scores: np.ndarray) -> Weighted:
    """The class with the highest score is decided for."""
    classes = scores.shape[1]
    decided = scores.argmax(axis=1)
    if labels.max() >= classes:
        return lambda weights: NO_VALUE
    if metric == "accuracy":
        return _mean((decided == labels).astype(np.float64))
    if metric == "log_loss":
        return _mean(-np.log(_inner(scores[np.arange(len(labels)), labels])))
    cells = labels * classes + decided

    def macro_f1(weights: np.ndarray) -> float:
        confusion = np.bincount(cells, weights, classes**2).reshape(classes, classes)
        true, either = np.diag(confusion), confusion.sum(axis=0) + confusion.sum(axis=1)
        return float(np.mean(2 * true / np.where(either > 0, either, 1)))

    return macro_f1


def _of_errors(metric: str, labels: np.ndarray, scores: np.ndarray) -> Weighted:
    error = scores - labels
    if metric == "rmse":
        squared = _mean(error**2)
        return lambda weights: float(np.sqrt(squared(weights)))
    if metric == "mae":
        return _mean(np.abs(error))
    if metric == "mape":
        return _mean(np.abs(error / labels)) if labels.all() else lambda weights: NO_VALUE
    centred = labels - labels.mean()
    sums = np.stack([error**2, centred, centred**2, np.ones(len(labels))])

    def r2(weights: np.ndarray) -> float:
        squared, total, square, rows = (sums * weights).sum(axis=1)
        spread = square - total**2 / rows
        return float(1 - squared / spread) if spread > 0 else NO_VALUE

    return r2


def _mean(per_row: np.ndarray) -> Weighted:
    # Not np.dot: BLAS would share these small products among threads, which wait for each other on a busy machine.
    return lambda weights: float((per_row * weights).sum() / weights.sum())


def _inner(probability: np.ndarray) -> np.ndarray:
    """Away from 0 and 1 by what the type can tell apart, so that the logarithm is finite."""
    smallest = np.finfo(probability.dtype).eps
    return np.clip(probability, smallest, 1 - smallest).astype(np.float64)
