"""The metrics of weighted rows are scikit-learn's."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from ml_platform.core.tasks import METRICS, Task
from ml_platform.evaluation.metrics import measure
from ml_platform.evaluation.weighted import weighted
from ml_platform_tests.selection import examples

ROWS = st.integers(0, 2**32 - 1).map(np.random.default_rng)
NONE: dict[str, Any] = {"zero_division": 0.0}
BINARY: dict[str, Callable[[Any, Any, Any], float]] = {
    "average_precision": lambda y, s, w: metrics.average_precision_score(y, s, sample_weight=w),
    "roc_auc": lambda y, s, w: metrics.roc_auc_score(y, s, sample_weight=w),
    "log_loss": lambda y, s, w: metrics.log_loss(y, s, sample_weight=w, labels=[0, 1]),
    "brier": lambda y, s, w: metrics.brier_score_loss(y, s, sample_weight=w),
    "accuracy": lambda y, s, w: metrics.accuracy_score(y, s >= 0.5, sample_weight=w),
    "precision": lambda y, s, w: metrics.precision_score(y, s >= 0.5, sample_weight=w, **NONE),
    "recall": lambda y, s, w: metrics.recall_score(y, s >= 0.5, sample_weight=w, **NONE),
    "f1": lambda y, s, w: metrics.f1_score(y, s >= 0.5, sample_weight=w, **NONE),
}


def binary_rows(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of both classes, scores with many ties, and weights, many of them 0, that leave both classes."""
    count = int(random.integers(4, 60))
    labels = random.integers(0, 2, count)
    labels[:2] = 0, 1
    weights = random.integers(0, 4, count)
    weights[:2] = 1, 2
    return labels, random.integers(0, 9, count) / 8, weights


@pytest.mark.parametrize("metric", METRICS["binary_classification"])
@examples(20)
@given(ROWS)
def test_metrics_of_two_classes_are_those_of_scikit_learn(metric: str, random: np.random.Generator) -> None:
    labels, scores, weights = binary_rows(random)
    value = weighted("binary_classification", metric, labels, scores)(weights)
    assert value == pytest.approx(BINARY[metric](labels, scores, weights), abs=1e-9)


@examples(50)
@given(ROWS, st.sampled_from([0.01, 0.25, 0.5, 0.8, 1.0]))
def test_precision_at_a_recall_is_the_best_of_the_curve(random: np.random.Generator, recall: float) -> None:
    labels, scores, weights = binary_rows(random)
    value = weighted("binary_classification", "precision", labels, scores, recall)(weights)
    precisions, recalls, _ = metrics.precision_recall_curve(labels, scores, sample_weight=weights)
    reached = recalls[:-1] >= recall - 1e-9
    assert value == pytest.approx(precisions[:-1][reached].max())


@pytest.mark.parametrize("task", METRICS)
@examples(20)
@given(ROWS)
def test_all_weights_of_one_give_the_reported_figures_and_weights_count_rows(
    task: Task, random: np.random.Generator
) -> None:
    labels, scores, weights = binary_rows(random)
    if task == "multiclass_classification":
        labels = random.integers(0, 3, len(labels))
        scores = random.dirichlet([1, 1, 1], len(labels))
    if task == "regression":
        labels = labels + random.uniform(1, 2, len(labels))
    repeated = np.repeat(np.arange(len(labels)), weights)
    for metric in METRICS[task]:
        value = weighted(task, metric, labels, scores)
        for weight, rows in ((np.ones(len(labels), int), np.arange(len(labels))), (weights, repeated)):
            expected = measure(task, labels[rows], scores[rows])[metric]
            assert value(weight) == pytest.approx(expected, abs=1e-9, nan_ok=True), metric


def test_draw_without_a_class_has_no_ranking_figure() -> None:
    labels, scores = np.array([0, 0, 1]), np.array([0.1, 0.2, 0.3])
    for metric in ("average_precision", "roc_auc"):
        assert math.isnan(weighted("binary_classification", metric, labels, scores)(np.array([1, 1, 0])))
        assert math.isnan(weighted("binary_classification", metric, labels * 0, scores)(np.ones(3)))
    assert math.isnan(weighted("binary_classification", "roc_auc", labels, scores)(np.array([0, 0, 1])))
