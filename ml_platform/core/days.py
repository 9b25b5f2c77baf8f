"""Days: the partitions of everything. A day is a `datetime.date` in UTC, written YYYY-MM-DD."""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta

ONE_DAY = timedelta(days=1)


def start_of(day: date) -> datetime:
    """The instant at which `day` begins, UTC."""
    return datetime.combine(day, time.min, tzinfo=UTC)


def day_range(first: date, last: date) -> Iterator[date]:
    """Every day from `first` to `last`, both included; nothing if `last` is before `first`."""
    for offset in range((last - first).days + 1):
        yield first + timedelta(days=offset)


def consecutive_ranges(days: Iterable[date]) -> list[tuple[date, date]]:
    """The days as the fewest (first, last) ranges without gaps, in time order."""
    ranges: list[tuple[date, date]] = []
    for day in sorted(set(days)):
        if ranges and day - ranges[-1][1] == ONE_DAY:
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return ranges
