"""What landed: names of objects, the days that they belong to, and where they come from.

Objects lie at `<source>[/<segment>]/YYYY-MM-DD/<anything>.{parquet,csv,jsonl}[.gz|.zst]`, relative to the landing address, in
any case and with the other usual endings. Whatever else lies there is of that day too, and is not read.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Protocol

from ml_platform.core import digest
from ml_platform.core.days import ONE_DAY, start_of
from ml_platform.core.spec import SourceSpec

PATTERN = "YYYY-MM-DD/<file>.{parquet,csv,jsonl,ndjson,json}[.gz|.zst]"
_DAY = re.compile(r"(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})/(?P<file>.+)")
_FILE = re.compile(r"[^/]+?\.(?P<format>parquet|csv|jsonl|ndjson|json)(\.(?P<codec>gz|gzip|zst|zstd|snappy))?", re.I)
_FORMATS = {"parquet": "parquet", "csv": "csv", "jsonl": "jsonl", "ndjson": "jsonl", "json": "jsonl"}
_CODECS = {"gz": "gzip", "gzip": "gzip", "zst": "zstd", "zstd": "zstd"}


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


class Stray(NamedTuple):
    """Something that is there and is not read, and why. Its key is that of an object, or names rows in words."""

    object: LandedObject
    problem: str


class Origin(Protocol):
    """Where a source's rows come from: lists what there is of each day, and fetches it.

    A source names one by `origin.type`; a class of your own is made with `origin.options` as its only argument. All raise
    LandingError when the outside cannot be reached; the step is then tried again. An origin that may have rows of which it
    cannot say the day has a method `without_day(source) -> list[Stray]` besides.
    """

    def page(self, source: SourceSpec, after: str) -> Page:
        """The objects whose keys sort after `after`, as many as one request to the outside gives.

        `after` is a key, the beginning of a day's keys (`<source>/<day>/`), or empty.
        """
        ...

    def of_day(self, source: SourceSpec, day: date) -> list[LandedObject]:
        """Everything that lies in the day's folder, in key order; which objects are read is told by their names."""
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
    """The day in whose folder an object lies; None if it lies in none of the source's.

    So do names that begin with _ or ., or lie in folders that do: they are other writers' own (_SUCCESS, _temporary).
    """
    match = _DAY.fullmatch(key.removeprefix(f"{source}/")) if key.startswith(f"{source}/") else None
    if not match or match["file"].endswith("/") or any(part[:1] in ("_", ".") for part in match["file"].split("/")):
        return None
    try:
        return date.fromisoformat(match["day"])
    except ValueError:
        return None


def file_format(name: str) -> tuple[str, str | None] | None:
    """The format (parquet, csv or jsonl) and the compression (gzip, zstd or None) that a name says; None if it says none."""
    match = _FILE.fullmatch(name.rpartition("/")[2])
    if not match:
        return None
    format_, codec = _FORMATS[match["format"].lower()], (match["codec"] or "").lower()
    if codec == "snappy":  # within the file
        return (format_, None) if format_ == "parquet" else None
    return format_, _CODECS.get(codec)


def why_unread(source: str, key: str) -> str:
    """Why an object in a day's folder is not read; empty if it is."""
    if "/" in key.removeprefix(f"{source}/")[len("YYYY-MM-DD/") :]:
        return "lies in a folder within the day's"
    return "" if file_format(key) else f"is not named {PATTERN.partition('/')[2]}"


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


def strays_of(origin: Origin, source: SourceSpec, objects: Iterable[LandedObject]) -> list[Stray]:
    """Those of a day's objects that are not read, and rows that belong to no day that anybody could tell."""
    strays = [Stray(found, why) for found in objects if (why := why_unread(source.name, found.key))]
    without_day = getattr(origin, "without_day", None)
    return [*strays, *(without_day(source) if without_day else ())]
