"""Gates fail closed."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core.spec import GateSpec
from ml_platform.core.spec.gates import PROOFS
from ml_platform.evaluation.figures import Figure, Segment
from ml_platform.evaluation.gates import GateResult, judge
from ml_platform.evaluation.report import ChampionReport, Report
from ml_platform.evaluation.soundness import Finding

NAN = float("nan")
SPREAD = tuple(np.linspace(-0.05, 0.05, 101).tolist())  # 95 % of it lies above -0.045


def figure(value: float, champion: float | None = None, sign: int = 1) -> Figure:
    """A figure whose draws lie 0.05 to either side, and whose gain over the champion varies as much."""
    gains = () if champion is None else tuple(sign * (value - champion) + error for error in SPREAD)
    return Figure(value, "", tuple(value + error for error in SPREAD), champion, gains)


REPORT = Report(
    model="m", training_date="2024-01-01", bundle_digest="d", rows=1000, class_rows=(990, 10), null_predictions=0, latency_p99_ms=1.0,
    metrics={"average_precision": 0.7, "log_loss": 0.2}, champion=None,
    figures={"average_precision": figure(0.7), "log_loss": figure(0.2)},
    findings={**{name: Finding(1e-7) for name in PROOFS}, "input_schema_matches": Finding(0)},
)  # fmt: skip


def verdict(gate: GateSpec, **changes: Any) -> GateResult:
    return judge([gate], replace(REPORT, **changes))[0]


def of(found: Figure, metric: str = "average_precision", **changes: Any) -> dict[str, Any]:
    """A report that has this figure."""
    return {"figures": {metric: found}, **changes}


def against(value: float, champion: float, metric: str = "average_precision") -> dict[str, Any]:
    """A report on a candidate and a champion."""
    sign = -1 if metric == "log_loss" else 1
    return of(figure(value, champion, sign), metric, champion=ChampionReport("3", {metric: champion}))


MIN = GateSpec(metric="average_precision", min=0.6)
MAX = GateSpec(metric="log_loss", max=0.3)
BEATS = GateSpec(metric="average_precision", better_than_champion_by=0.01)
GATES = [MIN, MAX, BEATS]


def test_metric_within_its_limits_passes_and_outside_does_not() -> None:
    assert verdict(MIN).passed
    assert not verdict(MIN, **of(figure(0.59))).passed
    assert verdict(MAX).passed
    assert not verdict(MAX, **of(figure(0.31), "log_loss")).passed


def test_result_shows_value_limit_and_interval() -> None:
    result = verdict(MIN)
    assert (result.value, result.limit) == (0.7, 0.6)
    assert result.details == pytest.approx({"interval_low": 0.655, "interval_high": 0.745})
    assert result.reason == "average_precision is 0.7 (90% interval 0.655 to 0.745); at least 0.6 wanted"


def test_point_value_counts_unless_a_confidence_is_asked_for() -> None:
    assert verdict(MIN, **of(figure(0.601))).passed
    sure = MIN.model_copy(update={"at_confidence": 0.95})
    result = verdict(sure, **of(figure(0.64)))
    assert not result.passed
    assert "at confidence 0.95, and it is so at 0.901" in result.reason
    assert verdict(sure, **of(figure(0.646))).passed


@pytest.mark.parametrize("gate", GATES)
def test_value_that_is_not_a_number_says_no_and_why(gate: GateSpec) -> None:
    figures = {name: Figure(NAN, "every label is 0") for name in ("average_precision", "log_loss")}
    for champion in (None, ChampionReport("3", {})):
        result = verdict(gate, figures=figures, champion=champion)
        assert not result.passed
        assert "has no value: every label is 0" in result.reason


@pytest.mark.parametrize("gate", [*GATES, *(GateSpec(check=name) for name in PROOFS)])  # type: ignore[arg-type]
def test_report_that_does_not_know_the_gate_says_no_and_to_make_it_again(gate: GateSpec) -> None:
    old = {key: value for key, value in json.loads(REPORT.to_json()).items() if key not in ("figures", "findings")}
    result = judge([gate], Report.from_json(json.dumps(old).encode()))[0]
    assert not result.passed
    assert "materialize m/evaluation again" in result.reason


def test_champion_that_was_not_compared_says_no_and_to_make_it_again() -> None:
    result = verdict(BEATS, champion=ChampionReport("3", {"average_precision": 0.1}))
    assert not result.passed
    assert "does not say average_precision of the champion; materialize m/evaluation again" in result.reason


def test_first_model_ever_has_no_champion_to_beat() -> None:
    for gate in (BEATS, BEATS.model_copy(update={"at_confidence": 0.9})):
        assert verdict(gate).passed
        assert "no champion yet" in verdict(gate).reason


def test_champion_has_to_be_beaten_by_the_margin() -> None:
    assert verdict(BEATS, **against(0.7, 0.68)).passed
    assert not verdict(BEATS, **against(0.7, 0.695)).passed


def test_champion_has_to_be_beaten_at_the_confidence() -> None:
    gate = BEATS.model_copy(update={"at_confidence": 0.9})
    doubtful, sure = verdict(gate, **against(0.7, 0.67)), verdict(gate, **against(0.7, 0.64))
    assert not doubtful.passed
    assert sure.passed
    assert doubtful.details["confidence"] == pytest.approx(0.7, abs=0.02)
    assert doubtful.details["interval_low"] < 0.01 < doubtful.details["gain"]
    assert "gain 0.03 (80% interval -0.01 to 0.07), at least 0.01 wanted at confidence 0.9" in doubtful.reason


def test_margin_below_zero_lets_an_equal_model_through_but_no_worse_one() -> None:
    gate = GateSpec(metric="average_precision", better_than_champion_by=-0.05, at_confidence=0.9)
    assert verdict(gate, **against(0.7, 0.7)).passed
    assert not verdict(gate, **against(0.7, 0.72)).passed


def test_same_model_again_is_no_worse_at_any_confidence() -> None:
    gate = GateSpec(metric="average_precision", better_than_champion_by=0.0, at_confidence=0.99)
    same = Figure(0.7, "", SPREAD, 0.7, tuple(0.0 for _ in SPREAD))
    assert verdict(gate, **of(same, champion=ChampionReport("3", {}))).passed


def test_for_losses_lower_is_better() -> None:
    gate = GateSpec(metric="log_loss", better_than_champion_by=0.0)
    assert verdict(gate, **against(0.2, 0.3, "log_loss")).passed
    assert not verdict(gate, **against(0.2, 0.1, "log_loss")).passed


@pytest.mark.parametrize(
    "changes",
    [
        of(figure(0.7), champion=ChampionReport("3", None, "registry is down")),
        of(figure(0.7), champion=ChampionReport("", None, "registry is down")),
        of(figure(0.7, NAN), champion=ChampionReport("3", {"average_precision": NAN})),
        of(replace(figure(0.7, 0.1), gains=()), champion=ChampionReport("3", {})),
        of(replace(figure(0.7, 0.1), gains=(NAN,) * 9), champion=ChampionReport("3", {})),
    ],
)
def test_champion_that_cannot_be_measured_says_no(changes: dict[str, Any]) -> None:
    assert not verdict(BEATS.model_copy(update={"at_confidence": 0.9}), **changes).passed


def test_unreadable_champion_is_named_with_its_problem() -> None:
    assert "registry is down" in verdict(BEATS, champion=ChampionReport("3", None, "registry is down")).reason


def test_empty_evaluation_says_no_to_every_gate() -> None:
    checks = [GateSpec(check=name) for name in ("no_null_predictions", *PROOFS)]  # type: ignore[arg-type]
    gates = [*GATES, *checks, GateSpec(check="min_class_ratio", min=0.0)]
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


@pytest.mark.parametrize("check", PROOFS)
def test_proofs_pass_only_when_they_found_nothing(check: Any) -> None:
    gate = GateSpec(check=check)
    assert verdict(gate).passed
    assert not verdict(gate, findings={check: Finding(9.0, "amount is absent")}).passed
    broken = verdict(gate, findings={check: Finding(NAN, "ValueError: no such file")})
    assert not broken.passed
    assert "ValueError: no such file" in broken.reason


def segment(name: str, value: float, rows: int = 500, rarest: int | None = 40) -> Segment:
    return Segment(name, rows, rarest, value, value - 0.1, value + 0.1)


IN_EVERY = GateSpec(metric="average_precision", min=0.6, per="country", min_rows=300)


def per_country(*segments: Segment) -> dict[str, Any]:
    return of(Figure(NAN, segments=segments), "average_precision per country")


def test_every_segment_meets_the_floor() -> None:
    assert verdict(IN_EVERY, **per_country(segment("at", 0.7), segment("be", 0.6))).passed
    result = verdict(IN_EVERY, **per_country(segment("at", 0.7), segment("be", 0.59), segment("ch", NAN)))
    assert not result.passed
    assert "not within it: be, ch" in result.reason
    assert [line["passed"] for line in result.segments] == ["yes", "NO", "NO"]


def test_segments_with_too_few_rows_are_named_and_skipped() -> None:
    few = (segment("be", 0.1, rows=299), segment("ch", 0.1, rarest=9))
    result = verdict(IN_EVERY, **per_country(segment("at", 0.7), *few))
    assert result.passed
    assert "too few rows to judge: be, ch" in result.reason
    assert [line["passed"] for line in result.segments] == ["yes", "skipped", "skipped"]
    assert not verdict(IN_EVERY, **per_country(*few)).passed
    assert "no country has 300 rows" in verdict(IN_EVERY, **per_country(*few)).reason
    assert not verdict(IN_EVERY, **per_country()).passed


@given(st.floats(allow_nan=True), st.floats(allow_nan=True), st.floats(-1, 0.5), st.floats(0.51, 0.99))
def test_what_passes_is_finite_and_really_better(value: float, champion: float, margin: float, sure: float) -> None:
    """No combination of figures lets a candidate through that is not better by the margin."""
    gate = GateSpec(metric="average_precision", better_than_champion_by=margin, at_confidence=sure)
    result = verdict(gate, **against(value, champion))
    if result.passed:
        assert math.isfinite(value)
        assert value - champion >= margin
        assert result.details["confidence"] >= sure


def test_report_survives_json_and_is_judged_alike() -> None:
    segments = Figure(0.0, segments=(segment("at", 0.7),))
    for champion in (None, ChampionReport("3", {"average_precision": 0.5}), ChampionReport(problem="down")):
        figures = {**REPORT.figures, "average_precision per country": segments, "f1": figure(0.5, 0.4)}
        report = replace(REPORT, champion=champion, figures=figures)
        assert Report.from_json(report.to_json()) == report
        gates = [*GATES, IN_EVERY, GateSpec(metric="f1", better_than_champion_by=0.1)]
        assert judge(gates, Report.from_json(report.to_json())) == judge(gates, report)


# --- what people read: the whole result -------------------------------------------------------------------------------

AGAIN = "materialize m/evaluation again"
SURE = MIN.model_copy(update={"at_confidence": 0.9})
SURE_GAIN = GateSpec(metric="log_loss", better_than_champion_by=0.05, at_confidence=0.9)
RESULTS: dict[str, tuple[GateSpec, dict[str, Any], tuple[bool, str], float | None, float | None, dict[str, float]]] = {
    "no rows": (MIN, {"rows": 0}, (False, "there are no rows to evaluate on"), None, None, {}),
    "null predictions": (
        GateSpec(check="no_null_predictions"), {"null_predictions": 2},
        (False, "null predictions is 2; at most 0 wanted"), 2, 0, {},
    ),
    "latency": (
        GateSpec(check="prediction_latency_p99_ms", max=5), {},
        (True, "p99 latency of one prediction in ms is 1; at most 5 wanted"), 1, 5, {},
    ),
    "class ratio": (
        GateSpec(check="min_class_ratio", min=0.02), {},
        (False, "share of the rarest class is 0.01; at least 0.02 wanted"), 0.01, 0.02, {},
    ),
    "no class": (
        GateSpec(check="min_class_ratio", min=0.02), {"class_rows": ()},
        (False, "share of the rarest class has no value"), NAN, 0.02, {},
    ),
    "unknown figure": (
        GateSpec(metric="f1", min=0.5), {},
        (False, f"the report of 2024-01-01 does not say f1; {AGAIN}"), None, None, {},
    ),
    "no value": (
        MIN, of(Figure(NAN, "every label is 0")),
        (False, "average_precision has no value: every label is 0"), NAN, None, {},
    ),
    "proof that is not there": (
        GateSpec(check="survives_save_and_load"), {"findings": {}},
        (False, f"the report of 2024-01-01 does not say survives_save_and_load; {AGAIN}"), None, None, {},
    ),
    "other schema": (
        GateSpec(check="input_schema_matches"), {"findings": {"input_schema_matches": Finding(1, "amount is absent")}},
        (False, "the number of differences is 1; at most 0 wanted: amount is absent"), 1, 0, {},
    ),
    "same schema": (
        GateSpec(check="input_schema_matches"), {},
        (True, "the number of differences is 0; at most 0 wanted"), 0, 0, {},
    ),
    "cold start": (
        GateSpec(check="cold_start_is_sane"), {"findings": {"cold_start_is_sane": Finding(900.0, "they score 0.9")}},
        (False, "the factor by which odds are off is 900; at most 3 wanted: they score 0.9"), 900, 3, {},
    ),
    "cold start of little": (
        GateSpec(check="cold_start_is_sane"), {"findings": {"cold_start_is_sane": Finding(NAN, "not enough data: 9 rows")}},
        (False, "the factor by which odds are off has no value: not enough data: 9 rows"), NAN, 3, {},
    ),
    "row order": (
        GateSpec(check="invariant_to_row_order"), {},
        (True, "the largest difference of a score is 1e-07; at most 1e-05 wanted"), 1e-7, 1e-5, {},
    ),
    "no draws": (MIN, of(Figure(0.7)), (True, "average_precision is 0.7; at least 0.6 wanted"), 0.7, 0.6, {}),
    "at confidence": (
        SURE, of(figure(0.63)),
        (False, "average_precision is 0.63 (80% interval 0.59 to 0.67); at least 0.6 wanted at confidence 0.9, and it is so at 0.802"),
        0.63, 0.6, {"interval_low": 0.59, "interval_high": 0.67, "confidence": 81 / 101, "confidence_wanted": 0.9},
    ),
    "no champion": (
        BEATS, {},
        (True, "there is no champion yet; average_precision is 0.7 (90% interval 0.655 to 0.745)"),
        0.7, None, {"interval_low": 0.655, "interval_high": 0.745},
    ),
    "champion that is away": (
        BEATS, {"champion": ChampionReport("3", None, "registry is down")},
        (False, "the champion could not be measured: registry is down"), 0.7, None, {},
    ),
    "champion without a value": (
        BEATS, of(replace(figure(0.7, 0.1), champion=NAN), champion=ChampionReport("3", {})),
        (False, "average_precision of the champion has no value"), 0.7, None, {},
    ),
    "gain": (
        BEATS, against(0.7, 0.6),
        (True, "average_precision 0.7 against 0.6 of champion version 3 on the same rows; "
               "gain 0.1 (90% interval 0.055 to 0.145), at least 0.01 wanted; it is so at 1"),
        0.7, 0.61,
        {"champion": 0.6, "gain": 0.1, "margin": 0.01, "interval_low": 0.055, "interval_high": 0.145, "confidence": 1.0},
    ),
    "sure gain of a loss": (
        SURE_GAIN, against(0.2, 0.3, "log_loss"),
        (True, "log_loss 0.2 against 0.3 of champion version 3 on the same rows; "
               "gain 0.1 (80% interval 0.06 to 0.14), at least 0.05 wanted at confidence 0.9; it is so at 0.99"),
        0.2, 0.25,
        {"champion": 0.3, "gain": 0.1, "margin": 0.05, "interval_low": 0.06, "interval_high": 0.14,
         "confidence": 100 / 101, "confidence_wanted": 0.9},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RESULTS)
def test_result_says_all_that_there_is_to_know(name: str) -> None:
    gate, changes, (passed, reason), value, limit, details = RESULTS[name]
    result = verdict(gate, **changes)
    assert (result.name, result.passed, result.reason) == (gate.name, passed, reason)
    assert result.passed is passed
    assert result.value == (None if value is None else pytest.approx(value, nan_ok=True))
    assert result.limit == (None if limit is None else pytest.approx(limit))
    assert result.details == pytest.approx(details)


def line(name: str, rows: str, rarest: str, value: str, interval: str, passed: str) -> dict[str, str]:
    return {
        "segment": name,
        "rows": rows,
        "of the rarer class": rarest,
        "value": value,
        "90% interval": interval,
        "passed": passed,
    }


def test_result_of_segments_has_a_line_each_and_the_worst_one() -> None:
    edge = Segment(
        "be", 300, 10, 0.6
    )  # as few rows and as few of the rarer class as there may be, and just good enough
    found = (segment("at", 0.7), edge, segment("ch", 0.59), segment("de", 0.9, rows=299))
    assert verdict(IN_EVERY, **per_country(*found)) == GateResult(
        "average_precision_is_above_minimum_in_every_country",
        False,
        "2 of 3 segments are within the limit, at least 0.6 wanted; worst: ch with 0.59; not within it: ch; too few rows to judge: de",
        0.59,
        0.6,
        segments=(
            line("at", "500", "40", "0.7", "0.6 to 0.8", "yes"),
            line("be", "300", "10", "0.6", "", "yes"),
            line("ch", "500", "40", "0.59", "0.49 to 0.69", "NO"),
            line("de", "299", "40", "0.9", "0.8 to 1", "skipped"),
        ),
    )


def test_result_of_segments_of_a_loss() -> None:
    """The worst has the highest value; 200 rows are enough where the gate says nothing; half an interval is none."""
    gate = GateSpec(metric="log_loss", max=0.2, per="country")
    found = (
        Segment("at", 200, None, 0.1, 0.05, None),
        Segment("be", 199, None, 0.9),
        Segment("ch", 1_200, None, 0.2, 0.1, 0.3),
    )
    assert verdict(gate, **of(Figure(NAN, segments=found), "log_loss per country")) == GateResult(
        "log_loss_is_below_maximum_in_every_country",
        True,
        "2 of 2 segments are within the limit, at most 0.2 wanted; worst: ch with 0.2; too few rows to judge: be",
        0.2,
        0.2,
        segments=(
            line("at", "200", "", "0.1", "", "yes"),
            line("be", "199", "", "0.9", "", "skipped"),
            line("ch", "1,200", "", "0.2", "0.1 to 0.3", "yes"),
        ),
    )


@pytest.mark.parametrize(
    ("count", "named"),
    [(5, "c0, c1, c2, c3, c4"), (6, "c0, c1, c2, c3, c4 and 1 more"), (7, "c0, c1, c2, c3, c4 and 2 more")],
)
def test_segments_that_are_all_too_small_pass_nothing_and_the_first_are_named(count: int, named: str) -> None:
    result = verdict(IN_EVERY, **per_country(*(segment(f"c{n}", 0.1, rows=1) for n in range(count))))
    words = f"no country has 300 rows, and of two classes 10 of the rarer one; too few rows to judge: {named}"
    assert (result.name, result.passed, result.reason) == (IN_EVERY.name, False, words)
    assert result.passed is False
    assert (result.value, result.limit, len(result.segments)) == (None, 0.6, count)
    assert verdict(IN_EVERY, **per_country()).reason == words.partition(";")[0]


def test_limit_itself_is_within_the_limit_and_the_asked_confidence_is_enough() -> None:
    assert verdict(MAX, **of(figure(0.3), "log_loss")).passed
    half = Figure(0.7, "", (0.5, 0.7, 0.7, 0.7), 0.6, (-0.1, 0.1, 0.1, 0.1))
    at = {"at_confidence": 0.75}
    assert verdict(MIN.model_copy(update=at), **of(half)).passed
    assert verdict(BEATS.model_copy(update=at), **of(half, champion=ChampionReport("3", {}))).passed
