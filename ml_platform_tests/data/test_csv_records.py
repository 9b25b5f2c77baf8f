"""CSV is read strictly: every record is a row, is named as none, or the file is refused. None is swallowed."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.data import csv_records
from ml_platform.data.csv_records import open_csv
from ml_platform.data.opened import UnreadableError

Record = list[str | None]


def read(content: bytes) -> tuple[list[Record], int, list[str]]:
    """Rows, how many records were counted, and what became of those that are no rows."""
    opened = open_csv(lambda: io.BytesIO(content), Path(__file__))
    batches = list(opened.batches(opened.schema.names))
    rows = [list(row.values()) for batch in batches for row in batch.rows.to_pylist()]
    return rows, sum(batch.records for batch in batches), [one.problem for batch in batches for one in batch.malformed]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_records, "BLOCK_BYTES", 7)


# --- quotes -----------------------------------------------------------------------------------------------------------

PIPES = b'id,kind,note,size\n1,t,"12 pipe,5\n2,t,plain,6\n3,t,plain,7\n4,t,"14 pipe,7\n5,t,plain,8\n'


def test_two_unclosed_inch_marks_do_not_make_one_row_of_four() -> None:
    with pytest.raises(UnreadableError, match='line 2: a quoted field is not closed .*1,t,"12 pipe,5'):
        read(PIPES)


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (b'1,"a\n2,b\n', 2),
        (b'1,a\n2,"b', 3),
        (b'1,"a" \n', 2),
        (b'1,"a"b\n2,c\n', 2),
        (b'1,a\n2,"say "hi" now"\n', 3),
        (b'1,"a""\n2,b\n', 2),
        (b'"\n', 2),
        (b'1,a\n2,b\n"', 4),
        (b'1,"a"\r\n2,"b\r\n3,c"x\r\n', 3),
    ],
)
def test_quote_that_closes_nowhere_or_in_the_middle_of_a_field_is_named_with_its_line(lines: bytes, line: int) -> None:
    with pytest.raises(UnreadableError, match=f"^line {line}: a quoted field is not closed"):
        read(b"a,b\n" + lines)


@pytest.mark.parametrize("header", [b'"a"x,b\n', b'"a,b\n1,2\n', b'a,"b\n'])
def test_quotes_of_the_header_are_held_to_the_same(header: bytes) -> None:
    with pytest.raises(UnreadableError, match="^line 1: a quoted field is not closed"):
        read(header + b"1,2\n")


@pytest.mark.parametrize(
    ("line", "values"),
    [
        (b'1,14" pipe', ["1", '14" pipe']),
        (b'1, "a"', ["1", ' "a"']),
        (b'1,a"b"c', ["1", 'a"b"c']),
        (b'1,"a ""b"" c"', ["1", 'a "b" c']),
        (b'1,""""', ["1", '"']),
        (b'1,""', ["1", ""]),
        (b"1,", ["1", None]),
        (b'1,"a\nb"', ["1", "a\nb"]),
        (b'1,"a\r\n\r\nb"', ["1", "a\r\n\r\nb"]),
        (b'"1","a, b\nc, d"', ["1", "a, b\nc, d"]),
    ],
)
def test_quotes_that_are_where_they_may_be(line: bytes, values: Record) -> None:
    assert read(b"a,b\n" + line + b"\n9,z\n") == ([values, ["9", "z"]], 2, [])
    assert read(b"a,b\n9,z\n" + line) == ([["9", "z"], values], 2, [])


def test_field_over_lines_that_look_like_records_is_taken_out_and_the_others_stay() -> None:
    """The second inch mark ends its field, so that nothing is wrong with the quotes."""
    lines = b'id,kind,note,size\n0,t,x,1\n1,t,"12 pipe,5\n2,t,x,6\n3,t,pipe 14",7\n4,t,x,8\n'
    rows, records, problems = read(lines)
    assert [row[0] for row in rows] == ["0", "4"]
    assert records == 3
    assert problems == ["in quotes goes on over 3 lines that look like records: is a quote not closed?"]


def test_lines_of_other_lengths_are_named() -> None:
    assert read(b'a,b\n1,2\n3\n4,5,6\n"7","8"\n') == (
        [["1", "2"], ["7", "8"]], 4, ["has 1 fields, not 2", "has 3 fields, not 2"],
    )  # fmt: skip


def test_quotes_and_lines_may_lie_across_blocks(small_blocks: None) -> None:
    rows = [[str(n), f'say ""{n}"",\nthen 14" more'.replace('""', '"')] for n in range(50)]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["number", "words"], *rows])
    assert read(text.getvalue().encode()) == (rows, 50, [])


def test_line_that_never_ends_is_refused_before_it_fills_the_memory(
    small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_records, "LINE_BYTES", 50)
    with pytest.raises(UnreadableError, match="^line 3 is longer than 50 bytes: '\"x"):
        read(b'a,b\n1,2\n"' + b"x" * 1_000)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_carriage_return_alone_ends_no_line_of_a_file_whose_lines_end_otherwise(small_blocks: None, end: bytes) -> None:
    with pytest.raises(UnreadableError, match="^line 3: a carriage return without a line feed, outside of quotes"):
        read(end.join([b"a,b", b"1,2", b"3,one\rtwo", b"4,5", b""]))


def test_lines_may_end_by_turns_with_and_without_a_carriage_return(small_blocks: None) -> None:
    assert read(b'a,b\n1,2\r\n3,"x\ry"\n4,5\r\n') == ([["1", "2"], ["3", "x\ry"], ["4", "5"]], 3, [])
    assert read(b"a,b\r1,2\r3,4\r") == ([["1", "2"], ["3", "4"]], 2, [])


@pytest.mark.parametrize("content", [b"", b"\n\r\n", b"\xef\xbb\xbf"])
def test_file_without_a_header(content: bytes) -> None:
    with pytest.raises(UnreadableError, match="there is no header line"):
        read(content)


@pytest.mark.parametrize("content", [b"a,b", b"a,b\n", b"\xef\xbb\xbfa,b\r\n\r\n"])
def test_file_with_nothing_but_a_header(content: bytes) -> None:
    assert read(content) == ([], 0, [])


def test_header_in_quotes_behind_a_byte_order_mark() -> None:
    content = '\ufeff"a","the ""b"""\r\n1,2\r\n'.encode()
    opened = open_csv(lambda: io.BytesIO(content), Path(__file__))
    assert opened.schema.names == ["a", 'the "b"']
    assert read(content) == ([["1", "2"]], 1, [])


# --- laws -------------------------------------------------------------------------------------------------------------


def strictly(text: str) -> Iterator[list[str | None]] | None:
    """The grammar once more, a character at a time; None if a quote is out of place."""
    records: list[list[str | None]] = []
    record: list[str | None] = []
    position, at_start = 0, True
    while position < len(text):
        character = text[position]
        if at_start and character == '"':
            position, value = position + 1, ""
            while True:
                if position >= len(text):
                    return None
                if text[position] == '"' and text[position + 1 : position + 2] == '"':
                    position, value = position + 2, value + '"'
                elif text[position] == '"':
                    position += 1
                    break
                else:
                    position, value = position + 1, value + text[position]
            if text[position : position + 1] not in ("", ",", "\n", "\r"):
                return None
            record.append(value)
        elif character in "\r\n" and at_start and not record:
            position += 1
            continue
        else:
            end = min((text.find(c, position) for c in ",\r\n" if text.find(c, position) >= 0), default=len(text))
            record.append(text[position:end] or None)
            position = end
        if position < len(text) and text[position] == ",":
            position, at_start = position + 1, True
            if position == len(text):
                record.append(None)
        else:
            position += 1
            at_start = True
            records.append(record)
            record = []
    if record:
        records.append(record)
    return iter(records)


def has_lone_return(text: str) -> bool:
    outside = re.sub(r'(?<![^,\r\n])"(?:[^"]|"")*"', "q", text.lstrip("\r\n"))  # which end the header
    return re.search("\r(?!\n|\\Z)", outside) is not None


@given(st.text(alphabet='a,"\n\r 1', max_size=60), st.sampled_from([3, 7, 1 << 22]))
def test_any_text_is_read_as_the_grammar_says_or_refused(text: str, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_records, "BLOCK_BYTES", block)
        expected = strictly(text)
        if expected is None or has_lone_return(text):
            with pytest.raises(UnreadableError):
                read(b"x,y\n" + text.encode())
            return
        records = list(expected)
        rows, counted, problems = read(b"x,y\n" + text.encode())
        assert counted == len(records) == len(rows) + len(problems)
        others = [record for record in records if len(record) == 2]
        assert all(row in others for row in rows)
        assert len(others) - len(rows) <= sum("look like records" in problem for problem in problems)


fields = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)


@given(
    st.lists(st.tuples(fields, fields, fields), min_size=1, max_size=8),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)
def test_what_a_writer_writes_is_read_back(
    table: Sequence[tuple[str, ...]], quoting: Any, end: str, with_mark: bool
) -> None:
    if (
        quoting == csv.QUOTE_MINIMAL and end != "\r\n"
    ):  # Python's writer then leaves the other line break without quotes
        table = [tuple(re.sub("[\r\n]", " ", value) for value in record) for record in table]
    text = io.StringIO(newline="")
    csv.writer(text, quoting=quoting, lineterminator=end).writerows([["a", "b", "c"], *table])
    rows, counted, problems = read(b"\xef\xbb\xbf" * with_mark + text.getvalue().encode())
    assert counted == len(table)
    if not problems:
        empty = "" if quoting == csv.QUOTE_ALL else None
        assert rows == [[value or empty for value in record] for record in table]


def test_empty_field_that_the_file_ends_with_is_missing_whatever_was_quoted_before_it() -> None:
    assert read(b'x,y\n"",') == read(b'x,y\n"",\n') == ([["", None]], 1, [])
