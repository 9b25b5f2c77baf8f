"""Whether a model's performance holds: against what it had on the rows that it was judged on, as a whole and by slices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ml_platform.core.tasks import LOWER_IS_BETTER, Metric, Task
from ml_platform.evaluation.bootstrap import FEW_RESAMPLES, Measure, interval, resampled
from ml_platform.evaluation.weighted import weighted
from ml_platform.monitoring.drift import Outcome
from ml_platform.monitoring.estimate import Estimate, rarest_rows

MOST_SLICES = 20  # of one column; numbers with more values are cut at their quartiles


@dataclass(frozen=True)
class Performance:
    """A metric of some rows, held against the same metric of the reference. Figures are None where there is no judgement.

    `worse_by` is the part of the reference's value that was lost, negative where it is better.
    """

    rows_of: str
    outcome: Outcome
    metric: Metric
    rows: int
    positives: float
    value: float | None = None
    low: float | None = None
    high: float | None = None
    reference: float | None = None
    worse_by: float | None = None
    words: str = ""


@dataclass(frozen=True)
class Limits:
    """What performance is held to: the part of the reference's value that may be lost, and rows of the rarest class to judge."""

    drop: float
    min_rows: int
    min_positives: int


def realised(
    task: Task,
    metric: Metric,
    labels: np.ndarray,
    scores: np.ndarray,
    seed: int,
    parts: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Estimate | None]:
    """The metric of scores [rows] or [rows, classes] with labels [rows], and its interval over draws of the rows.

    The names are those of `estimate`.
    """
    found: dict[str, Estimate | None] = {}
    for name, mask in {"": np.ones(len(labels), dtype=bool), **(parts or {})}.items():
        mine = labels[mask]
        if not len(mine):
            found[name] = None
            continue
        measure = Measure(weighted(task, metric, mine, scores[mask]), len(mine), FEW_RESAMPLES)
        value = measure.whole
        ends = interval(resampled([measure], seed)[:, 0].tolist()) if np.isfinite(value) else None
        found[name] = Estimate(value, *ends, len(mine), rarest_rows(task, mine)) if ends else None
    return found


def judged(
    metric: Metric,
    found: Mapping[str, Estimate | None],
    reference: Mapping[str, Estimate | None],
    limits: Limits,
) -> list[Performance]:
    """Each figure against the reference's of the same rows: all of them first, then the slices, the worst first.

    An alarm takes that the whole interval is beyond the limit. Too few rows or positives are neither good nor bad.
    """
    made = [_judged(name, metric, found[name], reference.get(name), limits) for name in found]
    whole = [one for one in made if not one.rows_of]
    slices = [one for one in made if one.rows_of]
    return whole + sorted(slices, key=lambda one: -np.inf if one.worse_by is None else one.worse_by, reverse=True)


def _judged(
    name: str, metric: Metric, found: Estimate | None, reference: Estimate | None, limits: Limits
) -> Performance:
    rows, positives = (found.rows, found.positives) if found else (0, 0.0)
    why = ""
    if found is None:
        why = "the metric has no value: there are no rows, or not one of a class"
    elif rows < limits.min_rows or positives < limits.min_positives:
        why = f"{rows:,} rows, {positives:,.0f} of the rarest class; {limits.min_rows:,} (monitoring.min_rows) and "
        why += f"{limits.min_positives:,} (monitoring.min_positives) are needed"
    elif reference is None or reference.positives < limits.min_positives or reference.value == 0:
        why = "the reference has too few such rows, or no value"
    if found is None or reference is None or why:
        return Performance(name, "not_enough_data", metric, rows, positives, words=why)
    sign = 1.0 if metric in LOWER_IS_BETTER else -1.0
    scale = abs(reference.value)
    worse_by = sign * (found.value - reference.value) / scale
    at_best = sign * ((found.low if sign > 0 else found.high) - reference.value) / scale
    words = (
        f"{metric} {found.value:.4g} ({found.low:.4g} to {found.high:.4g}), {reference.value:.4g} in the reference: "
    )
    words += f"{abs(worse_by):.1%} {'worse' if worse_by > 0 else 'better'} (limit {limits.drop:.0%} for certain); "
    words += f"{rows:,} rows, {positives:,.0f} of the rarest class"
    outcome: Outcome = "alarm" if at_best > limits.drop else "ok"
    figures = found.value, found.low, found.high, reference.value, worse_by
    return Performance(name, outcome, metric, rows, positives, *figures, words)


def slices(
    columns: Sequence[str], reference: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The slices of the reference's rows and of other rows, by names such as `country = DE`: bool [rows] each.

    A number with many values is cut at the reference's quartiles; of text its most frequent values are slices.
    """
    ours: dict[str, np.ndarray] = {}
    theirs: dict[str, np.ndarray] = {}
    for column in columns:
        known, now = reference[column], rows[column]
        if known.dtype.kind in "iuf" and len(np.unique(known[np.isfinite(known)])) > MOST_SLICES:
            edges = np.unique(np.quantile(known[np.isfinite(known)], [0.25, 0.5, 0.75]))
            ends = [-np.inf, *edges, np.inf]
            for low, high in pairwise(ends):
                name = f"{column} in ({low:.4g}, {high:.4g}]"
                ours[name], theirs[name] = (known > low) & (known <= high), (now > low) & (now <= high)
        else:
            texts, other = known.astype(str), now.astype(str)
            values, often = np.unique(texts, return_counts=True)
            for value in values[np.argsort(-often, kind="stable")[:MOST_SLICES]]:
                ours[f"{column} = {value}"], theirs[f"{column} = {value}"] = texts == value, other == value
    return ours, theirs
