"""Gates: may this candidate be registered? They fail closed: what cannot be evaluated says no, and why."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ml_platform.core.spec import GateSpec
from ml_platform.core.spec.gates import PROOFS
from ml_platform.core.tasks import LOWER_IS_BETTER
from ml_platform.evaluation.bootstrap import SURE, interval
from ml_platform.evaluation.figures import Figure, Segment
from ml_platform.evaluation.metrics import MIN_RAREST, MIN_ROWS
from ml_platform.evaluation.report import Report
from ml_platform.evaluation.soundness import MOST_ODDS, TOLERANCE

# What a finding's value is, and the most that it may be; of all others TOLERANCE.
MEASURED = {
    "input_schema_matches": ("the number of differences", 0.0),
    "cold_start_is_sane": ("the factor by which odds are off", MOST_ODDS),
}


@dataclass(frozen=True)
class GateResult:
    """`value` against `limit`; `reason` in words, whether it passed or not.

    `details` are further figures: the interval's ends, the confidence, the champion's value. `segments` has one line each.
    """

    name: str
    passed: bool
    reason: str
    value: float | None = None
    limit: float | None = None
    details: Mapping[str, float] = field(default_factory=dict)
    segments: tuple[Mapping[str, str], ...] = ()


def judge(gates: Iterable[GateSpec], report: Report) -> tuple[GateResult, ...]:
    """Every gate's result, in the order of the model file. A pure function: the same report has the same verdict."""
    return tuple(_judge(gate, report) for gate in gates)


def _judge(gate: GateSpec, report: Report) -> GateResult:
    if report.rows == 0:
        return GateResult(gate.name, False, "there are no rows to evaluate on")
    if gate.check in PROOFS:
        return _proven(gate, gate.check, report)
    if gate.check == "no_null_predictions":
        return _at_most(gate.name, "null predictions", report.null_predictions, 0)
    if gate.check == "prediction_latency_p99_ms":
        return _at_most(gate.name, "p99 latency of one prediction in ms", report.latency_p99_ms, gate.max)
    if gate.check == "min_class_ratio":
        share = min(report.class_rows, default=float("nan")) / report.rows
        return _at_least(gate.name, "share of the rarest class", share, gate.min)
    figure = report.figures.get(gate.figure)
    if figure is None:
        return _unknown(gate, report, gate.figure)
    if figure.segments is not None:
        return _in_every_segment(gate, figure.segments)
    if not math.isfinite(figure.value):
        return GateResult(gate.name, False, f"{gate.figure} has no value: {figure.problem}", figure.value)
    if gate.better_than_champion_by is not None:
        return _against_champion(gate, figure, report)
    return _within_limit(gate, figure)


def _unknown(gate: GateSpec, report: Report, what: str) -> GateResult:
    again = f"materialize {report.model}/evaluation again"
    return GateResult(gate.name, False, f"the report of {report.training_date} does not say {what}; {again}")


def _proven(gate: GateSpec, check: str, report: Report) -> GateResult:
    finding = report.findings.get(check)
    if finding is None:
        return _unknown(gate, report, check)
    what, most = MEASURED.get(check, ("the largest difference of a score", TOLERANCE))
    result = _at_most(gate.name, what, finding.value, most)
    words = f"{result.reason}: {finding.words}" if finding.words else result.reason
    return GateResult(gate.name, result.passed, words, result.value, result.limit)


def _within_limit(gate: GateSpec, figure: Figure) -> GateResult:
    limit = gate.min if gate.min is not None else gate.max
    assert limit is not None, "the spec guarantees it"
    details, spread = _interval(figure.resampled, gate)
    sure = _share(meets(value, gate) for value in figure.resampled)
    passed = meets(figure.value, gate)
    words = f"{gate.figure} is {figure.value:.4g}{spread}; {_wanted(gate)}"
    if gate.at_confidence is not None:
        passed = passed and sure >= gate.at_confidence
        words += f" at confidence {gate.at_confidence:g}, and it is so at {sure:.3g}"
        details = {**details, "confidence": sure, "confidence_wanted": gate.at_confidence}
    return GateResult(gate.name, passed, words, figure.value, limit, details)


def meets(value: float, gate: GateSpec) -> bool:
    """Whether the value is within min and max; NaN is not."""
    above = gate.min is None or value >= gate.min
    return math.isfinite(value) and above and (gate.max is None or value <= gate.max)


def _wanted(gate: GateSpec) -> str:
    return f"at least {gate.min:.4g} wanted" if gate.min is not None else f"at most {gate.max:.4g} wanted"


def _against_champion(gate: GateSpec, figure: Figure, report: Report) -> GateResult:
    """A margin below 0 asks for no more than not being much worse (a test of non-inferiority)."""
    margin, champion, value = gate.better_than_champion_by, report.champion, figure.value
    assert margin is not None, "the caller looked"
    if champion is None:
        details, spread = _interval(figure.resampled, gate)
        words = f"there is no champion yet; {gate.figure} is {value:.4g}{spread}"
        return GateResult(gate.name, True, words, value, details=details)
    if champion.metrics is None:
        return GateResult(gate.name, False, f"the champion could not be measured: {champion.problem}", value)
    if figure.champion is None:
        return _unknown(gate, report, f"{gate.figure} of the champion")
    theirs = figure.champion
    if not math.isfinite(theirs):
        return GateResult(gate.name, False, f"{gate.figure} of the champion has no value", value)
    sign = -1.0 if gate.metric in LOWER_IS_BETTER else 1.0
    gain, sure = sign * (value - theirs), _share(gain >= margin for gain in figure.gains)
    ends, spread = _interval(figure.gains, gate)
    passed = gain >= margin
    words = (
        f"{gate.figure} {value:.4g} against {theirs:.4g} of champion version {champion.version} on the same rows; "
        f"gain {gain:.4g}{spread}, at least {margin:.4g} wanted"
    )
    if gate.at_confidence is not None:
        passed = passed and sure >= gate.at_confidence
        words += f" at confidence {gate.at_confidence:g}"
    words += f"; it is so at {sure:.3g}"
    details = {"champion": theirs, "gain": gain, "margin": margin, **ends, "confidence": sure}
    if gate.at_confidence is not None:
        details["confidence_wanted"] = gate.at_confidence
    return GateResult(gate.name, passed, words, value, theirs + sign * margin, details)


def _in_every_segment(gate: GateSpec, segments: Sequence[Segment]) -> GateResult:
    assert gate.per is not None, "a figure of segments has them by a column"
    least = gate.min_rows or MIN_ROWS
    few = [one for one in segments if one.rows < least or (one.rarest is not None and one.rarest < MIN_RAREST)]
    judged = [one for one in segments if one not in few]
    failed = [one for one in judged if not meets(one.value, gate)]
    table = tuple(_line(one, "skipped" if one in few else "NO" if one in failed else "yes") for one in segments)
    limit = gate.min if gate.min is not None else gate.max
    named = _listed([one.name for one in few])
    skipped = f"; too few rows to judge: {named}" if few else ""
    if not judged:
        words = f"no {gate.per} has {least:,} rows, and of two classes {MIN_RAREST} of the rarer one{skipped}"
        return GateResult(gate.name, False, words, limit=limit, segments=table)
    # A segment without a value is the worst of all.
    worst = min(judged, key=lambda one: (math.isfinite(one.value), one.value if gate.min is not None else -one.value))
    words = f"{len(judged) - len(failed)} of {len(judged)} segments are within the limit, {_wanted(gate)}; worst: {worst.name} with {worst.value:.4g}"
    if failed:
        words += f"; not within it: {_listed([one.name for one in failed])}"
    return GateResult(gate.name, not failed, words + skipped, worst.value, limit, segments=table)


def _line(segment: Segment, passed: str) -> Mapping[str, str]:
    known = segment.low is not None and segment.high is not None
    return {
        "segment": segment.name,
        "rows": f"{segment.rows:,}",
        "of the rarer class": "" if segment.rarest is None else f"{segment.rarest:,}",
        "value": f"{segment.value:.4g}",
        f"{2 * SURE - 1:.0%} interval": f"{segment.low:.4g} to {segment.high:.4g}" if known else "",
        "passed": passed,
    }


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _interval(values: Sequence[float], gate: GateSpec) -> tuple[dict[str, float], str]:
    """The interval's ends as figures and in words."""
    confidence = gate.at_confidence or SURE
    ends = interval(values, confidence)
    if ends is None:
        return {}, ""
    words = f" ({2 * confidence - 1:.0%} interval {ends[0]:.4g} to {ends[1]:.4g})"
    return {"interval_low": ends[0], "interval_high": ends[1]}, words


def _share(met: Iterable[bool]) -> float:
    """The share that is true; 0 of nothing."""
    of = list(met)
    return sum(of) / len(of) if of else 0.0


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
