# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# The stubs of PyArrow know fewer methods than the library has.
"""One day of a source: from landed files to the rows that become its raw partition, and to those that do not.

Files are read in the order of their keys, so that the outcome does not depend on the order in which they arrived. What one
check finds stops the day, is set aside or only reported, as its policy says.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml_platform.core.spec import OBJECT_CHECKS, RESERVED, ObjectsOrigin, SourceSpec, bytes_of
from ml_platform.data import across
from ml_platform.data.contract import CHECKS, arrow_schema, misfit
from ml_platform.data.findings import SAMPLE_ROWS, Finding, Rules, Tally
from ml_platform.data.formats import open_file
from ml_platform.data.landing import LandedObject, Stray
from ml_platform.data.opened import Opened, UnreadableError
from ml_platform.data.passage import Passage, aside_schema
from ml_platform.data.quarantine import RECOGNISED, Account, Decision, Quality, imbalance
from ml_platform.data.staging import Stage, StagedTable

if TYPE_CHECKING:
    import pyarrow.dataset as pads  # it imports pandas

FEWEST_RECENT_DAYS = 3  # fewer make no norm


class LandedFile(NamedTuple):
    """A landed object and the local file with its content."""

    object: LandedObject
    path: Path


@dataclass(frozen=True)
class LookBack:
    """What other partitions hold, as far as a rule asks for it.

    Attributes:
        recent: rows of the days before that share no keys; None if there are none.
        references: by column, the rows in which its values have to occur; None if there are none.
        recent_rows: how many rows each of the recent days has.
    """

    recent: "pads.Dataset | None" = None
    references: Mapping[str, "pads.Dataset | None"] = field(default_factory=dict)
    recent_rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Ingested:
    """What became of a day.

    Attributes:
        staged: the rows to write; None if the day is bad.
        aside: the rows to put into quarantine, if there are any.
        held: the objects to put into quarantine whole.
    """

    findings: tuple[Finding, ...]
    accounts: tuple[Account, ...]
    staged: StagedTable | None
    aside: StagedTable | None
    held: frozenset[str]
    undeclared: tuple[str, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """The checks that something was found for, and nothing decided."""
        return tuple(f.check for f in self.findings if f.outcome != "passed" and f.offending)

    @property
    def quality(self) -> Quality:
        outcomes = {finding.outcome for finding in self.findings}
        return "bad" if "error" in outcomes else "degraded" if "warning" in outcomes else "good"


def ingest(
    source: SourceSpec,
    day: date,
    files: Sequence[LandedFile],
    look_back: LookBack,
    scratch: Path,
    decision: Decision | None = None,
    strays: Sequence[Stray] = (),
) -> Ingested:
    """Hold one day's files against the contract, and stage in the folder `scratch` what goes into the raw partition.

    `strays` are what lies there besides and is not read. A check that cannot be evaluated, because an earlier one stopped the day, does not pass.
    """
    rules = Rules(source, decision)
    return _Day(rules, day, sorted(files, key=lambda f: f.object.key), look_back, scratch, strays).judge()


class _Reading(NamedTuple):
    """What one passage through all files has left."""

    passage: Passage
    staged: StagedTable
    aside: StagedTable
    unreadable: dict[str, str]


class _Day:
    """The state of one `ingest`."""

    def __init__(
        self,
        rules: Rules,
        day: date,
        files: Sequence[LandedFile],
        look_back: LookBack,
        scratch: Path,
        strays: Sequence[Stray],
    ) -> None:
        self.rules, self.source, self.day = rules, rules.source, day
        self.files, self.look_back, self.scratch, self.strays = files, look_back, scratch, strays
        self.held: dict[str, tuple[str, str]] = {}  # objects that stay out whole: check and problem
        self.undeclared: tuple[str, ...] = ()
        self.adopted = pa.schema([])

    def judge(self) -> Ingested:
        opened = self.open_files()
        found, reading = self.object_findings(), None
        while self.files and not _stops(found):
            reading = self.read(opened, {})
            if not reading.unreadable:
                break
            for key, problem in reading.unreadable.items():  # known only now; read again without them
                self.held[key] = ("objects_are_readable", problem)
                del opened[key]
            found, reading = self.object_findings(), None
        if reading is None:
            blocker = next((f.check for f in found if f.outcome == "error"), None)
            nothing = "nothing that is read has landed" if self.strays else "nothing has landed"
            return self.stopped(found, f"{blocker} failed" if blocker else nothing)

        total = int(reading.passage.rows.sum())
        found += [self.rules.finding(check, tally, total) for check, tally in reading.passage.tallies.items()]
        if reading.passage.is_hopeless:
            return self.stopped(found, "too many rows are bad already")
        drop = {}
        for check, tally, positions in self.rules_across(reading.staged):
            found.append(self.rules.finding(check, tally, total))
            if len(positions) and self.rules.leaves(check):
                drop[check] = positions
        found.append(self.row_count(total))
        if drop and not _stops(found):
            reading = self.read(opened, drop)
        return self.finished(found, reading)

    def open_files(self) -> dict[str, tuple[int, Opened]]:
        """The files that can be opened and have the declared columns, by key; the others are held."""
        origin = self.source.origin
        limit = bytes_of((origin if isinstance(origin, ObjectsOrigin) else ObjectsOrigin()).max_bytes)
        opened, undeclared = {}, set()
        for number, (found, path) in enumerate(self.files):
            try:
                one = open_file(found.key, path, limit)
            except UnreadableError as error:
                self.held[found.key] = ("objects_are_readable", str(error))
                continue
            undeclared |= {*one.schema.names} - {*self.source.columns}
            if problem := misfit(self.source, one) or self.adopt(one.schema):
                self.held[found.key] = ("schema_conforms", problem)
            else:
                opened[found.key] = (number, one)
        self.undeclared = tuple(sorted(undeclared))
        return opened

    def adopt(self, schema: pa.Schema) -> str:
        """Take over a file's new columns, if the source says so; returns why that cannot be."""
        if self.source.new_columns == "ignore":
            return ""
        news = pa.schema([column for column in schema if column.name not in self.source.columns])
        if reserved := [name for name in news.names if name.startswith("_") or name in RESERVED]:
            return f"a new column has the name {reserved[0]!r}, which cannot be adopted"
        try:
            self.adopted = pa.unify_schemas([self.adopted, news], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            return f"a new column has another type in another object: {error}"
        return ""

    def object_findings(self) -> list[Finding]:
        tally, things = Tally(), len(self.files) + len(self.strays)
        if self.strays:
            sample = [{"object": one.object.key, "problem": one.problem} for one in self.strays]
            tally.add(len(sample), f"{sample[0]['object']}: {sample[0]['problem']}", sample)
        findings = [self.rules.finding(RECOGNISED, tally, things, "objects")]
        for check in OBJECT_CHECKS:
            problems = [{"object": key, "problem": p} for key, (broken, p) in self.held.items() if broken == check]
            tally = Tally()
            if problems:
                tally.add(len(problems), f"{problems[0]['object']}: {problems[0]['problem']}", problems)
            findings.append(self.rules.finding(check, tally, len(self.files), "objects"))
        return findings

    def read(self, opened: Mapping[str, tuple[int, Opened]], drop: Mapping[str, np.ndarray]) -> _Reading:
        """Pass through all files. The files of an earlier passage are written over."""
        schema = pa.schema([*arrow_schema(self.source), *self.adopted])
        staged = Stage(self.scratch / "staged.parquet", schema)
        aside = Stage(self.scratch / "aside.parquet", aside_schema(schema.names))
        keys = [found.key for found, _ in self.files]
        passage = Passage(self.rules, self.day, keys, self.adopted, staged, aside, drop)
        unreadable = {}
        for key, (number, one) in opened.items():
            try:
                passage.take(number, one)
            except UnreadableError as error:
                unreadable[key] = str(error)
            if passage.is_hopeless:
                break
        passage.flush()
        return _Reading(passage, staged.finish(), aside.finish(), unreadable)

    def rules_across(self, staged: StagedTable) -> Iterator[tuple[str, Tally, np.ndarray]]:
        """Keys and references: by check, what was found and the positions of the offending rows."""
        tally, source = Tally(), self.source
        twice = across.repeated_keys(staged.path, staged.rows, source.key)
        tally.add(len(twice), "the same key twice", _rows_at(staged, twice))
        before = np.empty(0, np.int64)
        if self.look_back.recent is not None:
            before = np.setdiff1d(across.keys_among(staged.path, source.key, self.look_back.recent), twice)
            words = f"a key of the {source.unique_within_days - 1} days before"
            tally.add(len(before), words, _rows_at(staged, before))
        yield "keys_are_unique", tally, np.union1d(twice, before)
        if not source.references:
            return
        tally, lost = Tally(), np.empty(0, np.int64)
        for column, reference in source.references.items():
            others, rows = self.look_back.references.get(column), np.arange(staged.rows)
            words = f"{column}: not among {reference.column} of {reference.source}"
            if others is None:
                words += ", which has no rows for these days"
            else:
                rows = across.values_not_among(staged.path, column, others, reference.column)
            rows = np.setdiff1d(rows, lost)
            tally.add(len(rows), words, _rows_at(staged, rows))
            lost = np.union1d(lost, rows)
        yield "references_exist", tally, lost

    def row_count(self, rows: int) -> Finding:
        limits, recent, problem = self.source.row_count, self.look_back.recent_rows, ""
        if rows < limits.min:
            problem = f"{rows:,} rows are fewer than row_count.min, {limits.min:,}"
        elif limits.max is not None and rows > limits.max:
            problem = f"{rows:,} rows are more than row_count.max, {limits.max:,}"
        elif len(recent) >= FEWEST_RECENT_DAYS:
            low, high = (factor * median(recent) for factor in limits.within)
            if not low <= rows <= high:
                problem = (
                    f"{rows:,} rows are not within {low:,.0f} to {high:,.0f}, the norm of {len(recent)} days before"
                )
        tally = Tally(1, problem) if problem else Tally()
        return self.rules.finding("row_count_is_normal", tally, 1, "days")

    def finished(self, found: list[Finding], reading: _Reading) -> Ingested:
        """The day as it is written, if everything adds up."""
        passage, accounts = reading.passage, []
        for number, (landed, _) in enumerate(self.files):
            account = Account(landed.key, landed.etag, landed.size)
            if landed.key in self.held:
                accounts.append(replace(account, held=": ".join(self.held[landed.key])))
                continue
            counts = {n: int(getattr(passage, n)[number]) for n in ("rows", "written", "quarantined", "discarded")}
            accounts.append(replace(account, **counts))
        accounts += self.stray_accounts()
        staged_rows, aside_rows = (pq.read_metadata(one.path).num_rows for one in (reading.staged, reading.aside))
        keys = [*(landed.key for landed, _ in self.files), *(stray.object.key for stray in self.strays)]
        problems = imbalance(accounts, keys, staged_rows, aside_rows)
        words, check = "; ".join(problems[:SAMPLE_ROWS]), "every_object_is_accounted_for"
        found = [*found, Finding(check, "error", len(problems), words) if problems else Finding(check)]
        if _stops(found):
            return self.stopped(found, "")
        aside = reading.aside if reading.aside.rows else None
        held = frozenset(key for key, (check, _) in self.held.items() if self.rules.treatment(check) != "discard")
        return Ingested(_in_order(found), tuple(accounts), reading.staged, aside, held, self.undeclared)

    def stray_accounts(self) -> list[Account]:
        return [Account(o.key, o.etag, o.size, held=f"{RECOGNISED}: {problem}") for o, problem in self.strays]

    def stopped(self, found: list[Finding], why: str) -> Ingested:
        """A bad day: nothing is written, and every object is held whole, which accounts for all of them."""
        if (self.files or self.strays) and "every_object_is_accounted_for" not in {finding.check for finding in found}:
            found = [*found, Finding("every_object_is_accounted_for")]
        done = {finding.check for finding in found}
        found = [
            *found,
            *(Finding(c, "error", 0, f"not evaluated, because {why}") for c in self.rules.checks if c not in done),
        ]
        stop = next((finding.check for finding in found if finding.outcome == "error"), "")
        accounts = (
            *(
                Account(o.key, o.etag, o.size, held=": ".join(self.held.get(o.key, (stop, "the day was stopped"))))
                for o, _ in self.files
            ),
            *self.stray_accounts(),
        )
        held = frozenset(found.key for found, _ in self.files)
        return Ingested(_in_order(found), accounts, None, None, held, self.undeclared)


def _stops(found: Sequence[Finding]) -> bool:
    return any(finding.outcome == "error" for finding in found)


def _in_order(found: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(found, key=lambda finding: list(CHECKS).index(finding.check)))


def _rows_at(staged: StagedTable, positions: np.ndarray) -> list[dict[str, Any]]:
    """A sample of the rows at these positions."""
    import pyarrow.dataset as pads

    if not len(positions):
        return []
    return pads.dataset(staged.path).take(pa.array(positions[:SAMPLE_ROWS])).to_pylist()
