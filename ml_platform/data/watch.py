"""What is known of what has landed, between looks at it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Annotated, Literal, NamedTuple

from pydantic import PlainSerializer, PlainValidator, TypeAdapter

from ml_platform.core.days import day_range
from ml_platform.core.spec import SourceSpec
from ml_platform.data.landing import day_prefix

RECENT_DAYS = 7
DIGITS = 12  # of a fingerprint
_NO_FINGERPRINT = "-" * DIGITS


@dataclass(frozen=True)
class Arrival:
    """All that there is of one day of a source, at one moment."""

    source: str
    day: date
    files: int
    bytes: int
    newest: datetime
    fingerprint: str


@dataclass(frozen=True)
class Scan:
    """A position in a listing, with the day read so far; it may go on after `after`. `chain` is its whole fingerprint."""

    after: str
    arrival: Arrival | None = None
    chain: str = ""


@dataclass(frozen=True)
class Rotation:
    """Stretches of listings that are read in turns: whose turn was last, and the scans that are not finished."""

    last: str = ""
    scans: dict[str, Scan] = field(default_factory=dict)


class Pending(NamedTuple):
    """Content that is to be handled: how often that was asked for, and when it may be again (epoch seconds)."""

    fingerprint: str
    tries: int = 0
    not_before: float = 0.0


def _pack(days: Mapping[date, str]) -> str:
    """The first day and the fingerprints from there on: half the size of JSON, for 10 years of 100 sources 4.4 MB."""
    if not days:
        return ""
    return f"{min(days)}:{''.join(days.get(day, _NO_FINGERPRINT) for day in day_range(min(days), max(days)))}"


def _unpack(packed: object) -> dict[date, str]:
    first, _, digits = str(packed).partition(":")
    prints = (digits[at : at + DIGITS] for at in range(0, len(digits), DIGITS))
    start = date.fromisoformat(first).toordinal() if first else 0
    return {date.fromordinal(start + n): one for n, one in enumerate(prints) if one != _NO_FINGERPRINT}


_Packed = Annotated[dict[date, str], PlainSerializer(_pack), PlainValidator(_unpack)]


@dataclass(frozen=True)
class Watch:
    """What is known between ticks, by source and day.

    A day is in `seen` with its content when that was handled, in `pending` when it is to be, and never in both. `looks`
    counts the plans that were made, the last one at `planned_at` (epoch seconds).
    """

    looks: int = 0
    planned_at: float = 0.0
    seen: dict[str, _Packed] = field(default_factory=dict)
    pending: dict[str, dict[date, Pending]] = field(default_factory=dict)
    recent: Rotation = Rotation()
    sweep: Rotation = Rotation()

    @classmethod
    def from_json(cls, text: str | None) -> "Watch":
        """The watch of a cursor; an empty one if there is none, or one of another version."""
        try:
            return _CURSOR.validate_json(text or "")[1]
        except ValueError:
            return cls()

    def to_json(self) -> str:
        return _CURSOR.dump_json((1, self)).decode()

    def fingerprint(self, source: str, day: date) -> str | None:
        """The content that is known of a day."""
        pending = self.pending.get(source, {}).get(day)
        return pending.fingerprint if pending else self.seen.get(source, {}).get(day)

    def recent_start(self, source: SourceSpec) -> str:
        """The key after which the recent days begin; '' if all days are recent."""
        newest = max((day for days in (self.seen, self.pending) for day in days.get(source.name, ())), default=date.min)
        if newest <= source.start_date + timedelta(days=RECENT_DAYS):
            return ""
        return day_prefix(source.name, newest - timedelta(days=RECENT_DAYS))


_CURSOR = TypeAdapter(tuple[Literal[1], Watch])
