"""What is measured for gates on metrics, and what becomes of metrics that cannot be."""

import math
from typing import Any

import numpy as np
import pytest

from ml_platform.core.spec import GateSpec
from ml_platform.evaluation.figures import Figure, figures
from ml_platform.examples.fraud.metrics import card_precision
from ml_platform.training.training_set import LABEL

RANDOM = np.random.default_rng(5)
COUNT = 600
LABELS = (np.arange(COUNT) % 5 == 0).astype(np.int64)
SCORES = np.clip(RANDOM.normal(0.2 + 0.4 * LABELS, 0.2), 0, 1)
WORSE = RANDOM.permutation(SCORES)
ROWS = {
    LABEL: LABELS,
    "at": np.datetime64("2024-01-01", "us") + np.arange(COUNT) * np.timedelta64(10, "m"),
    "card": RANDOM.integers(0, 60, COUNT),
    "country": np.array(["at", "be"], dtype=object)[(np.arange(COUNT) > 400).astype(int)],
    "amount": RANDOM.uniform(1, 100, COUNT),
}
HERE = f"{__name__}."


def share_of_amount(labels: np.ndarray, scores: np.ndarray, rows: dict[str, np.ndarray]) -> float:
    return float(rows["amount"][(scores > 0.5) & (labels == 1)].sum() / rows["amount"][labels == 1].sum())


def positives(labels: np.ndarray, scores: np.ndarray, threshold: float = 0.5) -> float:
    return float((labels[scores > threshold] == 1).sum())


def broken(labels: np.ndarray, scores: np.ndarray) -> float:
    raise ValueError("out of tune")


def nothing(labels: np.ndarray, scores: np.ndarray) -> float:
    return math.nan


def measured(
    gate: dict[str, Any], scores: np.ndarray = SCORES, champion: np.ndarray | None = None, **rows: Any
) -> Figure:
    spec = GateSpec.model_validate(gate)
    return figures([spec], "binary_classification", {**ROWS, **rows}, scores, champion, 7)[spec.figure]


def test_figure_lies_within_its_draws_and_the_same_seed_gives_the_same() -> None:
    found = measured({"metric": "average_precision", "min": 0.5})
    assert len(found.resampled) == 1_000
    assert min(found.resampled) < found.value < max(found.resampled)
    assert found == measured({"metric": "average_precision", "max": 0.1})


def test_better_model_gains_on_nearly_all_draws_and_an_equal_one_nothing() -> None:
    gate = {"metric": "average_precision", "better_than_champion_by": 0.0}
    better, same, loss = (
        measured(gate, champion=WORSE),
        measured(gate, champion=SCORES),
        measured({**gate, "metric": "log_loss"}, champion=WORSE),
    )
    assert np.mean(np.array(better.gains) > 0) > 0.99
    assert better.champion is not None
    assert better.champion < better.value
    assert set(same.gains) == {0.0}
    assert np.mean(np.array(loss.gains) > 0) > 0.99  # less is better


def test_champion_is_compared_only_where_a_gate_asks() -> None:
    assert measured({"metric": "roc_auc", "min": 0.5}, champion=WORSE).champion is None


def test_precision_at_a_recall() -> None:
    found = measured({"metric": "precision", "at_recall": 0.5, "min": 0.1})
    best = max(np.mean(LABELS[limit <= SCORES]) for limit in SCORES if np.mean(SCORES[LABELS == 1] >= limit) >= 0.5)
    assert found.value == pytest.approx(best)


def test_own_metric_has_params_and_its_draws_are_of_the_units_whose_rows_hang_together() -> None:
    gate = {
        "metric": "ml_platform.examples.fraud.metrics.card_precision",
        "params": {"time": "at", "card": "card", "k": 5},
        "resample_by": "card",
        "min": 0.1,
        "at_confidence": 0.8,
    }
    found = measured(gate)
    assert found.value == card_precision(LABELS, SCORES, ROWS, "at", "card", 5)
    assert len(found.resampled) == 200
    assert 0 < np.std(found.resampled) < 0.2
    assert measured({**gate, "params": {**gate["params"], "k": 9}}).value != found.value  # type: ignore[dict-item]


def test_rows_that_hang_together_are_drawn_together_for_any_metric() -> None:
    gate = {"metric": "average_precision", "min": 0.1}
    alone, together = measured(gate), measured({**gate, "resample_by": "card"})
    assert together.value == pytest.approx(alone.value)
    assert np.std(together.resampled) > 0
    twins = {name: np.repeat(values, 4) for name, values in ROWS.items()} | {"pair": np.repeat(np.arange(600), 4)}
    spec = GateSpec.model_validate({**gate, "resample_by": "pair"})
    of_twins = figures([spec], "binary_classification", twins, np.repeat(SCORES, 4), None, 7)[spec.figure]
    # Four copies of each row tell no more than one does.
    assert np.std(of_twins.resampled) == pytest.approx(np.std(alone.resampled), rel=0.4)


def test_own_metric_has_the_rows_if_it_asks_for_them() -> None:
    found = measured({"metric": HERE + "share_of_amount", "min": 0.1})
    assert found.value == share_of_amount(LABELS, SCORES, ROWS)
    assert np.std(found.resampled) > 0
    assert measured({"metric": HERE + "positives", "min": 0.1}).value == positives(LABELS, SCORES)


def test_own_metric_is_better_when_it_is_more() -> None:
    found = measured({"metric": HERE + "share_of_amount", "better_than_champion_by": 0.0}, champion=WORSE)
    assert np.mean(found.gains) > 0


@pytest.mark.parametrize(
    ("gate", "changes", "problem"),
    [
        ({"metric": HERE + "broken"}, {}, "ValueError: out of tune"),
        ({"metric": HERE + "nothing"}, {}, "not a finite number"),
        ({"metric": HERE + "absent"}, {}, "cannot be imported"),
        ({"metric": "no_such_package.metric"}, {}, "cannot be imported"),
        ({"metric": "math.pi"}, {}, "TypeError"),
        ({"metric": "roc_auc"}, {LABEL: LABELS * 0}, "every label is 0"),
        ({"metric": "average_precision"}, {LABEL: LABELS * 0}, "every label is 0"),
        ({"metric": "roc_auc"}, {LABEL: LABELS * 0 + 1}, "every label is 1"),
        ({"metric": "f1", "resample_by": "wallet"}, {}, "KeyError: 'wallet'"),
        ({"metric": "f1", "per": "wallet"}, {}, "KeyError: 'wallet'"),
        ({"metric": "f1", "per": "amount"}, {}, "amount has 600 values"),
    ],
)
def test_what_cannot_be_measured_has_no_value_and_says_why(
    gate: dict[str, Any], changes: dict[str, Any], problem: str
) -> None:
    found = measured({**gate, "min": 0.0}, **changes)
    assert math.isnan(found.value)
    assert problem in found.problem


@pytest.mark.parametrize(
    ("scores", "problem"),
    [
        (np.where(np.arange(COUNT) == 3, np.nan, SCORES), "1 scores are no finite numbers"),
        (np.where(np.arange(COUNT) == 3, np.inf, SCORES), "1 scores are no finite numbers"),
        (np.stack([SCORES, SCORES], axis=1), "are not those of binary_classification"),
    ],
)
def test_scores_that_are_none_say_so(scores: np.ndarray, problem: str) -> None:
    assert problem in measured({"metric": "f1", "min": 0.0}, scores).problem


@pytest.mark.parametrize("champion", [SCORES * np.nan, np.stack([SCORES, SCORES], axis=1)])
def test_champion_without_a_value_is_nan_and_never_less(champion: np.ndarray) -> None:
    found = measured({"metric": "average_precision", "better_than_champion_by": 0.0}, champion=champion)
    assert not (found.champion is not None and math.isfinite(found.champion))


def test_segments_have_a_value_each() -> None:
    found = measured({"metric": "roc_auc", "min": 0.5, "per": "country"})
    assert found.segments is not None
    assert [(one.name, one.rows, one.rarest) for one in found.segments] == [("at", 401, 81), ("be", 199, 39)]
    for one, mine in zip(found.segments, (ROWS["country"] == "at", ROWS["country"] == "be"), strict=True):
        alone = measured({"metric": "roc_auc", "min": 0.5}, SCORES[mine], **{n: v[mine] for n, v in ROWS.items()})
        assert one.value == alone.value
        assert one.low is not None
        assert one.high is not None
        assert one.low < one.value < one.high


def test_segment_of_one_class_has_no_value_and_the_others_have() -> None:
    labels = np.where(ROWS["country"] == "be", 0, LABELS)
    found = measured({"metric": "roc_auc", "min": 0.5, "per": "country"}, **{LABEL: labels})
    assert found.segments is not None
    assert [math.isfinite(one.value) for one in found.segments] == [True, False]
