"""The quarantine as people look at it and decide about it. What ingestion writes there is in ledger.py."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from ml_platform.core import keys
from ml_platform.core.errors import LakeError
from ml_platform.core.spec import UNDISCARDABLE, SourceSpec
from ml_platform.data.landing import Origin, fingerprint
from ml_platform.data.quarantine import Account, Decision, Kept, summary
from ml_platform.resources.lake import Lake
from ml_platform.resources.ledger import ARRIVAL, FAILED, QUALITY, ROWS, accounts_of, decide
from ml_platform.resources.manifest import Manifest

if TYPE_CHECKING:
    import pyarrow.dataset as pads  # it imports pandas


@dataclass(frozen=True)
class Quarantine:
    """One day's quarantine. `rows` have the columns of passage.aside_schema; None if only whole objects are kept."""

    source: str
    day: date
    quality: str
    since: str
    fingerprint: str
    failed: tuple[str, ...]
    accounts: tuple[Account, ...]
    kept: Kept
    rows: "pads.Dataset | None"

    @property
    def subject(self) -> str:
        return keys.partition(keys.quarantine(self.source), self.day)


def days_in_quarantine(lake: Lake, source: str) -> Iterator[Quarantine]:
    for day in lake.days(keys.quarantine(source)):
        aside, ledger = lake.manifest(keys.quarantine(source), day), lake.manifest(keys.ledger(source), day)
        # Otherwise the day is being made at this moment, or will be again.
        if aside and ledger and aside.tags[ARRIVAL] == ledger.tags[ARRIVAL] and ledger.written_at >= aside.written_at:
            yield _read(lake, source, day, aside, ledger)


def in_quarantine(lake: Lake, source: str, day: date) -> Quarantine:
    """A day's quarantine.

    Raises:
        LakeError: if nothing of the day is in quarantine.
    """
    aside, ledger = lake.manifest(keys.quarantine(source), day), lake.manifest(keys.ledger(source), day)
    if aside is None or ledger is None:
        subject = keys.partition(keys.quarantine(source), day)
        raise LakeError(
            subject, "nothing of this day is in quarantine", f"ml-platform quarantine list --source {source}"
        )
    return _read(lake, source, day, aside, ledger)


def _read(lake: Lake, source: str, day: date, aside: Manifest, ledger: Manifest) -> Quarantine:
    accounts = tuple(accounts_of(lake, source, day))
    rows, reasons = lake.rows_of_file(keys.quarantine(source), day, ROWS), {}
    if rows is not None:
        counted = rows.to_table(columns=["_reasons"])["_reasons"].value_counts().to_pylist()
        reasons = {one["values"]: one["counts"] for one in counted}
    return Quarantine(
        source,
        day,
        ledger.tags[QUALITY],
        aside.written_at,
        ledger.tags[ARRIVAL],
        tuple(filter(None, ledger.tags.get(FAILED, "").split(","))),
        accounts,
        summary(accounts, reasons),
        rows,
    )


def decide_about(lake: Lake, origin: Origin, source: SourceSpec, found: Quarantine, decision: Decision) -> None:
    """Write a decision about a day's quarantine down, if it can have an effect.

    Raises:
        LakeError: if what is landed is not what was judged, or nothing can be released.
    """
    day = found.day
    if fingerprint(origin.of_day(source, day)) != found.fingerprint:
        again = f"ml-platform quarantine show {source.name} {day} once it was"
        problem = "what is landed for this day has changed since it was judged; it is judged anew by itself"
        raise LakeError(found.subject, problem, again)
    if decision.action == "discard" and {*found.failed} <= {*UNDISCARDABLE}:
        problem = "no single row is to blame for the number of rows"
        raise LakeError(found.subject, problem, f"ml-platform quarantine release {source.name} {day} --reason ...")
    if decision.action == "release" and found.kept.is_stuck:
        discard = f"ml-platform quarantine discard {source.name} {day} --reason ..."
        problem = f"none of it has rows that could be released ({found.kept.words})"
        raise LakeError(found.subject, problem, f"land mended files, or {discard}")
    decide(lake, source.name, day, decision)
