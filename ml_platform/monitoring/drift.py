"""Whether the rows of a day are distributed like those that a model was judged on.

A distance says nothing by itself: of 100 rows and the same distribution the population stability index exceeds 0.2 in every
third draw. So each column has a null distribution: what the index is between two samples of the reference's own
distribution, as large as the reference and the day are. Rows of a day are not independent of each other, since the same
cards come again and weekdays differ. How much more the reference's days differ among themselves than independent rows would
tells how many independent rows a day is worth (J. N. K. Rao and A. J. Scott, 1984). An alarm takes two things: a p-value that
survives the control of false discoveries over all columns (Y. Benjamini and Y. Hochberg, 1995), and an index that exceeds
what chance gives by more than a limit. What is too small to judge is neither good nor bad.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from scipy.stats import norm

Outcome = Literal["ok", "alarm", "not_enough_data"]

BINS = 10
MOST_VALUES = 50  # of a text column that are told apart
FEWEST_DRAWS, MOST_DRAWS = 2_000, 50_000
LEAST_DAYS = 3  # of a reference, to know how much rows of a day vary


@dataclass(frozen=True)
class Profile:
    """How a column is distributed over the days of a reference: rows per day and cell, int [days, cells].

    The cells of numbers lie at `edges` and between them, so that a value which many rows have is a cell of its own; those of
    text are its most frequent values. The last cell has the nulls.
    """

    column: str
    edges: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, column: str, values: np.ndarray, days: np.ndarray) -> "Profile":
        """`days` int [rows] numbers the day of each row from 0."""
        if values.dtype.kind in "biuf":
            known = values[np.isfinite(values)].astype(np.float64)
            quantiles = np.linspace(0, 1, BINS + 1)[1:-1]
            edges = np.unique(np.quantile(known, quantiles, method="inverted_cdf")) if len(known) else np.empty(0)
        else:
            found, often = np.unique([str(value) for value in values if value is not None], return_counts=True)
            edges = np.sort(found[np.argsort(-often, kind="stable")[:MOST_VALUES]])
        cells = _cells(values, edges)
        width = 2 * len(edges) + 2
        counts = np.bincount(days * width + cells, minlength=(int(days.max(initial=0)) + 1) * width)
        return cls(column, edges, counts.reshape(-1, width))

    def count(self, values: np.ndarray) -> np.ndarray:
        """Rows of other values per cell: int [cells]."""
        return np.bincount(_cells(values, self.edges), minlength=self.counts.shape[1])


@dataclass(frozen=True)
class Drift:
    """How a day's column differs from its reference. `psi` is the index less what chance gives; None where not judged."""

    column: str
    outcome: Outcome
    rows: int
    psi: float | None = None
    p_value: float | None = None
    words: str = ""


@dataclass(frozen=True)
class ShareChange:
    """How a share of rows differs from the reference's: rows that a view knew the entity of, or rows without a value."""

    name: str
    outcome: Outcome
    before: float | None
    now: float | None
    p_value: float | None = None
    words: str = ""


def drifts(
    reference: Sequence[Profile],
    day: Mapping[str, np.ndarray],
    rate: float,
    limit: float,
    min_rows: int,
    seed: int,
) -> list[Drift]:
    """Each column of the reference against the day's rows, the largest index first.

    Args:
        rate: of false discoveries among the alarms; without any drift, of days with an alarm.
        limit: what the index exceeds beyond chance in an alarm.
        min_rows: of the day and of the reference, to be judged.
    """
    draws = int(np.clip(ceil(2 * len(reference) / rate), FEWEST_DRAWS, MOST_DRAWS))
    random = np.random.default_rng(seed)
    judged, left = list[tuple[Profile, int, float, float]](), list[Drift]()
    for profile in reference:
        counts = profile.count(day[profile.column])
        rows, total = int(counts.sum()), int(profile.counts.sum())
        if min(rows, total) < min_rows:
            left.append(Drift(profile.column, "not_enough_data", rows, words=_few(rows, total, min_rows)))
            continue
        # In rows that are worth an independent one, as those by chance are: `psi` makes more of many rows than of few.
        pooled, spread = profile.counts.sum(axis=0), overdispersion(profile.counts)
        index = float(psi(pooled / spread, counts / spread))
        chance = _by_chance(pooled, total / spread, rows / spread, draws, random)
        p_value = (1 + int((chance >= index).sum())) / (1 + draws)
        judged.append((profile, rows, index - float(chance.mean()), p_value))
    found = discoveries([p for *_, p in judged], rate)
    made = [
        Drift(
            profile.column,
            "alarm" if sure and excess > limit else "ok",
            rows,
            excess,
            p_value,
            f"PSI {excess:.3f} beyond chance (limit {limit:g}), p {p_value:.2g}, {rows:,} rows",
        )
        for (profile, rows, excess, p_value), sure in zip(judged, found, strict=True)
    ]
    return sorted(made, key=lambda one: -(one.psi or 0.0)) + left


def psi(reference: np.ndarray, day: np.ndarray) -> np.ndarray:
    """The population stability index of rows per cell [..., cells]: the sum of (q - p) ln(q / p) over the cells' shares.

    Half a row per cell is added to the reference, and as many rows to the day, distributed as the reference is: an empty
    cell is finite, and a cell that is empty in both says nothing.
    """
    cells = reference.shape[-1]
    total, rows = reference.sum(axis=-1, keepdims=True), day.sum(axis=-1, keepdims=True)
    p = (reference + 0.5) / (total + 0.5 * cells)
    q = (day + 0.5 * cells * p) / (rows + 0.5 * cells)
    return ((q - p) * np.log(q / p)).sum(axis=-1)


def overdispersion(counts: np.ndarray) -> float:
    """How many times more days [days, cells] differ than days of independent rows would; at least 1."""
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    days, cells = counts.shape
    if days < LEAST_DAYS or cells < 2:
        return 1.0
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    return max(1.0, chi_squared / ((days - 1) * (cells - 1)))


def discoveries(p_values: Sequence[float], rate: float) -> np.ndarray:
    """Which are discoveries, if of those no more than `rate` are to be false (Benjamini-Hochberg): bool [tests]."""
    p = np.asarray(p_values, dtype=np.float64)
    ordered = np.sort(p)
    passed = np.flatnonzero(ordered <= rate * np.arange(1, len(p) + 1) / max(len(p), 1))
    return p <= (ordered[passed[-1]] if len(passed) else -1.0)


def share_changes(
    reference: Mapping[str, np.ndarray], day: Mapping[str, tuple[int, int]], rate: float, limit: float, min_rows: int
) -> list[ShareChange]:
    """Shares of rows against those of the reference, by their names.

    Args:
        reference: rows of which it is true, and all rows: int [days, 2].
        day: the same of the day.
        limit: the difference that an alarm exceeds; the other arguments are those of `drifts`.
    """
    made = []
    for name, counts in reference.items():
        (hits, rows), (before, total) = day[name], (int(one) for one in counts.sum(axis=0))
        if min(rows, total) < min_rows:
            made.append(ShareChange(name, "not_enough_data", None, None, words=_few(rows, total, min_rows)))
            continue
        spread = overdispersion(np.column_stack([counts[:, 0], counts[:, 1] - counts[:, 0]]))
        likely = (before + hits + 0.5) / (total + rows + 1)
        error = np.sqrt(spread * likely * (1 - likely) * (1 / total + 1 / rows))
        p_value = float(2 * norm.sf(abs(hits / rows - before / total) / error))
        made.append(ShareChange(name, "ok", before / total, hits / rows, p_value))
    judged = [one for one in made if one.p_value is not None]
    sure = dict(zip((o.name for o in judged), discoveries([o.p_value or 0.0 for o in judged], rate), strict=True))
    return [_with_outcome(one, bool(sure.get(one.name)), limit) for one in made]


def traffic(reference: Sequence[int], rows: int, factor: float) -> tuple[Outcome, str]:
    """The rows of a day against those of the reference's days: no more and no fewer than by a factor."""
    if len(reference) < LEAST_DAYS:
        return "not_enough_data", f"the reference has {len(reference)} days; {LEAST_DAYS} are needed"
    usual = float(np.median(reference))
    words = f"{rows:,} rows; usual are {usual:,.0f} (between {usual / factor:,.0f} and {usual * factor:,.0f} is normal)"
    return ("ok" if usual / factor <= rows <= usual * factor else "alarm"), words


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """An alarm, if there is one; else good only if everything was judged, and something was."""
    found = set(outcomes)
    if "alarm" in found:
        return "alarm"
    return "ok" if found == {"ok"} else "not_enough_data"


def _with_outcome(one: ShareChange, sure: bool, limit: float) -> ShareChange:
    if one.before is None or one.now is None:
        return one
    words = (
        f"{one.now:.1%} of the rows, {one.before:.1%} in the reference (may differ by {limit:.1%}), p {one.p_value:.2g}"
    )
    alarm = sure and abs(one.now - one.before) > limit
    return ShareChange(one.name, "alarm" if alarm else "ok", one.before, one.now, one.p_value, words)


def _by_chance(counts: np.ndarray, total: float, rows: float, draws: int, random: np.random.Generator) -> np.ndarray:
    """The index between samples of one distribution, as large as reference and day are: [draws]."""
    there = counts > 0  # cells without rows take part in `psi` by their number only
    empty = np.zeros((draws, int((~there).sum())), dtype=np.int64)
    samples = (random.multinomial(max(1, round(n)), counts[there] / counts.sum(), draws) for n in (total, rows))
    return psi(*(np.hstack([sample, empty]) for sample in samples))


def _cells(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The cell of each value: int [rows], of 2 * edges + 2."""
    nulls = 2 * len(edges) + 1
    if values.dtype.kind in "biuf":
        numbers = values.astype(np.float64)
        cells = np.searchsorted(edges, numbers, "left") + np.searchsorted(edges, numbers, "right")
        return np.where(np.isnan(numbers), nulls, cells)
    place = {name: 2 * position + 1 for position, name in enumerate(edges.tolist())}
    cells = [nulls if value is None else place.get(str(value), 0) for value in values]
    return np.array(cells, dtype=np.int64)


def _few(rows: int, total: int, min_rows: int) -> str:
    return f"{rows:,} rows, and {total:,} of the reference; {min_rows:,} of both are needed (monitoring.min_rows)"
