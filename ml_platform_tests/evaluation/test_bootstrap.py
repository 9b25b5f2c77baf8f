"""Resampling: deterministic, paired, and as wide as theory says."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ml_platform.evaluation import bootstrap
from ml_platform.evaluation.bootstrap import Measure, draws, interval, resampled
from ml_platform.evaluation.weighted import weighted


def mean_of(values: np.ndarray) -> Measure:
    return Measure(lambda drawn: float(values @ drawn / drawn.sum()), len(values))


def test_draw_has_as_many_rows_as_there_are_and_a_seed_gives_the_same_draws() -> None:
    first, again, other = (list(draws(50, 20, seed)) for seed in (7, 7, 8))
    assert all(drawn.sum() == 50 and len(drawn) == 50 for drawn in first)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(10, 2, 2_000)
    low, high = interval(resampled([mean_of(values)], 7)[:, 0].tolist(), 0.95) or (0, 0)
    error = values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.645 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.645 * error, abs=0.2 * error)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(100):
        values = np.random.default_rng(seed).exponential(1.0, 150)
        low, high = interval(resampled([Measure(mean_of(values).value, 150, 200)], seed)[:, 0].tolist(), 0.95) or (9, 9)
        covered += low <= 1.0 <= high
    assert 0.82 <= covered / 100 <= 0.96  # 0.9 for many rows


def test_models_on_the_same_draws_are_paired() -> None:
    """Two models that differ little have a difference that varies far less than either."""
    random = np.random.default_rng(3)
    labels = random.random(3_000) < 0.1
    scores = random.normal(labels, 1.0)
    measures = [
        Measure(weighted("binary_classification", "average_precision", labels, one), 3_000)
        for one in (scores, scores + random.normal(0, 0.02, 3_000))
    ]
    drawn = resampled(measures, 7)
    assert np.std(drawn[:, 0] - drawn[:, 1]) < np.std(drawn[:, 0]) / 5


def test_draws_are_those_of_rows_that_are_repeated() -> None:
    random = np.random.default_rng(4)
    labels = random.random(300) < 0.2
    scores = random.normal(labels, 1.0)
    drawn = next(draws(300, 1, 7))
    rows = np.repeat(np.arange(300), drawn)
    measure = Measure(weighted("binary_classification", "average_precision", labels, scores), 300, 1)
    expected = average_precision_score(labels[rows], scores[rows])
    assert resampled([measure], 7)[0, 0] == pytest.approx(expected)


def test_more_rows_are_drawn_fewer_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "MOST_DRAWS", 30_000)
    assert [len(list(draws(rows, 1_000, 7))) for rows in (10, 100, 1_000)] == [1_000, 300, 200]
    assert len(list(draws(1_000, 50, 7))) == 50


def test_nothing_has_no_interval() -> None:
    assert interval([]) is None
    assert interval([math.nan]) is None
