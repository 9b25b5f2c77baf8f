"""A file whose columns are known: its rows as batches, whatever its format."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import pyarrow as pa

BATCH_ROWS = 131_072
BLOCK_BYTES = 4 << 20
LINE_BYTES = 16 << 20
Stream = Callable[[], IO[bytes]]  # the content of a file, decompressed, from its beginning


class UnreadableError(ValueError):
    """A file does not have the format that its name says, or is too large."""


class Malformed(NamedTuple):
    """A record that is no row."""

    text: str
    problem: str


class Batch(NamedTuple):
    """Rows in the order of the file, and the records among them that are none.

    Attributes:
        records: how many records this stretch of the file has, counted by another way than by the parser's rows.
        json_kinds: by column, what DuckDB's `json_type` says of each value, of rows that are text from JSON.
    """

    rows: pa.Table
    records: int
    malformed: Sequence[Malformed] = ()
    json_kinds: pa.Table | None = None


@dataclass(frozen=True)
class Opened:
    """A file whose columns are known and whose rows are still to be read.

    Attributes:
        schema: all columns of the file.
        text: the format has no types of columns; every column is a string.
        sparse: a column that a row does not mention is null there, so that whole columns may be missing.
        batches: the rows with these columns of the schema, in order.
    """

    schema: pa.Schema
    text: bool
    sparse: bool
    batches: Callable[[Sequence[str]], Iterator[Batch]]


def text_schema(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in columns])


def check_names(names: Sequence[str]) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UnreadableError(f"two columns are named {min(twice)!r}")


@contextmanager
def explained(format_: str, path: Path) -> Iterator[None]:
    """Whatever a library says of a file, as an UnreadableError."""
    import duckdb

    try:
        yield
    except UnreadableError:
        raise
    except (pa.ArrowException, OSError, UnicodeError, csv.Error, duckdb.Error) as error:
        with path.open("rb") as file:
            start = file.read(20)
        size = path.stat().st_size
        problem = f"not a readable {format_} file ({size:,} bytes, begins with {start!r}): {error}"
        raise UnreadableError(problem) from error
