"""What is found of one day of a deployed model: drift, coverage, traffic, and performance before and after labels."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date

import numpy as np

from ml_platform.core.records import read
from ml_platform.core.spec import ModelSpec
from ml_platform.core.spec.monitoring import Trigger
from ml_platform.monitoring.drift import Drift, Outcome, Profile, ShareChange, drifts, share_changes, traffic, worst
from ml_platform.monitoring.estimate import Labelled, estimate, importance
from ml_platform.monitoring.performance import Limits, Performance, judged, realised, slices
from ml_platform.monitoring.retrain import Alarm
from ml_platform.training.training_set import LABEL

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Scored:
    """Rows with their scores [rows] or [rows, classes], and the day of each: int [rows], any numbering. Labels are a column."""

    columns: Columns
    scores: np.ndarray
    days: np.ndarray

    def of(self, chosen: np.ndarray) -> "Scored":
        """Those of the rows: bool [rows]."""
        columns = {name: values[chosen] for name, values in self.columns.items()}
        return Scored(columns, self.scores[chosen], self.days[chosen])


@dataclass(frozen=True)
class Watched:
    """What is looked at: columns that the model reads, views by the column that says whether they knew the row's entity."""

    columns: Sequence[str]
    nullable: Sequence[str]
    coverage: Mapping[str, str]


@dataclass(frozen=True)
class MonitoringReport:
    """All findings of a day. Performance has all rows first, then the slices, worst first; its days are first and last."""

    model: str
    day: str
    version: str
    training_date: str
    rows: int
    drifts: tuple[Drift, ...]
    scores: tuple[Drift, ...]
    shares: tuple[ShareChange, ...]
    traffic: tuple[Outcome, str]
    estimated: tuple[Performance, ...]
    realised: tuple[Performance, ...]
    labels: tuple[ShareChange, ...] = ()
    estimated_days: tuple[str, str] | None = None
    realised_days: tuple[str, str] | None = None

    @property
    def checks(self) -> dict[str, tuple[Outcome, str]]:
        """Outcome and words by the names in `CHECKS`; without slices none about them, and of values none about classes."""
        sliced = [one for one in (*self.realised, *self.estimated) if one.rows_of]
        found = {
            "features_have_not_drifted": _together([(d.column, d.outcome, d.words) for d in self.drifts]),
            "scores_have_not_drifted": _together([(d.column, d.outcome, d.words) for d in self.scores]),
            "coverage_and_nulls_hold": _together([(s.name, s.outcome, s.words) for s in self.shares]),
            "traffic_is_usual": self.traffic,
            "estimated_performance_holds": _performance(self.estimated, self.estimated_days),
            "realised_performance_holds": _performance(self.realised, self.realised_days),
        }
        if self.labels:
            found["labels_are_as_frequent"] = _together([(s.name, s.outcome, s.words) for s in self.labels])
        if sliced:
            found["no_slice_performs_worse"] = _together([(s.rows_of, s.outcome, s.words) for s in sliced])
        return found

    @property
    def alarms(self) -> list[Alarm]:
        """What asks for a new training. Coverage and traffic do not: no model learns from rows that are missing."""
        drifted, words = _together([(d.column, d.outcome, d.words) for d in (*self.scores, *self.drifts)])
        found = [Alarm("drift", date.fromisoformat(self.day), words)] if drifted == "alarm" else []
        both: tuple[tuple[Trigger, Performance, tuple[str, str] | None], ...] = (
            ("estimated_performance", self.estimated[0], self.estimated_days),
            ("realised_performance", self.realised[0], self.realised_days),
        )
        for trigger, performance, days in both:
            if performance.outcome == "alarm" and days:
                found.append(Alarm(trigger, date.fromisoformat(days[0]), performance.words))
        return found

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "MonitoringReport":
        return read(cls, text)


def monitored(
    spec: ModelSpec,
    day: date,
    version: tuple[str, str],
    watched: Watched,
    reference: Scored,
    recent: Scored,
    mature: Scored,
) -> MonitoringReport:
    """Judge a day.

    Args:
        version: number and training date of the version that scored the day.
        reference: the rows that it was judged on, with labels and its own scores.
        recent: rows of the newest days up to this one, as they were scored; `days` numbers them as ordinals of dates.
        mature: the newest rows whose labels are known, with them, as they were scored.
    """
    limits, seed = spec.monitoring, spec.training.seed
    today = recent.of(recent.days == day.toordinal())
    names = _score_names(reference.scores)
    days = reference.days - reference.days.min() if len(reference.days) else reference.days
    known = {**{name: reference.columns[name] for name in watched.columns}, **_score_columns(reference.scores)}
    now = {**{name: today.columns[name] for name in watched.columns}, **_score_columns(today.scores)}
    profiles = [Profile.of(name, values, days) for name, values in known.items()]
    found = drifts(profiles, now, limits.false_discovery_rate, limits.drift_psi, limits.min_rows, seed)
    holding = _shares(watched, reference.columns, today.columns, days)
    rows_by_day = np.bincount(days).tolist() if len(days) else []
    return MonitoringReport(
        spec.name,
        day.isoformat(),
        *version,
        len(today.days),
        tuple(one for one in found if one.column not in names),
        tuple(one for one in found if one.column in names),
        tuple(share_changes(*holding, limits.false_discovery_rate, limits.share_change, limits.min_rows)),
        traffic([rows for rows in rows_by_day if rows], len(today.days), limits.traffic_factor),
        tuple(_estimated(spec, watched, reference, recent)),
        tuple(_realised(spec, reference, mature)),
        tuple(_labels(spec, reference, mature)),
        _span(recent),
        _span(mature),
    )


def _estimated(spec: ModelSpec, watched: Watched, reference: Scored, recent: Scored) -> list[Performance]:
    metric, limits = spec.monitoring.metric or spec.select_by, _limits(spec)
    if not len(reference.days) or not len(recent.days):
        return judged(metric, {"": None}, {}, limits)
    sliced = spec.monitoring.slices
    ours, theirs = slices(sliced, reference.columns, recent.columns)
    labels, seed = reference.columns[LABEL], spec.training.seed
    inputs = [_matrix(watched.columns, one.columns) for one in (reference, recent)]
    known = Labelled(reference.scores, labels, importance(inputs[0], inputs[1], seed))
    if known.worth < limits.min_rows:
        words = f"labelled rows like these are worth {known.worth:,.0f}; {limits.min_rows:,} are needed (monitoring.min_rows)"
        return [Performance("", "not_enough_data", metric, len(recent.days), 0.0, words=words)]
    found = estimate(spec.task, metric, known, recent.scores, seed, theirs)
    return judged(metric, found, realised(spec.task, metric, labels, reference.scores, seed, ours), limits)


def _realised(spec: ModelSpec, reference: Scored, mature: Scored) -> list[Performance]:
    metric, limits = spec.monitoring.metric or spec.select_by, _limits(spec)
    if not len(reference.days) or not len(mature.days):
        return judged(metric, {"": None}, {}, limits)
    ours, theirs = slices(spec.monitoring.slices, reference.columns, mature.columns)
    of = [
        realised(spec.task, metric, one.columns[LABEL], one.scores, spec.training.seed, parts)
        for one, parts in ((mature, theirs), (reference, ours))
    ]
    return judged(metric, of[0], of[1], limits)


def _labels(spec: ModelSpec, reference: Scored, mature: Scored) -> list[ShareChange]:
    """How frequent each class is; an alarm takes that it is certainly, and many times, more or less so."""
    if spec.task == "regression" or not len(reference.days):
        return []
    limits, factor = spec.monitoring, spec.monitoring.traffic_factor
    days, labels = reference.days - reference.days.min(), reference.columns[LABEL]
    now = mature.columns[LABEL] if len(mature.days) else np.empty(0)
    binary = spec.task == "binary_classification"
    classes = {f"label {name:g}": name for name in ([1] if binary else np.unique(labels))}
    known = {
        name: np.column_stack([np.bincount(days, labels == one), np.bincount(days)]) for name, one in classes.items()
    }
    there = {name: (int((now == one).sum()), len(now)) for name, one in classes.items()}
    found = share_changes(known, there, limits.false_discovery_rate, 0.0, limits.min_rows)
    return [_usually_as_frequent(one, factor) for one in found]


def _usually_as_frequent(one: ShareChange, factor: float) -> ShareChange:
    if one.before is None or one.now is None:
        return one
    low, high = one.before / factor, one.before * factor
    words = f"{one.now:.2%} of the rows, {one.before:.2%} in the reference (between {low:.2%} and {high:.2%} is normal)"
    return replace(one, outcome="ok" if low <= one.now <= high else one.outcome, words=words)


def _limits(spec: ModelSpec) -> Limits:
    return Limits(spec.monitoring.performance_drop, spec.monitoring.min_rows, spec.monitoring.min_positives)


def _shares(
    watched: Watched, reference: Columns, today: Columns, days: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, tuple[int, int]]]:
    """Rows per day [days, 2], and of today: those of which a share is, and all."""
    marks = {f"{view} knows the entity": (column, False) for view, column in watched.coverage.items()}
    marks |= {f"{column} is null": (column, True) for column in watched.nullable}
    known: dict[str, np.ndarray] = {}
    now: dict[str, tuple[int, int]] = {}
    for name, (column, wanted) in marks.items():
        hits = _is_null(reference[column]) == wanted
        known[name] = np.column_stack([np.bincount(days, hits), np.bincount(days)]).astype(np.int64)
        now[name] = int((_is_null(today[column]) == wanted).sum()), len(today[column])
    return known, now


def _is_null(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "M":
        return np.isnat(values)
    if values.dtype.kind == "O":
        return np.array([value is None for value in values], dtype=bool)
    return np.isnan(values.astype(np.float64))


def _matrix(names: Sequence[str], columns: Columns) -> np.ndarray:
    """Columns that are numbers, float64 [rows, columns]; a null is far below all others."""
    numbers = [columns[name].astype(np.float64) for name in names if columns[name].dtype.kind in "biuf"]
    return np.nan_to_num(np.column_stack(numbers), nan=-1e300) if numbers else np.zeros((len(columns[LABEL]), 1))


def _score_names(scores: np.ndarray) -> list[str]:
    return ["score"] if scores.ndim == 1 else [f"score of class {position}" for position in range(scores.shape[1])]


def _score_columns(scores: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(_score_names(scores), np.atleast_2d(scores.T), strict=True))


def _span(rows: Scored) -> tuple[str, str] | None:
    if not len(rows.days):
        return None
    first, last = (date.fromordinal(int(one)).isoformat() for one in (rows.days.min(), rows.days.max()))
    return first, last


def _together(found: Sequence[tuple[str, Outcome, str]]) -> tuple[Outcome, str]:
    """The worst outcome, with the words of those that have it."""
    outcome = worst(one for _, one, _ in found)
    if outcome == "ok" or not found:
        return outcome, "" if found else "there is nothing to judge"
    those = [f"{name}: {words}" for name, one, words in found if one == outcome]
    return outcome, "; ".join(those[:3]) + (f"; and {len(those) - 3} more" if len(those) > 3 else "")


def _performance(found: Sequence[Performance], days: tuple[str, str] | None) -> tuple[Outcome, str]:
    whole = found[0]
    return whole.outcome, f"{whole.words}{f'; days {days[0]} to {days[1]}' if days else ''}"
