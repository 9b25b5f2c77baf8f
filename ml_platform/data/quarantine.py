"""What was kept out of a day, why, and what a person decided about it."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from ml_platform.core.records import read
from ml_platform.core.spec import UNTYPED
from ml_platform.data.contract import CHECKS

Quality = Literal["good", "degraded", "bad"]
RECOGNISED = "everything_is_recognised"


@dataclass(frozen=True)
class Decision:
    """What a person said of a day's quarantine. It holds for that content, and for the `checks` that had failed.

    `release` takes the offending rows into the day after all; `discard` goes on without them, and keeps them no longer.
    """

    action: Literal["release", "discard"]
    fingerprint: str
    checks: tuple[str, ...]
    reason: str
    by: str
    at: str

    @classmethod
    def from_json(cls, text: bytes) -> "Decision":
        return read(cls, text)

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()


@dataclass(frozen=True)
class Account:
    """Where the rows of one object went.

    `held` is why the object was set aside whole, or not read at all; its rows are then not counted, since they may not even
    be readable.
    """

    object: str
    etag: str
    bytes: int
    rows: int = 0
    written: int = 0
    quarantined: int = 0
    discarded: int = 0
    held: str = ""


def imbalance(accounts: Sequence[Account], objects: Sequence[str], written: int, quarantined: int) -> list[str]:
    """What does not add up; nothing if every object is accounted for.

    Args:
        objects: the keys that the day's listing had.
        written, quarantined: rows that the files written for the day have, counted by those who read them back.
    """
    problems = [f"{key}: has no account" for key in sorted({*objects} - {a.object for a in accounts})]
    problems += [
        f"{a.object}: {a.rows:,} rows in, {a.written:,} written + {a.quarantined:,} quarantined + {a.discarded:,} discarded"
        for a in accounts
        if not a.held and a.rows != a.written + a.quarantined + a.discarded
    ]
    for what, counted, booked in (
        ("written", written, sum(a.written for a in accounts)),
        ("quarantined", quarantined, sum(a.quarantined for a in accounts)),
    ):
        if counted != booked:
            problems.append(f"{counted:,} rows are {what}, {booked:,} are booked")
    return problems


@dataclass(frozen=True)
class Kept:
    """What is in a day's quarantine: objects and rows, in all, by the check that they broke, and as far as no release helps.

    A row that broke two checks counts for both.
    """

    objects: int
    rows: int
    objects_by_check: Mapping[str, int]
    rows_by_check: Mapping[str, int]
    stuck_objects: int
    stuck_rows: int

    @property
    def is_stuck(self) -> bool:
        """Whether a release would change nothing."""
        return (self.stuck_objects, self.stuck_rows) == (self.objects, self.rows)

    @property
    def words(self) -> str:
        """Why things are in quarantine, with counts."""
        counts = [(check, "object", count) for check, count in self.objects_by_check.items()]
        counts += [(check, "row", count) for check, count in self.rows_by_check.items()]
        return ", ".join(f"{check}: {count:,} {thing}{'s' * (count != 1)}" for check, thing, count in counts)


def summary(accounts: Sequence[Account], reasons: Mapping[str, int]) -> Kept:
    """What is kept, from a day's accounts and the number of rows in quarantine for each text of reasons."""
    held = Counter(next(iter(_checks(account.held)), "") for account in accounts if account.held)
    del held[RECOGNISED]  # what was not read is not kept either
    rows: Counter[str] = Counter()
    stuck = 0
    for text, count in reasons.items():
        broken = _checks(text)
        rows.update(dict.fromkeys(broken, count))
        stuck += count if broken & {*UNTYPED} else 0
    return Kept(
        held.total(),
        sum(reasons.values()),
        dict(sorted(held.items())),
        dict(sorted(rows.items())),
        sum(held[check] for check in UNTYPED),
        stuck,
    )


def _checks(reasons: str) -> set[str]:
    """The checks that a text such as `<check>: <rule>; <check>: <rule>` names."""
    return {part.partition(":")[0] for part in reasons.split("; ")} & {*CHECKS}
