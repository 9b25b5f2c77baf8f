import math

import numpy as np
import pytest

from ml_platform.core.tasks import METRICS, Task
from ml_platform.evaluation.metrics import measure, single_row_latency_ms

LABELS = np.array([0, 0, 1, 1])


def test_figures_of_a_known_case() -> None:
    found = measure("binary_classification", LABELS, np.array([0.1, 0.6, 0.4, 0.9]))
    assert found["roc_auc"] == 0.75
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["accuracy"] == 0.5
    assert (found["precision"], found["recall"], found["f1"]) == (0.5, 0.5, 0.5)
    assert found["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        (LABELS, np.array([0.1, np.nan, 0.2, 0.3])),
        (LABELS, np.array([0.1, np.inf, 0.2, 0.3])),
        (LABELS[:0], np.array([])),
    ],
)
def test_no_figure_where_there_is_nothing_to_measure(labels: np.ndarray, scores: np.ndarray) -> None:
    assert all(math.isnan(value) for value in measure("binary_classification", labels, scores).values())


def test_one_class_has_no_ranking_figures() -> None:
    found = measure("binary_classification", np.zeros(3), np.array([0.1, 0.2, 0.3]))
    assert math.isnan(found["roc_auc"])
    assert math.isnan(found["average_precision"])
    assert found["accuracy"] == 1.0


def test_latency_is_of_single_rows() -> None:
    sizes = set()

    def score(rows: dict) -> np.ndarray:
        sizes.add(len(rows["a"]))
        return rows["a"]

    assert single_row_latency_ms(score, {"a": np.arange(3)}, calls=5) > 0  # type: ignore[arg-type]
    assert sizes == {1}


THREE = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.5, 0.25, 0.25]])


def test_figures_of_several_classes() -> None:
    found = measure("multiclass_classification", np.array([0, 1, 2, 0]), THREE)
    assert found["accuracy"] == 0.75
    assert found["log_loss"] == pytest.approx(-np.mean(np.log([0.8, 0.5, 0.3, 0.5])))
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_figures_of_values() -> None:
    found = measure("regression", np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 2.0, 3.0, 2.0]))
    assert found == pytest.approx({"rmse": math.sqrt(5 / 4), "mae": 0.75, "mape": 0.375, "r2": 0.0})


@pytest.mark.parametrize("task", METRICS)
def test_every_metric_of_the_task_is_measured_and_scores_of_another_have_none(task: Task) -> None:
    several = task == "multiclass_classification"
    labels, own, other = np.array([0, 1, 1, 0]), THREE if several else THREE[:, 1], THREE[:, 1] if several else THREE
    assert tuple(measure(task, labels, own)) == METRICS[task]
    assert all(math.isnan(value) for value in measure(task, labels, other).values())


def test_class_that_the_model_does_not_know_has_no_figures() -> None:
    found = measure("multiclass_classification", np.array([0, 1, 3, 0]), THREE)
    assert all(math.isnan(value) for value in found.values())


def test_share_of_an_error_of_zero_has_no_value() -> None:
    assert math.isnan(measure("regression", np.array([0.0, 1.0]), np.array([1.0, 1.0]))["mape"])
