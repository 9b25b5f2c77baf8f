import math

import numpy as np
import pytest

from ml_platform.evaluation.metrics import binary_metrics, single_row_latency_ms
from ml_platform.evaluation.plots import curves

LABELS = np.array([0, 0, 1, 1])


def test_figures_of_a_known_case() -> None:
    found = binary_metrics(LABELS, np.array([0.1, 0.6, 0.4, 0.9]))
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
    assert all(math.isnan(value) for value in binary_metrics(labels, scores).values())


def test_one_class_has_no_ranking_figures() -> None:
    found = binary_metrics(np.zeros(3), np.array([0.1, 0.2, 0.3]))
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


def test_curves_are_a_picture() -> None:
    assert curves(LABELS, np.array([0.1, 0.6, 0.4, 0.9]), "title").startswith(b"\x89PNG")
