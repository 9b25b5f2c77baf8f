"""Figures of a binary classifier's scores against labels."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

DECISION_THRESHOLD = 0.5


def binary_metrics(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Every metric that a gate may name. Threshold metrics decide at 0.5. A figure that has no value is NaN."""
    from sklearn import metrics

    if len(labels) == 0 or not np.isfinite(scores).all():
        return dict.fromkeys(
            ("average_precision", "roc_auc", "log_loss", "brier", "accuracy", "precision", "recall", "f1"), float("nan")
        )
    decisions = scores >= DECISION_THRESHOLD
    both_classes = len(np.unique(labels)) == 2
    no_division: dict[str, Any] = {"zero_division": 0.0}  # nothing decided positive: no precision, and no warning
    return {
        "average_precision": float(metrics.average_precision_score(labels, scores)) if labels.any() else float("nan"),
        "roc_auc": float(metrics.roc_auc_score(labels, scores)) if both_classes else float("nan"),
        "log_loss": float(metrics.log_loss(labels, scores, labels=[0, 1])),
        "brier": float(metrics.brier_score_loss(labels, scores)),
        "accuracy": float(metrics.accuracy_score(labels, decisions)),
        "precision": float(metrics.precision_score(labels, decisions, **no_division)),
        "recall": float(metrics.recall_score(labels, decisions, **no_division)),
        "f1": float(metrics.f1_score(labels, decisions, **no_division)),
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
