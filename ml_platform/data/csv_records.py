# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# The stubs of PyArrow know fewer methods than the library has.
"""CSV: a header and records of fields between commas, as in RFC 4180, read strictly.

A quote opens a field only after a comma or at a line's start, and closes it only before a comma or a line's end; anywhere
else in a field it is a character. Within quotes two of them stand for one. Where a file is not so, a parser that goes on
regardless makes one row of many lines: such a file is refused. Records are found and counted here, and parsed by Arrow.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from ml_platform.data.opened import (
    BLOCK_BYTES,
    LINE_BYTES,
    Batch,
    Malformed,
    Opened,
    Stream,
    UnreadableError,
    check_names,
    explained,
    text_schema,
)

FORMAT = "CSV"
_BOM = b"\xef\xbb\xbf"
_QUOTE, _RETURN, _LINE = b'"\r\n'
_BOUNDS = np.isin(np.arange(256), list(b',\r\n"'))  # what may be beside a quote; another quote makes it a doubled one
_FIELD = rb'(?:"(?:[^"]++|"")*+"(?=[,\r\n]|\Z)|(?!")[^,\r\n]*+)'
_RECORD = re.compile(rb"(%b(?:,%b)*+)(?:[\r\n]++|\Z)" % (_FIELD, _FIELD))
_BETWEEN_FIELDS = re.compile(rb",(?![ \t])")  # a blank after it makes a comma one of a sentence
_EDGE = np.frombuffer(b"\n", np.uint8)
_SHOWN = 80


class Stretch(NamedTuple):
    """Whole records: their bytes, how many there are, and those that are left out of the bytes because they are no rows."""

    content: bytes
    records: int
    malformed: tuple[Malformed, ...] = ()


def open_csv(stream: Stream, path: Path) -> Opened:
    with stream() as file:
        names, _, _ = _header(file)
    check_names(names)

    def batches(columns: Sequence[str]) -> Iterator[Batch]:
        with explained(FORMAT, path), stream() as file:
            _, line_end, rest = _header(file)
            for stretch in stretches(file, rest, len(names), line_end):
                yield _parsed(stretch, names, columns)

    return Opened(text_schema(names), True, False, batches)


def _header(file: IO[bytes]) -> tuple[list[str], bytes, bytes]:
    """The names of the columns, what ends their line, and what was read beyond them."""
    read, found = b"", None
    while len(read) <= LINE_BYTES and (found is None or found.end() == len(read)):
        block = file.read(BLOCK_BYTES)
        if not block:
            break
        read = (read + block).removeprefix(_BOM)
        read = read.lstrip(b"\r\n")
        found = _RECORD.match(read)
    if not read:
        raise UnreadableError("there is no header line")
    if found is None:
        raise UnreadableError(_unclosed(1, read))
    names = next(csv.reader(io.StringIO(found[1].decode(), newline=""), strict=True))
    return names, found[0][len(found[1]) :], read[found.end() :]


def stretches(file: IO[bytes], rest: bytes, fields: int, line_end: bytes = b"\n") -> Iterator[Stretch]:
    """The records after the header, of so many fields, in stretches.

    Raises:
        UnreadableError: if a quoted field is not closed, or a carriage return stands alone where lines end otherwise.
    """
    line, ended = 2, False
    while not ended:
        block = file.read(BLOCK_BYTES)
        ended = not block
        content = rest + block
        ends, within = _breaks(content, ended, line)
        if b"\r" in content:
            ends = _without_open_end(content, ended, ends)
            if b"\n" in line_end:
                _refuse_lone_returns(content, ends, line)
        end = len(content) if ended else int(ends[-1]) + 1 if len(ends) else 0
        yield _stretch(content[:end], ends, within[within < end], fields)
        line += content.count(b"\n", 0, end)
        rest = content[end:]
        if len(rest) > LINE_BYTES:
            raise UnreadableError(f"line {line} is longer than {LINE_BYTES:,} bytes: {_shown(rest)}")


def _breaks(content: bytes, ended: bool, line: int) -> tuple[np.ndarray, np.ndarray]:
    """The line breaks that end records, and those within quotes; what comes after the last whole record may be left out."""
    octets = np.frombuffer(content, np.uint8)
    is_break = octets == _LINE
    breaks = np.flatnonzero(is_break | (octets == _RETURN) if b"\r" in content else is_break)
    if b'"' not in content:
        return breaks, breaks[:0]
    quotes = np.flatnonzero(octets == _QUOTE)
    padded = np.concatenate([_EDGE, octets, _EDGE])
    # Every second quote opens a field, or is the second one of a doubled quote.
    is_strict = _BOUNDS[padded[quotes[::2]]].all() and _BOUNDS[padded[quotes[1::2] + 2]].all()
    if is_strict and not (ended and len(quotes) % 2):
        is_within = np.searchsorted(quotes, breaks) % 2 == 1
        return breaks[~is_within], breaks[is_within]
    spans = np.array(list(_record_by_record(content, ended, line)), np.int64).reshape(-1, 2)
    breaks = breaks[breaks < (spans[-1, 1] if len(spans) else 0)]
    is_end = breaks >= spans[np.searchsorted(spans[:, 1], breaks, "right"), 0]
    return breaks[is_end], breaks[~is_end]


def _without_open_end(content: bytes, ended: bool, ends: np.ndarray) -> np.ndarray:
    """Leave a carriage return at the end for later: a line feed may follow."""
    is_open = len(ends) and not ended and ends[-1] == len(content) - 1 and content[-1] == _RETURN
    return ends[:-1] if is_open else ends


def _refuse_lone_returns(content: bytes, ends: np.ndarray, line: int) -> None:
    """A writer that ends lines with a line feed need not have quoted a field with a carriage return; a parser ends the row."""
    octets = np.frombuffer(content + b"\n", np.uint8)
    lone = ends[(octets[ends] == _RETURN) & (octets[ends + 1] != _LINE)]
    if len(lone):
        at = int(lone[0])
        start = content.rfind(b"\n", 0, at) + 1
        problem = f"line {line + content.count(bytes([_LINE]), 0, at)}: a carriage return without a line feed, outside of quotes"
        raise UnreadableError(f"{problem}: {content[start : at + _SHOWN].decode(errors='replace')!r}")


def _record_by_record(content: bytes, ended: bool, line: int) -> Iterator[tuple[int, int]]:
    """Where each whole record ends, and where the line breaks after it do. For files with quotes that are characters."""
    position = 0
    while position < len(content):
        found = _RECORD.match(content, position)
        if found is None and ended:
            raise UnreadableError(_unclosed(line + content.count(b"\n", 0, position), content[position:]))
        if found is None or not (ended or found.end() > found.end(1)):
            return
        yield found.end(1), found.end()
        position = found.end()


def _stretch(content: bytes, ends: np.ndarray, within: np.ndarray, fields: int) -> Stretch:
    """Count the records, and take out those that look like several. Lines without a character are none."""
    bounds = np.concatenate([[-1], ends, [len(content)]])
    records = int((np.diff(bounds) > 1).sum())
    malformed, kept, position = [], [], 0
    for number in np.unique(np.searchsorted(ends, within)):
        start, stop = int(bounds[number]) + 1, int(bounds[number + 1])
        lines = [line for line in re.split(rb"[\r\n]+", content[start:stop]) if line]
        if all(len(_BETWEEN_FIELDS.findall(line)) == fields - 1 for line in (lines[0], lines[-1])) and fields > 1:
            problem = f"in quotes goes on over {len(lines)} lines that look like records: is a quote not closed?"
            malformed.append(Malformed(content[start:stop].decode(errors="replace"), problem))
            kept.append(content[position:start])
            position = stop
    return Stretch(b"".join([*kept, content[position:]]), records, tuple(malformed))


def _parsed(stretch: Stretch, names: Sequence[str], columns: Sequence[str]) -> Batch:
    malformed = list(stretch.malformed)

    def invalid(row: Any) -> str:
        malformed.append(Malformed(row.text, f"has {row.actual_columns} fields, not {row.expected_columns}"))
        return "skip"

    if stretch.records == len(malformed):
        return Batch(text_schema(columns).empty_table(), stretch.records, malformed)
    # Arrow takes an empty field that the file ends with for one in quotes if a field before it was.
    content = stretch.content if stretch.content.endswith((b"\n", b"\r")) else stretch.content + b"\n"
    rows = pacsv.read_csv(
        pa.BufferReader(content),
        read_options=pacsv.ReadOptions(column_names=list(names), block_size=len(content) + 1),
        parse_options=pacsv.ParseOptions(newlines_in_values=True, invalid_row_handler=invalid),
        convert_options=pacsv.ConvertOptions(
            include_columns=list(columns),
            column_types={name: pa.string() for name in columns},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    return Batch(rows, stretch.records, malformed)


def _unclosed(line: int, content: bytes) -> str:
    return f"line {line}: a quoted field is not closed before a comma or the line's end: {_shown(content)}"


def _shown(content: bytes) -> str:
    first = re.split(rb"[\r\n]", content, maxsplit=1)[0]
    return repr(first[:_SHOWN].decode(errors="replace"))
