"""Figures of a model's scores against labels."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ml_platform.core.tasks import METRICS, Task

DECISION_THRESHOLD = 0.5
NO_VALUE = float("nan")
# Below them a share says nothing yet.
MIN_ROWS = 200
MIN_RAREST = 10  # of these, rows of the rarer of two classes


def measure(task: Task, labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Every metric of the task. A figure that has no value is NaN: all are for scores that are not finite or of another task."""
    dimensions = 2 if task == "multiclass_classification" else 1
    if len(labels) == 0 or scores.ndim != dimensions or not np.isfinite(scores).all():
        return dict.fromkeys(METRICS[task], NO_VALUE)
    figures = {
        "binary_classification": _binary,
        "multiclass_classification": _multiclass,
        "regression": _regression,
    }
    return figures[task](labels, scores)


def _binary(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Threshold metrics decide at 0.5."""
    from sklearn import metrics

    decisions = scores >= DECISION_THRESHOLD
    both_classes = len(np.unique(labels)) == 2
    no_division: dict[str, Any] = {"zero_division": 0.0}  # nothing decided positive: no precision, and no warning
    return {
        "average_precision": float(metrics.average_precision_score(labels, scores)) if labels.any() else NO_VALUE,
        "roc_auc": float(metrics.roc_auc_score(labels, scores)) if both_classes else NO_VALUE,
        "log_loss": float(metrics.log_loss(labels, scores, labels=[0, 1])),
        "brier": float(metrics.brier_score_loss(labels, scores)),
        "accuracy": float(metrics.accuracy_score(labels, decisions)),
        "precision": float(metrics.precision_score(labels, decisions, **no_division)),
        "recall": float(metrics.recall_score(labels, decisions, **no_division)),
        "f1": float(metrics.f1_score(labels, decisions, **no_division)),
    }


def _multiclass(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """The class with the highest score is decided for. A model that lacks a class of the labels has no figures."""
    from sklearn import metrics

    classes = np.arange(scores.shape[1])
    if labels.max() >= len(classes):
        return dict.fromkeys(METRICS["multiclass_classification"], NO_VALUE)
    decisions = scores.argmax(axis=1)
    averaged: dict[str, Any] = {"labels": classes, "average": "macro", "zero_division": 0.0}
    return {
        "accuracy": float(metrics.accuracy_score(labels, decisions)),
        "log_loss": float(metrics.log_loss(labels, scores, labels=classes)),
        "macro_f1": float(metrics.f1_score(labels, decisions, **averaged)),
    }


def _regression(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """mape, a share, has no value if a label is zero; r2 has none if all labels are the same."""
    error, spread = scores - labels, np.var(labels)
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(np.abs(error))),
        "mape": float(np.mean(np.abs(error / labels))) if labels.all() else NO_VALUE,
        "r2": float(1 - np.mean(error**2) / spread) if spread > 0 else NO_VALUE,
    }


def single_row_latency_ms(
    score: Callable[[Mapping[str, np.ndarray]], np.ndarray], rows: Mapping[str, np.ndarray], calls: int = 200
) -> float:
    """99th percentile of the time to score one row, in milliseconds, after a warm-up."""
    count = len(next(iter(rows.values())))
    elapsed = []
    for call in range(calls + 20):
        row = {name: values[call % count : call % count + 1] for name, values in rows.items()}
        began = time.perf_counter()
        score(row)
        elapsed.append(time.perf_counter() - began)
    return float(np.percentile(elapsed[20:], 99) * 1_000)
