"""Gates: may this candidate be registered? They fail closed: what cannot be evaluated says no, and why."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ml_platform.core.spec import GateSpec
from ml_platform.core.tasks import LOWER_IS_BETTER
from ml_platform.evaluation.report import Report


@dataclass(frozen=True)
class GateResult:
    """`value` against `limit`; `reason` in words, whether it passed or not."""

    name: str
    passed: bool
    reason: str
    value: float | None = None
    limit: float | None = None


def judge(gates: Iterable[GateSpec], report: Report) -> tuple[GateResult, ...]:
    """Every gate's result, in the order of the model file."""
    return tuple(_judge(gate, report) for gate in gates)


def _judge(gate: GateSpec, report: Report) -> GateResult:
    if report.rows == 0:
        return GateResult(gate.name, False, "there are no rows to evaluate on")
    if gate.check == "no_null_predictions":
        return _at_most(gate.name, "null predictions", report.null_predictions, 0)
    if gate.check == "prediction_latency_p99_ms":
        return _at_most(gate.name, "p99 latency of one prediction in ms", report.latency_p99_ms, gate.max)
    if gate.check == "min_class_ratio":
        share = min(report.class_rows, default=float("nan")) / report.rows
        return _at_least(gate.name, "share of the rarest class", share, gate.min)
    assert gate.metric is not None, "the spec guarantees it"
    value = report.metrics.get(gate.metric, float("nan"))
    if gate.better_than_champion_by is not None:
        return _against_champion(gate, gate.metric, value, report)
    if gate.min is not None:
        return _at_least(gate.name, gate.metric, value, gate.min)
    return _at_most(gate.name, gate.metric, value, gate.max)


def _against_champion(gate: GateSpec, metric: str, value: float, report: Report) -> GateResult:
    assert gate.better_than_champion_by is not None, "the caller looked"
    champion = report.champion
    if champion is None:
        passed = math.isfinite(value)
        reason = f"there is no champion yet; {metric} is {value:.4g}" if passed else f"{metric} has no value"
        return GateResult(gate.name, passed, reason, value)
    if champion.metrics is None:
        return GateResult(gate.name, False, f"the champion could not be measured: {champion.problem}", value)
    theirs = champion.metrics.get(metric, float("nan"))
    if not (math.isfinite(value) and math.isfinite(theirs)):
        return GateResult(gate.name, False, f"{metric} has no value: candidate {value}, champion {theirs}", value)
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    gain, margin = sign * (value - theirs), gate.better_than_champion_by
    words = f"{metric} {value:.4g} against {theirs:.4g} of champion version {champion.version} on the same rows; gain {gain:.4g}, at least {margin:.4g} wanted"
    return GateResult(gate.name, gain >= margin, words, value, theirs + sign * margin)


def _at_least(name: str, what: str, value: float, limit: float | None) -> GateResult:
    assert limit is not None, "the spec guarantees it"
    return GateResult(name, value >= limit, _compared(what, value, "at least", limit), value, limit)


def _at_most(name: str, what: str, value: float, limit: float | None) -> GateResult:
    assert limit is not None, "the spec guarantees it"
    return GateResult(name, value <= limit, _compared(what, value, "at most", limit), value, limit)


def _compared(what: str, value: float, relation: str, limit: float) -> str:
    # Comparisons with NaN are false, so a missing figure never passes; it only needs other words.
    if not math.isfinite(value):
        return f"{what} has no value"
    return f"{what} is {value:.4g}; {relation} {limit:.4g} wanted"
