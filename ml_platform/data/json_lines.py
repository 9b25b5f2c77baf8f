# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# The stubs of PyArrow know fewer methods than the library has.
"""JSON lines: one JSON object a line, each value as text beside what kind of value it is.

DuckDB reads them. It takes more for JSON than JSON is, and gives numbers as it would write them itself; lines where that could
make a difference are read by Python's parser, which keeps every number as it is written.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_platform.data.opened import (
    BLOCK_BYTES,
    LINE_BYTES,
    Batch,
    Malformed,
    Opened,
    Stream,
    UnreadableError,
    explained,
    text_schema,
)

FORMAT = "JSON lines"
_BOM = b"\xef\xbb\xbf"
_NO_OBJECT, _TWICE = "is no JSON object", "has two values for one name"
# Outside of strings: exponents, long numbers, NaN, and a comma before a bracket.
_ODD = r"[0-9.][eE][+-]?[0-9]|[0-9]{16}|[nN][aA][nN]|[iI][nN][fF]|,\s*[\]}]"
_STRING = r'"([^"\\]|\\.)*"'
_IS_OBJECT = "CASE WHEN json_valid(line) THEN json_type(line) = 'OBJECT' ELSE false END"
_IS_NONE = f"CASE WHEN NOT {_IS_OBJECT} THEN '{_NO_OBJECT}' END"
_IS_NONE_OR_TWICE = f"""CASE WHEN NOT {_IS_OBJECT} THEN '{_NO_OBJECT}'
    WHEN len(json_keys(line)) <> len(list_distinct(json_keys(line))) THEN '{_TWICE}' END"""


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


_EXACT = json.JSONDecoder(parse_int=_Number, parse_float=_Number, parse_constant=_Number)
_KINDS = {_Number: "DOUBLE", str: "VARCHAR", bool: "BOOLEAN", dict: "OBJECT", list: "ARRAY"}


def open_json_lines(stream: Stream, path: Path) -> Opened:
    import duckdb

    keys: set[tuple[str, ...]] = set()
    with stream() as file, duckdb.connect() as connection:  # any line may have a column that none before it had
        for lines in _blocks(file):
            connection.register("lines", pa.table({"line": lines}))
            found = connection.sql(f"SELECT DISTINCT json_keys(line) FROM lines WHERE {_IS_OBJECT}").fetchall()
            keys |= {tuple(of_line) for (of_line,) in found}
    names = {name for of_line in keys for name in of_line}
    problem = _IS_NONE_OR_TWICE if any(len({*of_line}) < len(of_line) for of_line in keys) else _IS_NONE
    if not names:
        raise UnreadableError("there are no lines with JSON objects")

    def batches(columns: Sequence[str]) -> Iterator[Batch]:
        with explained(FORMAT, path), stream() as file, duckdb.connect() as connection:
            for lines in _blocks(file):
                objects, exact, malformed = _objects(connection, lines, problem)
                texts, kinds = _values(connection, objects, exact, columns)
                yield Batch(texts, len(lines), malformed, kinds)

    return Opened(text_schema(sorted(names)), True, True, batches)


def _blocks(file: IO[bytes]) -> Iterator[pa.Array]:
    """The lines that are not blank."""
    rest = file.read(len(_BOM)).removeprefix(_BOM)
    is_first = True
    while block := file.read(BLOCK_BYTES):
        if is_first and (rest + block).lstrip()[:1] == b"[":
            raise UnreadableError(
                "it is one JSON array; JSON lines have one object a line, without commas between them"
            )
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > LINE_BYTES:
            raise UnreadableError(f"a line is longer than {LINE_BYTES:,} bytes")
        if kept := [line for line in lines if line.strip()]:
            yield pa.array(kept, pa.binary()).cast(pa.string())
        is_first = False
    if rest.strip():
        yield pa.array([rest], pa.binary()).cast(pa.string())


def _objects(
    connection: Any, lines: pa.Array, problem: str
) -> tuple[pa.Array, dict[int, dict[str, Any]], list[Malformed]]:
    """The lines that are JSON objects, what Python makes of the odd ones among them, and the lines that are none."""
    connection.register("lines", pa.table({"line": lines}))
    found = connection.sql(f"SELECT {problem} FROM lines").to_arrow_table()[0].combine_chunks()
    problems = dict(_at(found, pc.is_valid(found)))
    odd = pc.match_substring_regex(lines, _ODD)
    if pc.any(odd).as_py():
        bare = pc.replace_substring_regex(lines.filter(odd), _STRING, '""')
        odd = pc.replace_with_mask(odd, odd, pc.match_substring_regex(bare, _ODD))
    exact = {}
    for row, line in _at(lines, odd):
        try:
            exact[row] = _EXACT.decode(line)
        except (ValueError, RecursionError):
            problems.setdefault(row, _NO_OBJECT)
    if not exact and not problems:
        return lines, {}, []
    is_object = np.ones(len(lines), bool)
    is_object[[*problems]] = False
    number = np.cumsum(is_object) - 1
    malformed = [Malformed(lines[row].as_py(), problem) for row, problem in sorted(problems.items())]
    exact = {int(number[row]): values for row, values in exact.items() if is_object[row]}
    return lines.filter(pa.array(is_object)), exact, malformed


def _at(column: pa.Array, where: pa.Array) -> Iterator[tuple[int, Any]]:
    """Positions and values of some rows."""
    rows = np.flatnonzero(where.to_numpy(zero_copy_only=False))
    return zip(rows.tolist(), column.take(pa.array(rows)).to_pylist(), strict=True)


def _values(
    connection: Any, objects: pa.Array, exact: Mapping[int, Mapping[str, Any]], columns: Sequence[str]
) -> tuple[pa.Table, pa.Table]:
    """The values by column, as text, and what kinds of values they are."""
    connection.register("objects", pa.table({"line": objects}))
    paths = f"[{', '.join(map(_path, columns))}]"
    both = [f"{each}[{number}]" for each in ("texts", "kinds") for number in range(1, len(columns) + 1)]
    query = f"SELECT json_extract_string(line, {paths}) AS texts, json_type(line, {paths}) AS kinds FROM objects"
    found = connection.sql(f"SELECT {', '.join(both)} FROM ({query})").to_arrow_table()
    arrays = [column.cast(pa.string()).combine_chunks() for column in found.columns]
    if exact:
        mask = np.zeros(len(objects), bool)
        mask[[*exact]] = True
        values = [[row.get(name) for row in exact.values()] for name in columns]
        written = [*([_as_text(one) for one in column] for column in values)]
        kinds = [*([_KINDS.get(type(one)) for one in column] for column in values)]
        news = [pa.array(column, pa.string()) for column in (*written, *kinds)]
        arrays = [pc.replace_with_mask(old, pa.array(mask), new) for old, new in zip(arrays, news, strict=True)]
    schema = text_schema(columns)
    return pa.table(arrays[: len(columns)], schema=schema), pa.table(arrays[len(columns) :], schema=schema)


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _path(name: str) -> str:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"').replace("'", "''")
    return f"'$.\"{quoted}\"'"
