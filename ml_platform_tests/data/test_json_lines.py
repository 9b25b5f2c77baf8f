"""JSON lines: what is JSON, and nothing more; every value beside its kind; one value a name."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.data import json_lines
from ml_platform.data.json_lines import open_json_lines
from ml_platform.data.opened import UnreadableError


def read(content: bytes | str) -> tuple[list[dict[str, tuple[Any, Any]]], int, list[tuple[str, str]]]:
    """Rows as (text, kind) by name, how many lines were counted, and the lines that are no rows."""
    encoded = content if isinstance(content, bytes) else content.encode()
    opened = open_json_lines(lambda: io.BytesIO(encoded), Path(__file__))
    rows, records, malformed = [], 0, []
    for batch in opened.batches(opened.schema.names):
        assert batch.json_kinds is not None
        texts, kinds = batch.rows.to_pylist(), batch.json_kinds.to_pylist()
        rows += [{name: (row[name], kind[name]) for name in row} for row, kind in zip(texts, kinds, strict=True)]
        records += batch.records
        malformed += [tuple(one) for one in batch.malformed]
    return rows, records, malformed


@pytest.mark.parametrize(
    ("written", "text", "kinds"),
    [
        ("5", "5", {"UBIGINT"}),
        ("-5", "-5", {"BIGINT"}),
        ("5.0", "5.0", {"DOUBLE"}),
        ("1e5", "1e5", {"DOUBLE"}),
        ("1E+2", "1E+2", {"DOUBLE"}),
        ("9007199254740993.0", "9007199254740993.0", {"DOUBLE"}),
        ("12345678901234567890123", "12345678901234567890123", {"DOUBLE"}),
        ("1e400", "1e400", {"DOUBLE"}),
        ("NaN", "NaN", {"DOUBLE"}),
        ("-Infinity", "-Infinity", {"DOUBLE"}),
        ('"5"', "5", {"VARCHAR"}),
        ('"a \\"b\\" \\u00e9\\n"', 'a "b" é\n', {"VARCHAR"}),
        ('"1e5 nan, ]"', "1e5 nan, ]", {"VARCHAR"}),
        ("true", "true", {"BOOLEAN"}),
        ("null", None, {"NULL"}),
        ('{"b": 1e5}', '{"b": "1e5"}', {"OBJECT"}),
    ],
)
def test_each_value_is_the_text_that_was_written_and_its_kind(written: str, text: str | None, kinds: set[str]) -> None:
    ([row], records, malformed) = read(f'{{"a": {written}, "z": 1}}\n')
    assert (row["a"][0], records, malformed) == (text, 1, [])
    assert row["a"][1] in kinds | ({None} if text is None else set())


@pytest.mark.parametrize(
    "line",
    [
        '{"a": 1,}', '{"a": [1,]}', '{"a": nan}', '{"a": inf}', '{"a": +1}', '{"a": .5}', '{"a": 5.}', '{"a": 01}',
        "{'a': 1}", '{"a": 0x10}', '{"a": 1_000}', '{"a": 1} {"a": 2}', '{"a": 1} // x', "[1]", "1", '"a"', "null",
        '{"a": "x\ty"}', '{"a"}', "{", '{"a": "\\ud83d"}',
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_named(line: str) -> None:
    rows, records, malformed = read(f'{{"a": 5}}\n{line}\n{{"a": 7}}\n')
    assert [row["a"][0] for row in rows] == ["5", "7"]
    assert (records, malformed) == (3, [(line, "is no JSON object")])


@pytest.mark.parametrize("line", ['{"amount": 5, "amount": 50}', '{"amount": 5, "b": 1e9, "\\u0061mount": 5}'])
def test_line_with_two_values_for_one_name_is_no_row(line: str) -> None:
    rows, records, malformed = read(f'{line}\n{{"amount": 7}}\n')
    assert ([row["amount"][0] for row in rows], records) == (["7"], 2)
    assert malformed == [(line, "has two values for one name")]


def test_names_of_other_objects_within_may_repeat() -> None:
    rows, _, malformed = read('{"a": 1, "b": {"a": 2}}\n')
    assert (rows[0]["a"][0], malformed) == ("1", [])


def test_an_array_is_not_taken_for_lines() -> None:
    with pytest.raises(UnreadableError, match="it is one JSON array; JSON lines have one object a line"):
        read('\n[{"a": 1},\n{"a": 2}]\n')


def test_blank_lines_and_a_byte_order_mark_are_no_lines() -> None:
    rows, records, _ = read(b'\xef\xbb\xbf\r\n{"a": 1}\r\n  \n\n{"a": 2}')
    assert ([row["a"][0] for row in rows], records) == (["1", "2"], 2)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", 'c"d', "é"]), scalars, min_size=1), min_size=1, max_size=6))
def test_what_a_writer_writes_is_read_back(rows: list[dict[str, Any]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "BLOCK_BYTES", 32)
        found, records, malformed = read("".join(f"{json.dumps(row)}\n" for row in rows))
    assert (records, malformed) == (len(rows), [])
    for row, values in zip(rows, found, strict=True):
        for name, (text, kind) in values.items():
            value = row.get(name)
            if isinstance(value, str):
                assert (text, kind) == (value, "VARCHAR")
            elif value is None:
                assert (text, kind) in [(None, None), (None, "NULL")]
            else:
                assert text is not None
                assert json.loads(text) == value


def test_odd_lines_keep_their_places_among_the_others() -> None:
    lines = [f'{{"a": {n}e0}}' if n % 3 else f'{{"a": {n}}}' for n in range(20)]
    lines[7], lines[8] = '{"a": 1,}', "what?"
    rows, records, malformed = read("\n".join(lines))
    wanted = [f"{n}e0" if n % 3 else str(n) for n in range(20) if n not in (7, 8)]
    assert [row["a"][0] for row in rows] == wanted
    assert (records, [text for text, _ in malformed]) == (20, ['{"a": 1,}', "what?"])


def test_text_that_is_not_utf8_is_unreadable() -> None:
    opened = open_json_lines(lambda: io.BytesIO(b'{"a": 1}\n'), Path(__file__))
    assert opened.schema == pa.schema([("a", pa.string())])
    with pytest.raises((UnreadableError, pa.ArrowInvalid)):
        read(b'{"a": "\xff"}\n')
