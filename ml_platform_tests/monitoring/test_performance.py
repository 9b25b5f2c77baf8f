"""Realised performance, and what either kind is held to."""

import numpy as np
import pytest

from ml_platform.evaluation.metrics import measure
from ml_platform.monitoring.estimate import Estimate
from ml_platform.monitoring.performance import Limits, judged, realised, slices

BINARY = "binary_classification"
LIMITS = Limits(drop=0.1, min_rows=100, min_positives=20)
GOOD = Estimate(0.8, 0.75, 0.85, 1_000, 50)


def outcome(found: Estimate | None, reference: Estimate | None = GOOD, metric: str = "average_precision") -> str:
    return judged(metric, {"": found}, {"": reference}, LIMITS)[0].outcome  # type: ignore[arg-type]


def test_value_is_that_of_the_metric_and_lies_in_its_interval() -> None:
    random = np.random.default_rng(1)
    scores = random.random(2_000)
    labels = (random.random(2_000) < scores / 10).astype(np.int64)
    found = realised(BINARY, "average_precision", labels, scores, 1)[""]
    assert found
    assert found.value == pytest.approx(measure(BINARY, labels, scores)["average_precision"])
    assert found.low < found.value < found.high
    assert found.positives == labels.sum()


def test_alarm_takes_that_the_whole_interval_is_beyond_the_limit() -> None:
    assert outcome(Estimate(0.6, 0.55, 0.65, 1_000, 50)) == "alarm"
    assert outcome(Estimate(0.6, 0.4, 0.8, 1_000, 50)) == "ok"
    assert outcome(Estimate(0.9, 0.88, 0.93, 1_000, 50)) == "ok"
    assert outcome(Estimate(0.9, 0.89, 0.95, 1_000, 50), metric="brier") == "alarm", "lower is better"
    assert outcome(Estimate(0.6, 0.55, 0.65, 1_000, 50), metric="brier") == "ok"


def test_too_few_rows_or_positives_are_neither_good_nor_bad() -> None:
    assert outcome(Estimate(0.9, 0.8, 0.95, 99, 50)) == "not_enough_data"
    assert outcome(Estimate(0.1, 0.0, 0.2, 1_000, 19)) == "not_enough_data"
    assert outcome(None) == "not_enough_data"
    assert outcome(GOOD, None) == "not_enough_data"
    assert outcome(GOOD, Estimate(0.8, 0.7, 0.9, 1_000, 19)) == "not_enough_data"


def test_slices_come_worst_first_and_those_without_judgement_last() -> None:
    found = {"": GOOD, "a": GOOD, "b": Estimate(0.3, 0.2, 0.4, 500, 30), "c": None}
    made = judged("average_precision", found, dict.fromkeys(found, GOOD), LIMITS)
    assert [one.rows_of for one in made] == ["", "b", "a", "c"]
    assert made[1].worse_by == pytest.approx(0.625)
    assert "62.5% worse" in made[1].words


def test_every_row_is_in_one_slice_of_a_number_and_text_is_sliced_by_value() -> None:
    random = np.random.default_rng(2)
    reference = {"amount": random.random(400), "country": random.choice(["DE", "FR"], 400)}
    rows = {"amount": random.random(300) * 3, "country": random.choice(["DE", "FR", "IT"], 300)}
    ours, theirs = slices(["amount", "country"], reference, rows)
    amounts = [name for name in theirs if name.startswith("amount")]
    assert len(amounts) == 4
    assert (np.array([theirs[name] for name in amounts]).sum(axis=0) == 1).all()
    assert [int(ours[name].sum()) for name in amounts] == [100] * 4
    assert {name for name in theirs if name.startswith("country")} == {"country = DE", "country = FR"}
