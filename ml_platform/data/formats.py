# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# The stubs of PyArrow know fewer methods than the library has.
"""Landed files as batches of rows: Parquet, CSV and JSON lines, plain or compressed with gzip or zstd.

Every format is read in bounded memory. Parquet has types; the columns of text formats are text, for the contract to convert.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml_platform.data import csv_records, json_lines
from ml_platform.data.landing import file_format
from ml_platform.data.opened import BATCH_ROWS, BLOCK_BYTES, Batch, Opened, UnreadableError, check_names, explained

__all__ = ["BATCH_ROWS", "Opened", "UnreadableError", "open_file"]

PARQUET = "Parquet"
_PARQUET_BEGINS = b"PAR1"
_INT96 = "INT96"


def open_file(name: str, path: Path, max_bytes: int) -> Opened:
    """Open a local file that has the format in which `name` ends.

    Raises:
        UnreadableError: if it cannot be opened, or is larger than `max_bytes` after decompression; `batches` likewise.
    """
    found = file_format(name)
    assert found, name
    format_, codec = found
    with explained({"csv": csv_records.FORMAT, "jsonl": json_lines.FORMAT}.get(format_, PARQUET), path):
        if path.stat().st_size > max_bytes:
            raise UnreadableError(f"{path.stat().st_size:,} bytes are more than max_bytes, {max_bytes:,}")
        if format_ == "parquet" and _begins_as_parquet(path):
            codec = None  # the name tells of the compression within
        stream = partial(_stream, path, codec, max_bytes)
        if format_ == "parquet":
            return _open_parquet(_decompressed(stream, path) if codec else path, max_bytes)
        return (csv_records.open_csv if format_ == "csv" else json_lines.open_json_lines)(stream, path)


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _open_parquet(path: Path, max_bytes: int) -> Opened:
    with pq.ParquetFile(path, coerce_int96_timestamp_unit="us") as file:
        metadata, schema = file.metadata, file.schema_arrow.remove_metadata()
        leaves = [file.schema.column(number) for number in range(len(file.schema.names))]
    size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    if size > max_bytes:
        raise UnreadableError(f"{size:,} bytes of values are more than max_bytes, {max_bytes:,}")
    check_names(schema.names)
    int96 = {leaf.path for leaf in leaves if leaf.physical_type == _INT96} & {*schema.names}

    def read(columns: Sequence[str], unit: str) -> Iterator[pa.RecordBatch]:
        # Without pre-buffering, memory does not grow with the size of row groups.
        options = {"pre_buffer": False, "buffer_size": BLOCK_BYTES, "coerce_int96_timestamp_unit": unit}
        with pq.ParquetFile(path, **options) as file:
            yield from file.iter_batches(BATCH_ROWS, columns=list(columns))

    def batches(columns: Sequence[str]) -> Iterator[Batch]:
        with explained(PARQUET, path):
            yield Batch(schema.empty_table().select(list(columns)), metadata.num_rows)  # the footer's count
            old_times = [name for name in columns if name in int96]
            nanoseconds = _Lengths(read(old_times, "ns")) if old_times else None
            for batch in read(columns, "us"):
                batch.validate(full=True)  # also finds text that is not UTF-8
                rows = pa.Table.from_batches([batch]).select(list(columns))
                if nanoseconds is not None:
                    rows = _with_all_digits(rows, nanoseconds.next(rows.num_rows))
                yield Batch(rows, 0)

    return Opened(schema, False, False, batches)


class _Lengths:
    """Batches as tables of other lengths: Arrow ends a batch where the dictionary of any column ends."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self.batches, self.rest = batches, pa.table({})

    def next(self, rows: int) -> pa.Table:
        while self.rest.num_rows < rows:
            more = pa.Table.from_batches([next(self.batches)])
            self.rest = pa.concat_tables([self.rest, more]) if self.rest.num_rows else more
        found, self.rest = self.rest.slice(0, rows), self.rest.slice(rows)
        return found


def _with_all_digits(rows: pa.Table, nanoseconds: pa.Table) -> pa.Table:
    """Times of Spark's old type, as text where they have more digits than microseconds.

    As nanoseconds they reach from 1677 to 2262 and are wrapped round beyond; as microseconds they are cut off.
    """
    for name in nanoseconds.column_names:
        micros, nanos = (pc.fill_null(one[name].cast(pa.int64()), 0).to_numpy() for one in (rows, nanoseconds))
        with np.errstate(over="ignore"):
            cut_off = nanos - micros * 1_000  # both wrap round alike
        if cut_off.any():
            digits = pa.array([f"{number:03d}" for number in cut_off])
            text = pc.binary_join_element_wise(rows[name].cast(pa.string()), digits, "")
            rows = rows.set_column(rows.schema.get_field_index(name), name, text)
    return rows


# --- compression ------------------------------------------------------------------------------------------------------


def _stream(path: Path, codec: str | None, max_bytes: int) -> IO[bytes]:
    if codec is None:
        return path.open("rb")
    return io.BufferedReader(_Limited(pa.CompressedInputStream(pa.OSFile(str(path)), codec), max_bytes), BLOCK_BYTES)


class _Limited(io.RawIOBase):
    """A stream that refuses to give more than so many bytes: a small file may decompress to a very large one."""

    def __init__(self, stream: Any, max_bytes: int) -> None:
        self.stream, self.max_bytes, self.count = stream, max_bytes, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self.stream.read(len(buffer))
        self.count += len(content)
        if self.count > self.max_bytes:
            raise UnreadableError(f"it decompresses to more than max_bytes, {self.max_bytes:,}")
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self.stream.close()
        super().close()


def _decompressed(stream: Callable[[], IO[bytes]], path: Path) -> Path:
    """Parquet has its footer at the end and cannot be streamed."""
    target = path.with_name(f"{path.name}.plain")
    with stream() as file, target.open("wb") as plain:
        while block := file.read(BLOCK_BYTES):
            plain.write(block)
    return target


def _begins_as_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_PARQUET_BEGINS)) == _PARQUET_BEGINS
