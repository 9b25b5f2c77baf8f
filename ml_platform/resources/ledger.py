"""The ledger: what became of every landed object, written when all else of its day is. And the quarantine beside it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from ml_platform.core import digest, keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import ONE_DAY, day_range
from ml_platform.core.spec import SourceSpec
from ml_platform.data.contract import ACROSS_CHECKS, arrow_schema
from ml_platform.data.ingest import Ingested, LandedFile, LookBack
from ml_platform.data.landing import LandedObject, fingerprint
from ml_platform.data.quarantine import Account, Decision
from ml_platform.resources.lake import Lake
from ml_platform.resources.manifest import Input, Manifest

ROWS, DECISION = "rows.parquet", "decision.json"
ARRIVAL, QUALITY, JUDGED_BY, FAILED = "arrival", "quality", "judged_by", "failed_checks"
LONGEST_NAME = 200  # bytes; file systems take 255, and a number comes before it
REMOVED = "removed"  # the quality of a day whose partition retention took away


class Back(NamedTuple):
    """Days of a source that a rule looks back on; `column` refers to them, or the key is compared if it is None."""

    column: str | None
    source: SourceSpec
    days: list[date]

    @property
    def table(self) -> str:
        return keys.raw(self.source.name)


def looks_back_on(catalog: Catalog, source: SourceSpec, day: date) -> Iterator[Back]:
    """What has to be there before a day can be judged, and what another judgement follows from."""
    first = max(source.start_date, day - timedelta(days=source.unique_within_days - 1))
    if first < day:
        yield Back(None, source, list(day_range(first, day - ONE_DAY)))
    for column, reference in source.references.items():
        other = catalog.sources[reference.source]
        first = max(other.start_date, day - timedelta(days=reference.window_days - 1))
        yield Back(column, other, list(day_range(first, day)))


def look_back(lake: Lake, catalog: Catalog, source: SourceSpec, day: date) -> tuple[LookBack, list[Input]]:
    """What other partitions hold that this day is judged by, and which partitions those were."""
    recent, references, inputs = None, {}, []
    for back in looks_back_on(catalog, source, day):
        there = lake.manifests(back.table, back.days)
        inputs += [manifest.as_input(back.table, on) for on, manifest in there.items()]
        rows = lake.dataset(back.table, there, arrow_schema(back.source)) if there else None
        if back.column is None:
            recent = rows
        else:
            references[back.column] = rows
    before = day_range(max(source.start_date, day - timedelta(days=source.row_count.recent_days)), day - ONE_DAY)
    counts = tuple(manifest.rows for manifest in lake.manifests(keys.raw(source.name), before).values())
    return LookBack(recent, references, counts), inputs


def record(
    lake: Lake,
    source: SourceSpec,
    day: date,
    objects: Sequence[LandedObject],
    files: Sequence[LandedFile],
    url: Callable[[str], str],
    ingested: Ingested,
    judged_by: Sequence[Input],
) -> Manifest | None:
    """Write what became of a day: its quarantine, its raw partition, and then the ledger.

    `objects` is everything that the day's listing had, `files` are those of it that were read. A bad day leaves the raw
    partition as it was, and so does one without objects. Dying in between loses nothing: the ledger is then older than the
    rest, and the day is made again.

    Returns:
        The manifest of the raw partition, if it was written.
    """
    if not objects:  # what was quarantined or written before may be all that is left
        return None
    own_fault = ingested.quality == "bad" and not any(
        finding.outcome == "error" and finding.offending and finding.check in ACROSS_CHECKS
        for finding in ingested.findings
    )
    tags = {
        ARRIVAL: fingerprint(objects),
        QUALITY: ingested.quality,
        JUDGED_BY: "" if own_fault else _digest(judged_by),
        FAILED: ",".join(ingested.failed),
    }
    inputs = [*(Input(url(found.key), found.etag, found.size) for found in objects), *judged_by]
    aside: dict[str, bytes | Path] = {
        f"{number:05d}-{_short(Path(found.key).name)}": path
        for number, (found, path) in enumerate(files)
        if found.key in ingested.held
    }
    if ingested.aside is not None:
        aside[ROWS] = ingested.aside.path
    if aside:
        lake.write_files(keys.quarantine(source.name), day, aside, inputs, tags)
    written = None
    if ingested.staged is not None:
        written = lake.write_staged(keys.raw(source.name), day, ingested.staged, inputs, tags)
    lake.write_table(keys.ledger(source.name), day, _table(ingested.accounts), inputs, tags)
    if not aside:
        lake.remove(keys.quarantine(source.name), day)
    return written


def is_handled(lake: Lake, catalog: Catalog, source: SourceSpec, day: date, content: str) -> bool:
    """Whether the day's present content (its fingerprint) was made into what it had to become.

    So it is not if the partitions that the day is judged by have changed since, or another writer committed older content.
    """
    ledger = lake.manifest(keys.ledger(source.name), day)
    if ledger is None or ledger.tags[ARRIVAL] != content:
        return False
    if ledger.tags[QUALITY] == REMOVED:
        return True
    raw = lake.manifest(keys.raw(source.name), day)
    if raw is not None and raw.written_at > ledger.written_at:  # its writer died before the ledger
        return False
    if ledger.tags[QUALITY] != "bad" and (raw is None or raw.tags.get(ARRIVAL) != content):
        return False
    if not ledger.tags[JUDGED_BY]:  # bad, whatever other partitions hold
        return True
    return ledger.tags[JUDGED_BY] == _digest(list(_judged_by_now(lake, catalog, source, day, ledger.inputs)))


def _judged_by_now(
    lake: Lake, catalog: Catalog, source: SourceSpec, day: date, then: Sequence[Input]
) -> Iterator[Input]:
    """The partitions that a day is judged by, as they are; those that retention took away, as they were."""
    before = {one.name: one for one in then}
    for back in looks_back_on(catalog, source, day):
        there = lake.manifests(back.table, back.days)
        for on in back.days:
            if on in there:
                yield there[on].as_input(back.table, on)
            elif (was := before.get(keys.partition(back.table, on))) and _is_removed(lake, back.source.name, on):
                yield was


def _is_removed(lake: Lake, source: str, day: date) -> bool:
    ledger = lake.manifest(keys.ledger(source), day)
    return ledger is not None and ledger.tags[QUALITY] == REMOVED


def decision_on(lake: Lake, source: str, day: date, content: str) -> Decision | None:
    """What was decided about this content of a day."""
    key = keys.decisions(source)
    if lake.manifest(key, day) is None:
        return None
    decision = Decision.from_json(lake.read_files(key, day)[DECISION])
    return decision if decision.fingerprint == content else None


def decide(lake: Lake, source: str, day: date, decision: Decision) -> None:
    """Write a decision down; it has effect when the day is made again."""
    lake.write_files(keys.decisions(source), day, {DECISION: decision.to_json()}, [])


def accounts_of(lake: Lake, source: str, day: date) -> list[Account]:
    return [Account(**row) for row in lake.read_table(keys.ledger(source), [day]).to_pylist()]


def _digest(inputs: Sequence[Input]) -> str:
    return digest.of_json([(one.name, one.version) for one in inputs])[:16]


def _short(name: str) -> str:
    """A file name within the limits of file systems, for what an object may be called in S3: its end, which has the format."""
    encoded = name.encode()
    return name if len(encoded) <= LONGEST_NAME else encoded[-LONGEST_NAME:].decode(errors="ignore")


def _table(accounts: Sequence[Account]) -> pa.Table:
    counts = ("bytes", "rows", "written", "quarantined", "discarded")
    schema = pa.schema([(f, pa.int64() if f in counts else pa.string()) for f in Account.__dataclass_fields__])
    return pa.Table.from_pylist([asdict(account) for account in accounts], schema=schema)
