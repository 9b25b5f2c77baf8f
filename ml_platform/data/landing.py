"""What landed: names of objects, the days that they belong to, and where they come from.

Objects lie at `<source>[/<segment>]/YYYY-MM-DD/<anything>.{parquet,csv,jsonl}[.gz|.zst]`, relative to the landing address.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Protocol

from ml_platform.core import digest
from ml_platform.core.days import ONE_DAY, start_of
from ml_platform.core.spec import SourceSpec

# Names that begin with _ or . are other writers' own (_SUCCESS, _temporary).
_KEY = re.compile(r"(?P<source>.+)/(?P<day>\d{4}-\d{2}-\d{2})/[^/_.][^/]*\.(parquet|csv|jsonl)(\.gz|\.zst)?")
PATTERN = "YYYY-MM-DD/<file>.{parquet,csv,jsonl}[.gz|.zst]"


@dataclass(frozen=True)
class LandedObject:
    """One thing that was handed over; `etag` is different when its content is. `size` is bytes, of a query rows."""

    key: str
    etag: str
    size: int
    last_modified: datetime


@dataclass(frozen=True)
class Page:
    """Part of a listing, in key order. `more`: it goes on after its last object; a page without objects is the end."""

    objects: tuple[LandedObject, ...]
    more: bool


class Origin(Protocol):
    """Where a source's rows come from: lists what there is of each day, and fetches it.

    A source names one by `origin.type`; a class of your own is made with `origin.options` as its only argument. All raise
    LandingError when the outside cannot be reached; the step is then tried again.
    """

    def page(self, source: SourceSpec, after: str) -> Page:
        """The objects whose keys sort after `after`, as many as one request to the outside gives.

        `after` is a key, the beginning of a day's keys (`<source>/<day>/`), or empty.
        """
        ...

    def of_day(self, source: SourceSpec, day: date) -> list[LandedObject]:
        """Everything of one day, in key order."""
        ...

    def fetch(self, source: SourceSpec, found: LandedObject, target: Path) -> None:
        """Write the content of one object to a local file, in the format that its key ends with.

        Raises:
            LandingError: also if the content is not that of `found.etag` any more.
        """
        ...

    def url(self, key: str) -> str:
        """How the object is called in lineage."""
        ...


def day_prefix(source: str, day: date) -> str:
    return f"{source}/{day.isoformat()}/"


def day_of(source: str, key: str) -> date | None:
    """The day that an object belongs to by its name; None if it is not one of the source's."""
    match = _KEY.fullmatch(key)
    try:
        return date.fromisoformat(match["day"]) if match and match["source"] == source else None
    except ValueError:
        return None


def fingerprint(objects: Iterable[LandedObject]) -> str:
    """The same for the same names and contents, whenever and in whatever order they arrived. 12 hex digits."""
    chain = ""
    for found in sorted(objects, key=lambda o: o.key):
        chain = extend_fingerprint(chain, found)
    return chain[:12]


def extend_fingerprint(chain: str, found: LandedObject) -> str:
    """The chain of a fingerprint with one more object, the next by key. The first 12 digits are the fingerprint."""
    return digest.of_bytes(f"{chain}\0{found.key}\0{found.etag}".encode())


def lateness(source: SourceSpec, day: date, newest: datetime) -> timedelta:
    """How long after the moment at which a day was due its newest object arrived; negative if it was early."""
    return newest - start_of(day + ONE_DAY + timedelta(days=source.delay_days))
