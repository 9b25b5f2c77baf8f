# pyright: reportAttributeAccessIssue=false
# The stubs of PyArrow know fewer methods than the library has.
"""Whether a day's features are sound: complete, in range, distributed as usual, and the same as when last computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_platform.core.spec import FeatureViewSpec

if TYPE_CHECKING:
    import pyarrow.dataset as pads  # it imports pandas

CHECKS = {
    "no_future_information": "The same values come out when everything that was not known yet is taken away.",
    "values_are_in_range": "Every value is a finite number within its feature's min and max.",
    "nulls_are_within_limits": "No default stands in for a larger share of rows than its feature's max_null_share.",
    "entities_are_covered": "Every entity that the newest input day knows has a row.",
    "distribution_is_normal": "No feature's population stability index against the days before is above max_psi.",
    "same_inputs_give_same_values": "Computed again from the same inputs, features have the values that they had.",
}
BLOCKING = ("no_future_information", "values_are_in_range", "nulls_are_within_limits")
NORM_DAYS = 7  # a week, so that each weekday is part of the norm
SAMPLE = 100_000  # values that a distribution is told by
BINS = 10
TOLERANCE = 1e-9  # relative: engines, and threads of one engine, add up in different orders
_LEAST_SHARE = 1e-4  # of an empty bin, where the index would be infinite


@dataclass(frozen=True)
class Verdict:
    """What one check says, with rows for a table."""

    passed: bool
    words: str = ""
    table: tuple[Mapping[str, object], ...] = ()


@dataclass(frozen=True)
class Shift:
    """How one feature's distribution differs from its norm: the share of values in each bin, norm and now."""

    feature: str
    index: float
    edges: np.ndarray
    norm: np.ndarray
    now: np.ndarray


def values_are_in_range(view: FeatureViewSpec, rows: "pads.Dataset") -> Verdict:
    offenders = {}
    for batch in rows.to_batches(columns=list(view.features)):
        for name, feature in view.features.items():
            values = batch.column(name).to_numpy(zero_copy_only=False)
            low, high = (
                np.inf * sign if limit is None else limit for sign, limit in ((-1, feature.min), (1, feature.max))
            )
            bad = values[~(np.isfinite(values) & (values >= low) & (values <= high))]
            if len(bad):
                count, example = offenders.get(name, (0, float(bad[0])))
                offenders[name] = count + len(bad), example
    words = "; ".join(
        f"{name}: {count:,} values such as {example:g}, outside {_limits(view.features[name].min, view.features[name].max)}"
        for name, (count, example) in offenders.items()
    )
    return Verdict(not offenders, words)


def nulls_are_within_limits(view: FeatureViewSpec, nulls: Mapping[str, int], rows: int) -> Verdict:
    share = {name: count / rows if rows else 0.0 for name, count in nulls.items()}
    over = [name for name, found in share.items() if found > view.features[name].max_null_share]
    words = "; ".join(f"{name}: {share[name]:.1%} against {view.features[name].max_null_share:.1%}" for name in over)
    table = tuple({"feature": name, "rows with default": f"{count:,}"} for name, count in nulls.items() if count)
    return Verdict(not over, words, table)


def entities_are_covered(view: FeatureViewSpec, rows: "pads.Dataset", newest: "pads.Dataset") -> Verdict:
    """`newest` are the raw rows of the newest input day of a source that knows the entity."""
    assert view.entity is not None, "the spec guarantees it"
    known = pc.drop_null(pc.unique(newest.to_table(columns=[view.entity])[view.entity]))
    with_row = rows.to_table(columns=[view.entity])[view.entity]
    missing = known.filter(pc.invert(pc.is_in(known, value_set=with_row)))
    words = f"{len(missing):,} of {len(known):,} have none, such as {missing[0]}" if len(missing) else ""
    return Verdict(not len(missing), words)


def same_inputs_give_same_values(
    view: FeatureViewSpec, identity: Sequence[str], before: pa.Table, now: pa.Table
) -> Verdict:
    """Features that are new, or gone, have nothing to agree with."""
    shared = [name for name in view.features if name in before.column_names]
    rows, different = differing(identity, shared, before, now)
    if before.num_rows != now.num_rows or rows != now.num_rows:
        return Verdict(False, f"{now.num_rows:,} rows, {rows:,} of them among the {before.num_rows:,} that there were")
    table = tuple({"feature": name, "rows that differ": f"{count:,}"} for name, count in different.items())
    return Verdict(not different, "; ".join(f"{name} differs in {n:,} rows" for name, n in different.items()), table)


def differing(
    identity: Sequence[str], features: Sequence[str], before: pa.Table, now: pa.Table
) -> tuple[int, dict[str, int]]:
    """How many rows both tables have, and for each feature with such in how many of them the values differ."""
    positions = now.select(identity).append_column("_now", pa.array(np.arange(now.num_rows)))
    both = (
        before.select(identity)
        .append_column("_before", pa.array(np.arange(before.num_rows)))
        .join(positions, list(identity), join_type="inner")
    )
    counts = {}
    for name in features:
        old, new = before[name].take(both["_before"]).to_numpy(), now[name].take(both["_now"]).to_numpy()
        different = ~np.isclose(new, old, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        if different.any():
            counts[name] = int(different.sum())
    return both.num_rows, counts


# --- distributions ----------------------------------------------------------------------------------------------------


def distribution_is_normal(view: FeatureViewSpec, shifts: Sequence[Shift] | None) -> Verdict:
    """`shifts` is None where there is no norm yet."""
    if shifts is None:
        return Verdict(True, f"not judged: the {NORM_DAYS} days before are not all there, or look back on less")
    over = [shift for shift in shifts if shift.index > view.max_psi]
    words = "; ".join(f"{shift.feature}: {shift.index:.3f} against {view.max_psi:g}" for shift in over)
    ordered = sorted(shifts, key=lambda shift: -shift.index)
    return Verdict(not over, words, tuple({"feature": s.feature, "PSI": f"{s.index:.4f}"} for s in ordered))


def shifts(view: FeatureViewSpec, norm: "pads.Dataset", now: "pads.Dataset") -> list[Shift]:
    """Each feature now against the norm."""
    usual, current = (_sample(rows, list(view.features)) for rows in (norm, now))
    if not min(len(next(iter(sample.values()))) for sample in (usual, current)):
        return []
    return [shift(name, usual[name], current[name]) for name in view.features]


def shift(feature: str, norm: np.ndarray, now: np.ndarray) -> Shift:
    """The population stability index: sum over bins of (now - norm) * ln(now / norm), bins at the norm's deciles.

    N. Siddiqi, "Credit Risk Scorecards" (2006): below 0.1 nothing has changed, above 0.25 much has.
    """
    edges = np.unique(np.quantile(norm, np.linspace(0, 1, BINS + 1)[1:-1], method="inverted_cdf"))
    expected, actual = (
        np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) / len(values) for values in (norm, now)
    )
    a, b = np.maximum(actual, _LEAST_SHARE), np.maximum(expected, _LEAST_SHARE)
    return Shift(feature, float(((a - b) * np.log(a / b)).sum()), edges, expected, actual)


def _sample(rows: "pads.Dataset", columns: list[str]) -> dict[str, np.ndarray]:
    """Every n-th row, so that there are about SAMPLE of them at most."""
    step = max(1, rows.count_rows() // SAMPLE)
    picked: dict[str, list[np.ndarray]] = {name: [np.empty(0)] for name in columns}
    for batch in rows.to_batches(columns=columns):
        for name in columns:
            picked[name].append(batch.column(name).to_numpy(zero_copy_only=False)[::step])
    return {name: np.concatenate(parts) for name, parts in picked.items()}


def _limits(low: float | None, high: float | None) -> str:
    return f"[{'-inf' if low is None else f'{low:g}'}, {'inf' if high is None else f'{high:g}'}]"
