"""What retention takes away: days older than `keep_days`, unless a model was made from them or the next one will be."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from ml_platform.core import keys
from ml_platform.core.days import ONE_DAY, day_range


@dataclass(frozen=True)
class Table:
    """The days of a table that exist, with their bytes, and how many of the newest are kept (None: all)."""

    key: str
    keep_days: int | None
    sizes: Mapping[date, int]


@dataclass(frozen=True)
class Use:
    """Partitions, by the names that manifests give them, that are kept whatever their age, and why."""

    reason: str
    partitions: frozenset[str]


@dataclass(frozen=True)
class Span:
    """Consecutive days of a table with the same fate."""

    key: str
    first: date
    last: date
    bytes: int
    remove: bool
    why: str

    @property
    def days(self) -> list[date]:
        return list(day_range(self.first, self.last))


def plan_retention(tables: Sequence[Table], uses: Sequence[Use]) -> list[Span]:
    """The fate of every partition, as the fewest spans, by table and in time order.

    The newest days are counted on the calendar, from the table's newest day. Of several uses the first is named.
    """
    return [span for table in tables for span in _spans(table, uses)]


def doomed(spans: Iterable[Span]) -> set[tuple[str, date]]:
    """Table and day of every partition that is to be removed."""
    return {(span.key, day) for span in spans if span.remove for day in span.days}


def _spans(table: Table, uses: Sequence[Use]) -> Iterator[Span]:
    span: Span | None = None
    for day, size in sorted(table.sizes.items()):
        remove, why = _fate(table, day, uses)
        if span and (span.last + ONE_DAY, span.remove, span.why) == (day, remove, why):
            span = Span(table.key, span.first, day, span.bytes + size, remove, why)
            continue
        if span:
            yield span
        span = Span(table.key, day, day, size, remove, why)
    if span:
        yield span


def _fate(table: Table, day: date, uses: Sequence[Use]) -> tuple[bool, str]:
    """Whether the day is to be removed, and why or why not."""
    if table.keep_days is None:
        return False, "keep_days is not set"
    if day > max(table.sizes) - timedelta(days=table.keep_days):
        return False, f"within keep_days, {table.keep_days}"
    name = keys.partition(table.key, day)
    reason = next((use.reason for use in uses if name in use.partitions), None)
    return reason is None, reason or f"older than keep_days, {table.keep_days}"
