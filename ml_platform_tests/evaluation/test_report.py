"""A candidate and a champion measured on the same rows, and what becomes of it where that is not possible."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.core.spec import GateSpec, ModelSpec
from ml_platform.evaluation.gates import GateResult, judge
from ml_platform.evaluation.report import Champion, Evaluation, evaluate
from ml_platform.evaluation.soundness import Finding
from ml_platform.training.training_set import LABEL

RANDOM = np.random.default_rng(9)
COUNT = 400
LABELS = (RANDOM.random(COUNT) < 0.3).astype(np.int64)
ROWS = {
    LABEL: LABELS,
    "tx_datetime": np.datetime64("2024-01-01", "us") + np.arange(COUNT) * np.timedelta64(10, "m"),
    "x": np.clip(RANDOM.normal(0.2 + 0.5 * LABELS, 0.2), 0, 1),
    "worse": np.clip(RANDOM.normal(0.2 + 0.2 * LABELS, 0.2), 0, 1),
}
GATES = (
    GateSpec(metric="average_precision", min=0.5),
    GateSpec(metric="average_precision", better_than_champion_by=0.0, at_confidence=0.9),
    GateSpec(check="no_null_predictions"),
    GateSpec(check="survives_save_and_load"),
    GateSpec(check="input_schema_matches"),
)


def column(name: str) -> Any:
    return lambda rows: rows[name]


X = column("x")


def raises(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    raise KeyError("spent_7d")


@pytest.fixture
def spec(catalog: Catalog) -> ModelSpec:
    return catalog.models["fraud_detection"].model_copy(update={"gates": GATES})


def made(
    spec: ModelSpec, champion: Champion | None, score: Any = X, rows: Mapping[str, np.ndarray] = ROWS
) -> Evaluation:
    return evaluate(
        spec, "2024-01-01", "digest", score, lambda: score, {"input_schema_matches": Finding(0)}, rows, champion
    )  # fmt: skip


def verdict(spec: ModelSpec, *args: Any, **changes: Any) -> dict[str, GateResult]:
    return {result.name: result for result in judge(spec.gates, made(spec, *args, **changes).report)}


BEATS = "beats_champion_on_average_precision"


def test_better_candidate_passes_every_gate_and_a_worse_one_not_that_of_the_champion(spec: ModelSpec) -> None:
    assert all(result.passed for result in verdict(spec, Champion("1", column("worse"))).values())
    worse = verdict(spec, Champion("1", column("x")), column("worse"))
    assert not worse[BEATS].passed
    assert worse[BEATS].details["gain"] < worse[BEATS].details["interval_high"] < 0


def test_first_model_passes_without_a_champion(spec: ModelSpec) -> None:
    found = verdict(spec, None)
    assert all(result.passed for result in found.values())
    assert "no champion yet" in found[BEATS].reason


@pytest.mark.parametrize(
    ("champion", "problem"),
    [
        (Champion("", None, "MLflow at http://nowhere: refused"), "http://nowhere"),
        (Champion("1", raises), "it cannot score: KeyError: 'spent_7d'"),
        (Champion("1", lambda rows: rows["x"] * np.nan), "has no value"),
    ],
)
def test_champion_that_cannot_be_compared_says_no_and_why(spec: ModelSpec, champion: Champion, problem: str) -> None:
    found = verdict(spec, champion)
    assert [name for name, result in found.items() if not result.passed] == [BEATS]
    assert problem in found[BEATS].reason


def test_no_rows_say_no_to_everything(spec: ModelSpec) -> None:
    nobody = {name: values[:0] for name, values in ROWS.items()}
    assert not any(result.passed for result in verdict(spec, Champion("1", column("x")), rows=nobody).values())


def test_labels_of_one_class_say_no_to_metrics(spec: ModelSpec) -> None:
    found = verdict(spec, None, rows={**ROWS, LABEL: LABELS * 0})
    assert not found["average_precision_is_above_minimum"].passed
    assert "every label is 0" in found[BEATS].reason


def test_candidate_with_a_score_that_is_none_says_no(spec: ModelSpec) -> None:
    found = verdict(spec, None, lambda rows: np.where(np.arange(len(rows["x"])) == 2, np.nan, rows["x"]))
    assert {name for name, result in found.items() if result.passed} == {"input_schema_matches"}
