"""Performance before labels: what is estimated is what comes true, as long as scores mean what they meant."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core.tasks import Metric, Task
from ml_platform.evaluation.metrics import measure
from ml_platform.monitoring.estimate import Estimate, Labelled, calibrate, estimate, importance, rarest_rows

BINARY = "binary_classification"


def world(random: np.random.Generator, rows: int, at: float = -2.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and scores that rank well and are badly calibrated."""
    logit = random.normal(at, 1.5, rows)
    labels = (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    return labels, 1 / (1 + np.exp(-logit / 3))


def whole(found: dict[str, Estimate | None]) -> Estimate:
    assert found[""] is not None
    return found[""]


@pytest.mark.parametrize("metric", ["average_precision", "roc_auc", "log_loss", "recall"])
def test_estimate_is_what_the_labels_say_later(metric: Metric) -> None:
    random = np.random.default_rng(1)
    labels, scores = world(random, 4_000)
    then, now = world(random, 4_000, at=-1.5)
    found = whole(estimate(BINARY, metric, Labelled(scores, labels), now, seed=1))
    assert found.low < measure(BINARY, then, now)[metric] < found.high
    assert found.low < found.value < found.high


def test_interval_covers_what_comes_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    covered = 0
    for seed in range(40):
        labels, scores = world(random, 1_000)
        then, now = world(random, 500)
        found = whole(estimate(BINARY, "roc_auc", Labelled(scores, labels), now, seed))
        covered += found.low <= measure(BINARY, then, now)["roc_auc"] <= found.high
    # At 90 % there are 36 of 40 to expect; 30 or fewer would come once in two hundred times.
    assert covered > 30


def test_harder_rows_lower_the_estimate() -> None:
    random = np.random.default_rng(3)
    labels, scores = world(random, 4_000)
    middling = scores[np.abs(scores - np.median(scores)) < 0.05]
    easy, hard = (estimate(BINARY, "roc_auc", Labelled(scores, labels), one, seed=1) for one in (scores, middling))
    assert whole(hard).high < whole(easy).low


def test_parts_are_estimated_by_themselves() -> None:
    random = np.random.default_rng(4)
    labels, scores = world(random, 3_000)
    low = scores < np.median(scores)
    found = estimate(BINARY, "brier", Labelled(scores, labels), scores, 1, {"low": low, "none": np.zeros(3_000, bool)})
    assert found["none"] is None
    assert found["low"]
    assert found["low"].value == pytest.approx(measure(BINARY, labels[low], scores[low])["brier"], abs=0.1)
    assert found["low"].rows == low.sum()


def test_several_classes_and_values_are_estimated_too() -> None:
    random = np.random.default_rng(15)
    shares = random.dirichlet([1.0, 2.0, 3.0], 6_000)
    labels = (np.cumsum(shares, axis=1) < random.random((6_000, 1))).sum(axis=1)
    classes: tuple[tuple[Task, Metric, np.ndarray, np.ndarray], ...] = (
        ("multiclass_classification", "accuracy", labels, shares),
        ("multiclass_classification", "log_loss", labels, shares),
        ("multiclass_classification", "macro_f1", labels, shares),
    )
    values = random.uniform(0, 10, 6_000)
    actual = values + random.normal(0, 1 + values / 5)  # the error grows with the score
    regression: tuple[tuple[Task, Metric, np.ndarray, np.ndarray], ...] = (
        ("regression", "rmse", actual, values),
        ("regression", "mae", actual, values),
    )
    for task, metric, truth, scores in classes + regression:
        known, now = Labelled(scores[:3_000], truth[:3_000]), slice(3_000, None)
        found = whole(estimate(task, metric, known, scores[now], seed=1))
        assert found.low < measure(task, truth[now], scores[now])[metric] < found.high, metric


def test_error_of_a_value_is_that_of_scores_nearby() -> None:
    random = np.random.default_rng(6)
    values = random.uniform(0, 10, 4_000)
    known = Labelled(values, values + random.normal(0, np.where(values > 5, 3.0, 0.1)))
    small, large = (estimate("regression", "mae", known, values[side], 1) for side in (values < 4, values > 6))
    assert whole(small).high < 0.3 < 2 < whole(large).low


def test_rows_without_any_positive_have_no_average_precision() -> None:
    none = Labelled(np.linspace(0, 1, 50), np.zeros(50, dtype=np.int64))
    assert estimate(BINARY, "average_precision", none, np.linspace(0, 1, 50), seed=1) == {"": None}
    assert estimate(BINARY, "average_precision", none, np.empty(0), seed=1) == {"": None}


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=60))
def test_calibration_rises_with_the_score_and_keeps_the_number_of_positives(rows: list[tuple[float, int]]) -> None:
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    shares = calibrate(Labelled(scores, labels), scores)
    assert (np.diff(shares[np.argsort(scores, kind="stable")]) >= -1e-12).all()
    assert shares.sum() == pytest.approx(labels.sum())
    assert 0 <= shares.min() <= shares.max() <= 1


def test_importance_mends_what_moved_features_break() -> None:
    """Scores ignore a feature that labels depend on: without weights the estimate keeps to the old mixture."""
    random = np.random.default_rng(17)

    def drawn(share: float, rows: int = 6_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        risky = (random.random(rows) < share).astype(float)
        scores = random.random(rows)
        labels = (random.random(rows) < np.where(risky, 0.8, 0.2) * scores).astype(np.int64)
        return np.column_stack([risky, random.normal(size=rows)]), scores, labels

    old, scores, labels = drawn(0.1, 20_000)
    new, now, then = drawn(0.8)
    truth = measure(BINARY, then, now)["brier"]
    weights = importance(old, new, seed=1)
    assert weights.mean() == pytest.approx(1, abs=0.05)
    plain = whole(estimate(BINARY, "brier", Labelled(scores, labels), now, 1))
    mended = whole(estimate(BINARY, "brier", Labelled(scores, labels, weights), now, 1))
    assert not plain.low < truth < plain.high
    assert mended.low < truth < mended.high


def test_rarest_rows() -> None:
    assert rarest_rows(BINARY, np.array([0, 0, 1])) == 1
    assert rarest_rows(BINARY, np.array([0, 0])) == 0
    assert rarest_rows("multiclass_classification", np.array([0, 0, 2])) == 1
    assert rarest_rows("regression", np.array([0.5, 0.7])) == 2
