"""Gates fail closed."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core.spec import GateSpec
from ml_platform.evaluation.gates import GateResult, judge
from ml_platform.evaluation.report import ChampionReport, Report

REPORT = Report(
    model="m", training_date="2024-01-01", bundle_digest="d", rows=1000, class_rows=(990, 10), null_predictions=0, latency_p99_ms=1.0,
    metrics={"average_precision": 0.7, "log_loss": 0.2}, champion=None,
)  # fmt: skip
NAN = float("nan")


def verdict(gate: GateSpec, **changes: object) -> GateResult:
    return judge([gate], replace(REPORT, **changes))[0]


MIN = GateSpec(metric="average_precision", min=0.6)
MAX = GateSpec(metric="log_loss", max=0.3)
BEATS = GateSpec(metric="average_precision", better_than_champion_by=0.01)


def test_metric_within_its_limits_passes_and_outside_does_not() -> None:
    assert verdict(MIN).passed
    assert not verdict(MIN, metrics={"average_precision": 0.59}).passed
    assert verdict(MAX).passed
    assert not verdict(MAX, metrics={"log_loss": 0.31}).passed


@pytest.mark.parametrize("gate", [MIN, MAX, BEATS])
@pytest.mark.parametrize("metrics", [{}, {"average_precision": NAN, "log_loss": NAN}])
def test_missing_metric_or_nan_says_no_and_why(gate: GateSpec, metrics: dict) -> None:
    result = verdict(gate, metrics=metrics)
    assert not result.passed
    assert "no value" in result.reason


def test_first_model_ever_has_no_champion_to_beat() -> None:
    assert verdict(BEATS).passed
    assert "no champion yet" in verdict(BEATS).reason


def test_champion_has_to_be_beaten_by_the_margin() -> None:
    assert verdict(BEATS, champion=ChampionReport("3", {"average_precision": 0.68})).passed
    assert not verdict(BEATS, champion=ChampionReport("3", {"average_precision": 0.695})).passed


def test_for_losses_lower_is_better() -> None:
    gate = GateSpec(metric="log_loss", better_than_champion_by=0.0)
    assert verdict(gate, champion=ChampionReport("3", {"log_loss": 0.3})).passed
    assert not verdict(gate, champion=ChampionReport("3", {"log_loss": 0.1})).passed


@pytest.mark.parametrize(
    "champion",
    [
        ChampionReport("3", None, "registry is down"),
        ChampionReport("3", {}),
        ChampionReport("3", {"average_precision": NAN}),
    ],
)
def test_champion_that_cannot_be_measured_says_no(champion: ChampionReport) -> None:
    assert not verdict(BEATS, champion=champion).passed


def test_unreadable_champion_is_named_with_its_problem() -> None:
    assert "registry is down" in verdict(BEATS, champion=ChampionReport("3", None, "registry is down")).reason


def test_empty_evaluation_says_no_to_every_gate() -> None:
    gates = [MIN, MAX, BEATS, GateSpec(check="no_null_predictions"), GateSpec(check="min_class_ratio", min=0.0)]
    assert not any(result.passed for result in judge(gates, replace(REPORT, rows=0)))


def test_built_in_checks() -> None:
    assert verdict(GateSpec(check="no_null_predictions")).passed
    assert not verdict(GateSpec(check="no_null_predictions"), null_predictions=1).passed
    assert not verdict(GateSpec(check="prediction_latency_p99_ms", max=1), latency_p99_ms=1.1).passed
    assert not verdict(GateSpec(check="prediction_latency_p99_ms", max=1), latency_p99_ms=NAN).passed
    assert verdict(GateSpec(check="min_class_ratio", min=0.01)).passed
    assert not verdict(GateSpec(check="min_class_ratio", min=0.02)).passed
    assert not verdict(GateSpec(check="min_class_ratio", min=0.3), class_rows=(400, 400, 200)).passed
    assert not verdict(GateSpec(check="min_class_ratio", min=0.0), class_rows=()).passed


@given(st.floats(allow_nan=True), st.floats(allow_nan=True), st.floats(-1, 1))
def test_what_passes_is_finite_and_really_better(value: float, champion: float, margin: float) -> None:
    """No combination of figures lets a candidate through that is not better by the margin."""
    gate = GateSpec(metric="average_precision", better_than_champion_by=margin)
    result = verdict(
        gate, metrics={"average_precision": value}, champion=ChampionReport("1", {"average_precision": champion})
    )
    if result.passed:
        assert math.isfinite(value)
        assert value - champion >= margin


def test_report_survives_json() -> None:
    for champion in (None, ChampionReport("3", {"average_precision": 0.5}), ChampionReport(problem="down")):
        report = replace(REPORT, champion=champion)
        assert Report.from_json(report.to_json()) == report
