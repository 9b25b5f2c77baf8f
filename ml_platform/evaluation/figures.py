"""What the gates on metrics need to know of a candidate's scores, and of the champion's on the same rows."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ml_platform.core.imports import load_object
from ml_platform.core.spec import GateSpec
from ml_platform.core.tasks import LOWER_IS_BETTER, Task
from ml_platform.evaluation.bootstrap import FEW_RESAMPLES, Measure, interval, resampled
from ml_platform.evaluation.metrics import NO_VALUE
from ml_platform.evaluation.weighted import weighted
from ml_platform.training.training_set import LABEL

MOST_SEGMENTS = 500
Rows = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Segment:
    """A metric on the rows with one value of a column. `rarest`: rows of the rarer of two classes; None for other tasks."""

    name: str
    rows: int
    rarest: int | None
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Figure:
    """A metric's value and its values on the bootstrap's draws; `problem` says why it has none.

    `champion` is None where it was not compared; `gains`, draw by draw, are positive where the candidate is better.
    `segments` are those of a figure per segment, which has no value of its own.
    """

    value: float
    problem: str = ""
    resampled: tuple[float, ...] = ()
    champion: float | None = None
    gains: tuple[float, ...] = ()
    segments: tuple[Segment, ...] | None = None


def figures(
    gates: Iterable[GateSpec],
    task: Task,
    rows: Rows,
    scores: np.ndarray,
    champion: np.ndarray | None,
    seed: int,
) -> dict[str, Figure]:
    """One figure for all gates on the same metric, by `GateSpec.figure`. Never raises over a metric.

    Args:
        rows: the evaluated rows with their labels.
        scores, champion: [rows] or [rows, classes]; the champion's are None where there is none to compare with.
    """
    wanted: dict[str, list[GateSpec]] = {}
    for gate in gates:
        if gate.metric is not None:
            wanted.setdefault(gate.figure, []).append(gate)
    found = {}
    for name, same in wanted.items():
        gate = same[0]
        against = champion if any(one.better_than_champion_by is not None for one in same) else None
        try:
            if problem := _why_none(task, rows[LABEL], scores):
                found[name] = Figure(NO_VALUE, problem)
            elif gate.per:
                found[name] = _of_segments(gate, task, rows, scores, seed)
            else:
                found[name] = _figure(gate, task, rows, scores, against, seed)
        except Exception as error:  # noqa: BLE001  # the metric may be anyone's; what it cannot say counts as a no
            found[name] = Figure(NO_VALUE, f"{type(error).__name__}: {error}")
    return found


def _why_none(task: Task, labels: np.ndarray, scores: np.ndarray) -> str:
    if len(labels) == 0:
        return "there are no rows"
    if scores.ndim != (2 if task == "multiclass_classification" else 1):
        return f"scores of shape {scores.shape} are not those of {task}"
    if wrong := int((~np.isfinite(scores)).sum()):
        return f"{wrong:,} scores are no finite numbers"
    return ""


def _figure(
    gate: GateSpec, task: Task, rows: Rows, scores: np.ndarray, champion: np.ndarray | None, seed: int
) -> Figure:
    measure = _measure(gate, task, rows, scores)
    value = float(measure.whole)
    if not math.isfinite(value):
        classes = np.unique(rows[LABEL]) if task != "regression" else ()
        return Figure(NO_VALUE, f"every label is {classes[0]:g}" if len(classes) == 1 else "it is not a finite number")
    if champion is None:
        return Figure(value, resampled=_stored(resampled([_careful(measure)], seed)[:, 0]))
    if _why_none(task, rows[LABEL], champion):
        return Figure(value, champion=NO_VALUE)
    theirs = _measure(gate, task, rows, champion)
    drawn = resampled([_careful(measure), _careful(theirs)], seed)
    sign = -1.0 if gate.metric in LOWER_IS_BETTER else 1.0
    try:
        compared = float(theirs.whole)
    except Exception:  # noqa: BLE001  # as above; the candidate's own value stands
        compared = NO_VALUE
    return Figure(
        value,
        resampled=_stored(drawn[:, 0]),
        champion=compared,
        gains=_stored(sign * (drawn[:, 0] - drawn[:, 1])),
    )


def _of_segments(gate: GateSpec, task: Task, rows: Rows, scores: np.ndarray, seed: int) -> Figure:
    assert gate.per is not None, "the caller looked"
    names, of_row = np.unique(np.array([str(value) for value in rows[gate.per]]), return_inverse=True)
    if len(names) > MOST_SEGMENTS:
        return Figure(
            NO_VALUE, f"{gate.per} has {len(names):,} values; at most {MOST_SEGMENTS} segments are told apart"
        )
    segments = []
    for number, name in enumerate(names.tolist()):
        mine = np.flatnonzero(of_row == number)
        labels = rows[LABEL][mine]
        measure = _measure(gate, task, {column: values[mine] for column, values in rows.items()}, scores[mine])
        value = _careful(measure).whole
        measure = Measure(measure.value, measure.units, FEW_RESAMPLES)
        ends = interval(resampled([_careful(measure)], seed)[:, 0].tolist()) if math.isfinite(value) else None
        rarest = int(min(labels.sum(), len(labels) - labels.sum())) if task == "binary_classification" else None
        segments.append(Segment(name, len(mine), rarest, value, *(ends or (None, None))))
    return Figure(NO_VALUE, segments=tuple(segments))


def _measure(gate: GateSpec, task: Task, rows: Rows, scores: np.ndarray) -> Measure:
    assert gate.metric is not None, "the caller looked"
    if gate.is_own_metric or gate.resample_by:
        return _measure_of_draws(gate, task, rows, scores)
    return Measure(weighted(task, gate.metric, rows[LABEL], scores, gate.at_recall), len(scores))


def _measure_of_draws(gate: GateSpec, task: Task, rows: Rows, scores: np.ndarray) -> Measure:
    """A metric that is taken anew of each draw's rows: a user's own, or one whose draws are of units with several rows each.

    A unit that is drawn twice is two units: what its rows have in the column `resample_by` is the number of the draw.
    """
    function = _function(gate, task)
    units = rows[gate.resample_by] if gate.resample_by else np.arange(len(scores))
    names, of_row = np.unique(units, return_inverse=True)
    rows_of = np.split(np.argsort(of_row, kind="stable"), np.cumsum(np.bincount(of_row, minlength=len(names)))[:-1])

    def value(drawn: np.ndarray) -> float:
        chosen = [rows_of[number] for number in np.repeat(np.arange(len(drawn)), drawn)]
        index = np.concatenate(chosen) if chosen else np.empty(0, dtype=np.int64)
        there = {name: values[index] for name, values in rows.items()}
        if gate.resample_by:
            there[gate.resample_by] = np.repeat(np.arange(len(chosen)), [len(one) for one in chosen])
        return function(there, scores[index])

    return Measure(value, len(rows_of), FEW_RESAMPLES)


def _function(gate: GateSpec, task: Task) -> Callable[[Rows, np.ndarray], float]:
    """The gate's metric as a function of rows with their labels, and of scores."""
    assert gate.metric is not None, "the caller looked"
    if not gate.is_own_metric:
        metric, recall = gate.metric, gate.at_recall
        return lambda rows, scores: float(
            weighted(task, metric, rows[LABEL], scores, recall)(np.ones(len(scores), dtype=np.int64))
        )
    own = load_object(gate.metric, "gates.metric")
    required = [
        p for p in inspect.signature(own).parameters.values() if p.default is p.empty and p.name not in gate.params
    ]
    takes_rows = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in required) > 2
    return lambda rows, scores: float(own(rows[LABEL], scores, *((rows,) if takes_rows else ()), **gate.params))


def _careful(measure: Measure) -> Measure:
    """NaN where the measure raises: some draws lack what it needs."""

    def value(drawn: np.ndarray) -> float:
        try:
            return float(measure.value(drawn))
        except Exception:  # noqa: BLE001  # NaN never meets a limit
            return NO_VALUE

    return Measure(value, measure.units, measure.resamples)


def _stored(values: np.ndarray) -> tuple[float, ...]:
    """Six digits are enough to tell draws apart, and keep the report small."""
    return tuple(float(f"{value:.6g}") for value in values)
