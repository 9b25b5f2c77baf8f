"""A fault that somebody met and told of in public: the input, and what is right for it here."""

import gzip
import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ml_platform.core.spec import PolicySpec, SourceSpec
from ml_platform.data.ingest import LandedFile, LookBack, ingest
from ml_platform.data.landing import LandedObject, day_of, strays_of, why_unread

DAY = date(2024, 3, 1)
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
HELD_OR_ASIDE = PolicySpec(on_failure="quarantine", up_to=1)
SET_ASIDE = ("objects_are_readable", "values_fit_their_types", "values_are_allowed")


@dataclass(frozen=True)
class Case:
    """One day of a source with `id`, `at` and these columns, all nullable, of which everything bad is set aside.

    Attributes:
        thread: where it was told of, as `owner/name#number` of a public repository's issue or pull request; empty if it is
            a neighbour of such a case that was met here.
        what: the fault there, in a few words.
        columns: declared type by name, or what a source's file says of the column.
        files: what landed, by name within the day's folder.
        rows: the values of `columns` in the rows that are written.
        red: the checks that are not passed, and words that say why.
    """

    thread: str
    what: str
    columns: Mapping[str, str | Mapping[str, Any]]
    files: Mapping[str, bytes | str]
    rows: Sequence[tuple[Any, ...]] = ()
    red: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.thread or 'here'}: {self.what}"

    @property
    def source(self) -> SourceSpec:
        columns = {name: {"type": one} if isinstance(one, str) else dict(one) for name, one in self.columns.items()}
        content = {
            "name": "landed",
            "start_date": DAY,
            "key": ["id"],
            "event_time": "at",
            "row_count": {"min": 0},
            "columns": {
                "id": {"type": "int64"},
                "at": {"type": "timestamp"},
                **{name: {"nullable": True, **one} for name, one in columns.items()},
            },
            "policies": dict.fromkeys(SET_ASIDE, HELD_OR_ASIDE),
        }
        return SourceSpec.model_validate(content)

    def hold(self) -> None:
        """Ingest the day, and assert that what comes of it is right, and that nothing is lost on the way."""
        with tempfile.TemporaryDirectory() as scratch:
            objects, files = [], []
            for number, (name, content) in enumerate(self.files.items()):
                encoded = content if isinstance(content, bytes) else content.encode()
                found = LandedObject(f"landed/{DAY}/{name}", str(number), len(encoded), NOON)
                if day_of("landed", found.key) is None:  # other writers' own
                    continue
                objects.append(found)
                if not why_unread("landed", found.key):
                    path = Path(scratch) / f"landed-{number}"
                    path.write_bytes(encoded)
                    files.append(LandedFile(found, path))
            strays = strays_of(None, self.source, objects)  # type: ignore[arg-type]  # no origin has any of its own
            made = ingest(self.source, DAY, files, LookBack(), Path(scratch), None, strays)
            table = pa.table({}) if made.staged is None else pq.read_table(made.staged.path)
        red = {f.check: f.words for f in made.findings if f.outcome != "passed" and not f.words.startswith("not eval")}
        assert red.keys() == self.red.keys(), red
        assert all(words in red[check] for check, words in self.red.items()), red
        assert [tuple(row[name] for name in self.columns) for row in table.to_pylist()] == [*self.rows]
        accounts = {account.object: account for account in made.accounts}
        assert accounts.keys() == {found.key for found in objects}
        assert all(one.held or one.rows == one.written + one.quarantined + one.discarded for one in accounts.values())


def csv(header: str, *lines: str) -> str:
    """A CSV with `id` and `at` before the other columns."""
    return "\n".join([f"id,at,{header}", *(f"{number},2024-03-01,{line}" for number, line in enumerate(lines)), ""])


def json(*values: str) -> str:
    """JSON lines with `id` and `at` before the column `value`."""
    return "".join(f'{{"id": {n}, "at": "2024-03-01", "value": {value}}}\n' for n, value in enumerate(values))


def parquet(column: pa.Array, **options: Any) -> bytes:
    """A Parquet file with `id` and `at` before the column `value`."""
    buffer = io.BytesIO()
    table = pa.table({"id": range(len(column)), "at": [NOON] * len(column), "value": column})
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def members(*contents: str) -> bytes:
    """Gzip members one after the other."""
    return b"".join(gzip.compress(content.encode()) for content in contents)
