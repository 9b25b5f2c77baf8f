# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# The stubs of PyArrow know fewer methods than the library has.
"""Landed files as batches of rows: Parquet, CSV and JSON lines, plain or compressed with gzip or zstd.

Every format is read in bounded memory. Parquet has types; the columns of text formats are text, for the contract to convert.
"""

import csv
import io
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

BATCH_ROWS = 131_072
BLOCK_BYTES = 4 << 20
LINE_BYTES = 16 << 20
_CODECS = {".gz": "gzip", ".zst": "zstd"}


class UnreadableError(ValueError):
    """A file does not have the format that its name says, or is too large."""


class Malformed(NamedTuple):
    """A line that is no row."""

    text: str
    problem: str


class Batch(NamedTuple):
    """Rows in the order of the file, and the lines among them that are none."""

    rows: pa.Table
    malformed: tuple[Malformed, ...] = ()


@dataclass(frozen=True)
class Opened:
    """A file whose columns are known and whose rows are still to be read.

    Attributes:
        schema: all columns of the file.
        text: the format has no types; every column is a string.
        sparse: a column that a row does not mention is null there, so that whole columns may be missing.
        batches: the rows with these columns of the schema, in order.
    """

    schema: pa.Schema
    text: bool
    sparse: bool
    batches: Callable[[Sequence[str]], Iterator[Batch]]


def open_file(name: str, path: Path, max_bytes: int) -> Opened:
    """Open a local file that has the format in which `name` ends.

    Raises:
        UnreadableError: if it cannot be opened, or is larger than `max_bytes` after decompression; `batches` likewise.
    """
    suffixes = Path(name).suffixes
    codec = _CODECS.get(suffixes[-1])
    kind = suffixes[-2] if codec else suffixes[-1]
    with _explained(kind, path):
        if path.stat().st_size > max_bytes:
            raise UnreadableError(f"{path.stat().st_size:,} bytes are more than max_bytes, {max_bytes:,}")
        stream = partial(_stream, path, codec, max_bytes)
        if kind == ".parquet":
            return _open_parquet(_decompressed(stream, path) if codec else path, max_bytes)
        return _open_csv(stream, path) if kind == ".csv" else _open_json_lines(stream, path)


def _open_parquet(path: Path, max_bytes: int) -> Opened:
    with pq.ParquetFile(path) as file:
        metadata, schema = file.metadata, file.schema_arrow.remove_metadata()
    size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    if size > max_bytes:
        raise UnreadableError(f"{size:,} bytes of values are more than max_bytes, {max_bytes:,}")
    _check_names(schema.names)

    def batches(columns: Sequence[str]) -> Iterator[Batch]:
        # Without pre-buffering, memory does not grow with the size of row groups.
        with _explained(".parquet", path), pq.ParquetFile(path, pre_buffer=False, buffer_size=BLOCK_BYTES) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
                batch.validate(full=True)  # also finds text that is not UTF-8
                yield Batch(pa.Table.from_batches([batch]).select(list(columns)))

    return Opened(schema, False, False, batches)


def _open_csv(stream: Callable[[], IO[bytes]], path: Path) -> Opened:
    with stream() as file:
        header = file.readline(LINE_BYTES).decode("utf-8-sig")
    names = next(csv.reader([header]), [])
    if not names:
        raise UnreadableError("there is no header line")
    _check_names(names)

    def batches(columns: Sequence[str]) -> Iterator[Batch]:
        malformed: list[Malformed] = []

        def invalid(row: Any) -> str:
            malformed.append(Malformed(row.text, f"has {row.actual_columns} fields, not {row.expected_columns}"))
            return "skip"

        with _explained(".csv", path), _Quotes(stream()) as file:
            reader = pacsv.open_csv(
                file,
                read_options=pacsv.ReadOptions(block_size=BLOCK_BYTES),
                parse_options=pacsv.ParseOptions(newlines_in_values=True, invalid_row_handler=invalid),
                convert_options=pacsv.ConvertOptions(
                    include_columns=list(columns),
                    column_types={name: pa.string() for name in columns},
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
            for batch in reader:
                yield Batch(pa.Table.from_batches([batch]), tuple(malformed))
                malformed.clear()
            if file.count % 2:
                raise UnreadableError("a quoted field is not closed; it would swallow all lines after it")
        if malformed:
            yield Batch(_text(columns).empty_table(), tuple(malformed))

    return Opened(_text(names), True, False, batches)


def _open_json_lines(stream: Callable[[], IO[bytes]], path: Path) -> Opened:
    import duckdb

    names: set[str] = set()
    with stream() as file, duckdb.connect() as connection:  # any line may have a column that none before it had
        for lines in _line_blocks(file):
            connection.register("rows", _json_rows(connection, lines)[0])
            names |= {
                name for (name,) in connection.sql("SELECT DISTINCT unnest(json_keys(line)) FROM rows").fetchall()
            }
    if not names:
        raise UnreadableError("there are no lines with JSON objects")

    def batches(columns: Sequence[str]) -> Iterator[Batch]:
        paths = ", ".join(f"json_extract_string(line, {_json_path(name)})" for name in columns)
        with _explained(".jsonl", path), stream() as file, duckdb.connect() as connection:
            for lines in _line_blocks(file):
                rows, malformed = _json_rows(connection, lines)
                connection.register("rows", rows)
                found = connection.sql(f"SELECT {paths} FROM rows").to_arrow_table()
                yield Batch(found.rename_columns(list(columns)).cast(_text(columns)), malformed)

    return Opened(_text(sorted(names)), True, True, batches)


def _json_rows(connection: Any, lines: pa.Table) -> tuple[pa.Table, tuple[Malformed, ...]]:
    """The lines that are JSON objects, and the others."""
    connection.register("lines", lines)
    checked = connection.sql(
        "SELECT line, CASE WHEN json_valid(line) THEN json_type(line) = 'OBJECT' ELSE false END AS ok FROM lines"
    ).to_arrow_table()
    others = checked.filter(pc.invert(checked["ok"]))["line"].to_pylist()
    return checked.filter(checked["ok"]).select(["line"]), tuple(
        Malformed(line, "is no JSON object") for line in others
    )


def _line_blocks(file: IO[bytes]) -> Iterator[pa.Table]:
    """The lines that are not blank, as tables of one column `line`."""
    rest = b""
    if (mark := file.read(len(BOM_UTF8))) != BOM_UTF8:
        rest = mark
    while block := file.read(BLOCK_BYTES):
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > LINE_BYTES:
            raise UnreadableError(f"a line is longer than {LINE_BYTES:,} bytes")
        if kept := [line for line in lines if line.strip()]:
            yield pa.table({"line": pa.array(kept, pa.binary()).cast(pa.string())})
    if rest.strip():
        yield pa.table({"line": pa.array([rest], pa.binary()).cast(pa.string())})


def _json_path(name: str) -> str:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"').replace("'", "''")
    return f"'$.\"{quoted}\"'"


def _text(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in columns])


def _check_names(names: Sequence[str]) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UnreadableError(f"two columns are named {min(twice)!r}")


class _Counted(io.RawIOBase):
    """A stream that counts something of what it gives."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.count = 0

    def look(self, content: bytes) -> None:
        raise NotImplementedError

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self.stream.read(len(buffer))
        self.look(content)
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self.stream.close()
        super().close()


class _Limited(_Counted):
    """A stream that refuses to give more than so many bytes: a small file may decompress to a very large one."""

    def __init__(self, stream: Any, max_bytes: int) -> None:
        super().__init__(stream)
        self.max_bytes = max_bytes

    def look(self, content: bytes) -> None:
        self.count += len(content)
        if self.count > self.max_bytes:
            raise UnreadableError(f"it decompresses to more than max_bytes, {self.max_bytes:,}")


class _Quotes(_Counted):
    """A stream that counts its quotes."""

    def look(self, content: bytes) -> None:
        self.count += content.count(b'"')


def _stream(path: Path, codec: str | None, max_bytes: int) -> IO[bytes]:
    if codec is None:
        return path.open("rb")
    return io.BufferedReader(_Limited(pa.CompressedInputStream(pa.OSFile(str(path)), codec), max_bytes), BLOCK_BYTES)


def _decompressed(stream: Callable[[], IO[bytes]], path: Path) -> Path:
    """Parquet has its footer at the end and cannot be streamed."""
    target = path.with_name(f"{path.name}.plain")
    with stream() as file, target.open("wb") as plain:
        while block := file.read(BLOCK_BYTES):
            plain.write(block)
    return target


@contextmanager
def _explained(kind: str, path: Path) -> Iterator[None]:
    import duckdb

    try:
        yield
    except UnreadableError:
        raise
    except (pa.ArrowException, OSError, UnicodeError, csv.Error, duckdb.Error) as error:
        with path.open("rb") as file:
            start = file.read(20)
        size = path.stat().st_size
        words = {".parquet": "Parquet", ".csv": "CSV", ".jsonl": "JSON lines"}[kind]
        raise UnreadableError(
            f"not a readable {words} file ({size:,} bytes, begins with {start!r}): {error}"
        ) from error
