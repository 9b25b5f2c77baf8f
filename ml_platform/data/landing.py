"""What landed: object names to partitions, and which partitions have something new.

Objects lie at `<source>/YYYY-MM-DD/<anything>.parquet`, relative to the landing address.
"""

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from ml_platform.core import digest
from ml_platform.core.days import consecutive_ranges

# Names that begin with _ or . are other writers' own (_SUCCESS, _temporary).
_KEY = re.compile(r"^(?P<source>[^/]+)/(?P<day>\d{4}-\d{2}-\d{2})/(?P<file>[^/_.][^/]*\.parquet)$")


@dataclass(frozen=True)
class LandedObject:
    key: str
    etag: str
    size: int
    last_modified: datetime


@dataclass(frozen=True)
class Arrival:
    """All objects of one day of one source, at one moment."""

    source: str
    day: date
    objects: tuple[LandedObject, ...]

    @property
    def fingerprint(self) -> str:
        """The same for the same names and contents, whenever and in whatever order they arrived."""
        return digest.of_json(sorted((o.key, o.etag) for o in self.objects))[:16]

    @property
    def total_bytes(self) -> int:
        return sum(o.size for o in self.objects)

    @property
    def newest(self) -> datetime:
        return max(o.last_modified for o in self.objects)


@dataclass(frozen=True)
class Arrivals:
    """What a look at one source's objects found."""

    new: tuple[Arrival, ...]
    seen: dict[str, str]
    ignored: tuple[str, ...]

    @property
    def ranges(self) -> list[tuple[date, date]]:
        """The new days as the fewest gapless ranges: one run each."""
        return consecutive_ranges(arrival.day for arrival in self.new)

    def run_key(self, first: date, last: date, look: int) -> str:
        """Names a run by its content and by the look that found it.

        A look that is repeated, because its outcome was lost, asks for the same run; content that comes back after it had
        been overwritten is found by another look, and runs again.
        """
        within = sorted((a.source, a.day.isoformat(), a.fingerprint) for a in self.new if first <= a.day <= last)
        return f"{within[0][0]}:{first}:{last}:{digest.of_json(within)[:16]}:{look}"


def day_prefix(source: str, day: date) -> str:
    return f"{source}/{day.isoformat()}/"


def find_arrivals(
    source: str, objects: Iterable[LandedObject], seen: Mapping[str, str], first_day: date, last_day: date
) -> Arrivals:
    """Compare what lies in the landing area with what was `seen` (day -> fingerprint) before.

    Objects with a name outside the pattern, or of a day that is not on the calendar, are `ignored`, with the reason.
    """
    by_day: dict[date, list[LandedObject]] = {}
    ignored = []
    for found in objects:
        day = day_of(source, found.key)
        if day is None:
            ignored.append(f"{found.key}: not {source}/YYYY-MM-DD/<file>.parquet")
        elif not first_day <= day <= last_day:
            ignored.append(f"{found.key}: its day is not within {first_day} to {last_day}")
        else:
            by_day.setdefault(day, []).append(found)
    arrivals = [Arrival(source, day, tuple(sorted(by_day[day], key=lambda o: o.key))) for day in sorted(by_day)]
    now = {arrival.day.isoformat(): arrival.fingerprint for arrival in arrivals}
    new = tuple(a for a in arrivals if seen.get(a.day.isoformat()) != a.fingerprint)
    return Arrivals(new, {**seen, **now}, tuple(ignored))


def day_of(source: str, key: str) -> date | None:
    """The day that an object belongs to by its name; None if it is not one of the source's."""
    match = _KEY.match(key)
    try:
        return date.fromisoformat(match["day"]) if match and match["source"] == source else None
    except ValueError:
        return None


def read_table(content: bytes) -> pa.Table:
    """The rows of one landed Parquet object.

    Raises:
        ValueError: saying why the content cannot be read.
    """
    try:
        table = pq.read_table(io.BytesIO(content))
        table.validate(full=True)  # also finds text that is not UTF-8
        return table
    except (pa.ArrowException, OSError) as error:
        start = content[:20]
        raise ValueError(
            f"not a readable Parquet file ({len(content)} bytes, begins with {start!r}): {error}"
        ) from error
