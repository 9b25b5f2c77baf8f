"""Days of random tables, written in every format with the habits of odd writers: what comes back is equal, or refused; and
whatever was there is written, set aside, discarded or refused, by the count of somebody else."""

import csv
import gzip
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core.spec import PolicySpec, SourceSpec
from ml_platform.core.values import TYPES, ColumnType, of_json, of_text
from ml_platform.data.ingest import Ingested, LandedFile, LookBack, ingest
from ml_platform.data.landing import LandedObject
from ml_platform.data.quarantine import Decision
from ml_platform_tests.selection import examples

DAY, MIDNIGHT = date(2024, 3, 1), datetime(2024, 3, 1, tzinfo=UTC)
Rows = list[dict[str, Any]]
BROKEN = object()  # stands for a row that is none, or cannot be one

WHOLE = {"int8": 2**7, "int16": 2**15, "int32": 2**31, "int64": 2**63}
values: dict[ColumnType, st.SearchStrategy[Any]] = {
    **{type_: st.integers(-limit, limit - 1) for type_, limit in WHOLE.items()},  # type: ignore[dict-item]
    "float64": st.floats(allow_infinity=False) | st.integers(-(2**53), 2**53).map(float),
    "float32": st.floats(width=32, allow_infinity=False),
    "bool": st.booleans(),
    "string": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=10),
    "timestamp": st.datetimes(timezones=st.just(UTC)),
}
columns = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(TYPES), min_size=1)


@dataclass(frozen=True)
class Written:
    """A file, and what of its rows has to come back: by id the values; None where the row is none or has to be refused."""

    ending: str
    content: bytes
    rows: dict[int, tuple[Any, ...] | None]


# --- habits -----------------------------------------------------------------------------------------------------------


def text_of(draw: Callable[..., Any], type_: ColumnType, value: Any) -> str:
    """A value as some writer writes it."""
    if value is None:
        return ""
    if type_ == "bool":
        return str(draw(st.sampled_from([("false", "true"), ("False", "True"), ("0", "1"), ("F", "T")]))[value])
    if type_ == "timestamp":
        text = value.replace(tzinfo=None).isoformat(draw(st.sampled_from(["T", " "])))
        return text + draw(st.sampled_from(["", "Z", " UTC", "+00:00", "+0000"]))
    if type_ in WHOLE:
        return draw(st.sampled_from(["{}", "{}", "{}.0", " {}", "+{}", "0{}"])).format(value)
    return repr(value) if type_ != "string" else value


def outcome(type_: ColumnType, door: Callable[[ColumnType, Any], Any], written: Any) -> Any:
    """What the rule for one value says; BROKEN if it is refused, or is infinite."""
    try:
        found = door(type_, written)
    except ValueError:
        return BROKEN
    return BROKEN if isinstance(found, float) and abs(found) == float("inf") else found


def expected(outcomes: Sequence[Any]) -> tuple[Any, ...] | None:
    return None if any(one is BROKEN for one in outcomes) else tuple(outcomes)


@st.composite
def in_csv(draw: Any, types: dict[str, ColumnType], rows: Rows) -> Written:
    names = draw(st.permutations(["id", "at", *types, *(["more"] if draw(st.booleans()) else [])]))
    quoting = draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    lines, found = [], {}
    for row in rows:
        texts = {name: text_of(draw, type_, row[name]) for name, type_ in types.items()}
        if end == "\n" and quoting == csv.QUOTE_MINIMAL:  # Python's writer then leaves a carriage return without quotes
            texts = {name: text.replace("\r", " ") for name, text in texts.items()}
        if draw(st.integers(0, 9)) == 0:
            texts[draw(st.sampled_from([*types]))] = draw(st.sampled_from(["0x10", "12_5", "1,000", "what?", "1e400"]))
        empty = None if quoting == csv.QUOTE_MINIMAL else ""
        cells = [text or empty if types[name] == "string" else text for name, text in texts.items()]
        results = [
            None if cell is None else outcome(types[name], of_text, cell)
            for name, cell in zip(types, cells, strict=True)
        ]
        found[row["id"]] = expected(results)
        full = {"id": str(row["id"]), "at": row["at"].isoformat(), "more": 'x "y", z', **texts}
        lines.append([full[name] for name in names])
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=quoting, lineterminator=end)
    writer.writerow(names)
    for number, line in enumerate(lines):
        if draw(st.integers(0, 9)) == 0:
            text.write(end)  # an empty line
        if draw(st.integers(0, 9)) == 0:
            writer.writerow([*line, "one too many"])
            found[rows[number]["id"]] = None
        else:
            writer.writerow(line)
    content = b"\xef\xbb\xbf" * draw(st.booleans()) + text.getvalue().encode()
    return draw(
        compressed("csv", content.removesuffix(end.encode()) if draw(st.booleans()) and lines else content, found)
    )


@st.composite
def in_json(draw: Any, types: dict[str, ColumnType], rows: Rows) -> Written:
    lines, found = [], {}
    for row in rows:
        names = draw(st.permutations(["id", "at", *types]))
        texts = {"id": str(row["id"]), "at": json.dumps(row["at"].isoformat())}
        results = {}
        for name, type_ in types.items():
            value = row[name]
            odd = draw(st.integers(0, 19))
            if odd == 0:
                value = draw(st.sampled_from(["5", True, 2.5, [1], {"x": 1}, 10**30]))
            if isinstance(value, datetime):
                value = text_of(draw, "timestamp", value)
            texts[name] = json.dumps(value, ensure_ascii=draw(st.booleans()))
            results[name] = outcome(type_, of_json, value)
        written = [
            f"{json.dumps(name)}: {texts[name]}" for name in names if texts[name] != "null" or draw(st.booleans())
        ]
        line = "{" + draw(st.sampled_from([", ", ",", " ,\t"])).join(written) + "}"
        found[row["id"]] = expected([results[name] for name in types])
        if draw(st.integers(0, 19)) == 0:
            line = draw(
                st.sampled_from([line[:-1], f"{line[:-1]},}}", f'{line[:-1]}, "id": 1}}', "[]", f"{line} {line}"])
            )
            found[row["id"]] = None
        lines.append(line + draw(st.sampled_from(["\n", "\r\n", "\n\n", " \n"])))
    content = b"\xef\xbb\xbf" * draw(st.booleans()) + "".join(lines).encode()
    return draw(compressed(draw(st.sampled_from(["jsonl", "ndjson", "JSON"])), content, found))


@st.composite
def compressed(draw: Any, ending: str, content: bytes, rows: dict[int, Any]) -> Written:
    """Plain, or as members and frames that end anywhere, some of them empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(content)), max_size=3)))
    parts = [content[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    match draw(st.sampled_from(["", "gz", "zst", "GZ"])):
        case "zst":
            frames = [pa.compress(part, codec="zstd", asbytes=True) for part in parts]
            skipped = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc" * draw(st.booleans())
            return Written(f"{ending}.zst", skipped.join(frames), rows)
        case "":
            return Written(ending, content, rows)
        case gz:
            return Written(f"{ending}.{gz}", b"".join(gzip.compress(part) for part in parts), rows)


@st.composite
def in_parquet(draw: Any, types: dict[str, ColumnType], rows: Rows) -> Written:
    old_times = draw(st.booleans())
    arrays = {
        "id": pa.array([row["id"] for row in rows], pa.int64()),
        "at": pa.array([row["at"] for row in rows], pa.timestamp("us", "UTC")),
    }
    results = {name: [outcome(type_, of_json, row[name]) for row in rows] for name, type_ in types.items()}
    for name, type_ in types.items():
        column = [row[name] for row in rows]
        kinds: dict[str, list[pa.DataType]] = {
            "string": [pa.string(), pa.large_string()],
            "timestamp": [pa.timestamp("us"), pa.timestamp("us", "America/New_York")],
            "float32": [pa.float32(), pa.float64()],
            "float64": [pa.float64()],
            "bool": [pa.bool_()],
        }
        kind = draw(st.sampled_from(kinds.get(type_, [pa.int64(), pa.decimal128(38, 0), pa.decimal256(50, 5)])))
        if type_ == "timestamp" and not old_times and all(v is None or 1700 < v.year < 2200 for v in column):
            kind = draw(st.sampled_from([pa.timestamp("ns"), kind]))
        if pa.types.is_decimal(kind):
            column = [None if value is None else Decimal(value) for value in column]
        array = pa.array(column, kind)
        if (
            kind == pa.timestamp("ns") and rows and array[0].is_valid and draw(st.booleans())
        ):  # which a microsecond has not
            array = pa.array([array[0].value + 1, *(one.value for one in array[1:])], kind)
            results[name][0] = BROKEN
        if draw(st.booleans()) and not pa.types.is_decimal(kind):
            array = array.dictionary_encode()
        arrays[name] = array
    names = draw(st.permutations([*arrays]))
    table = pa.table({name: arrays[name] for name in names})
    options = {
        "compression": draw(st.sampled_from(["none", "snappy", "gzip", "zstd"])),
        "use_deprecated_int96_timestamps": old_times,
        "data_page_version": draw(st.sampled_from(["1.0", "2.0"])),
    }
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, **options) as writer:
        size = draw(st.integers(1, 5))
        for begin in range(0, len(rows), size):
            writer.write_table(table.slice(begin, size))
            if draw(st.booleans()):
                writer.write_table(table.slice(begin, 0))  # an empty row group
    found = {row["id"]: expected([results[name][n] for name in types]) for n, row in enumerate(rows)}
    if draw(st.booleans()):
        return Written("parquet.gz", gzip.compress(buffer.getvalue()), found)
    return Written(draw(st.sampled_from(["parquet", "snappy.parquet", "PARQUET"])), buffer.getvalue(), found)


# --- a day ------------------------------------------------------------------------------------------------------------


@st.composite
def days(draw: Any) -> tuple[dict[str, ColumnType], list[Written]]:
    types: dict[str, ColumnType] = draw(columns)
    files, first = [], 0
    for form in draw(st.lists(st.sampled_from([in_csv, in_json, in_parquet]), min_size=1, max_size=3)):
        count = draw(st.integers(0, 8))
        rows = [
            {
                "id": first + n,
                "at": MIDNIGHT + timedelta(seconds=draw(st.integers(0, 86_399))),
                **{name: draw(st.none() | values[type_]) for name, type_ in types.items()},
            }
            for n in range(count)
        ]
        files.append(draw(form(types, rows)))
        first += count
    return types, files


def source(types: dict[str, ColumnType]) -> SourceSpec:
    aside = PolicySpec(on_failure="quarantine", up_to=1)
    checks = (
        "objects_are_readable",
        "schema_conforms",
        "values_fit_their_types",
        "values_are_allowed",
        "required_values_are_present",
    )
    content = {
        "name": "landed",
        "start_date": DAY,
        "key": ["id"],
        "event_time": "at",
        "row_count": {"min": 0},
        "columns": {
            "id": {"type": "int64"},
            "at": {"type": "timestamp"},
            **{name: {"type": type_, "nullable": True} for name, type_ in types.items()},
        },
        "policies": dict.fromkeys(checks, aside),
    }
    return SourceSpec.model_validate(content)


def there(file: Written, folder: Path) -> int:
    """Rows of a file, by those who read it otherwise than we do."""
    kind, _, codec = (
        file.ending.lower().rpartition(".")
        if file.ending.lower().endswith(("gz", "zst"))
        else (file.ending.lower(), "", "")
    )
    content = file.content
    if codec == "gz":
        content = gzip.decompress(content)
    elif codec == "zst":
        content = pa.input_stream(pa.BufferReader(content), compression="zstd").read()
    if kind.endswith("parquet"):
        return pq.read_metadata(pa.BufferReader(content)).num_rows
    text = content.decode("utf-8-sig")
    if kind == "csv":
        return sum(1 for record in csv.reader(io.StringIO(text, newline="")) if record) - 1
    return sum(1 for line in text.split("\n") if line.strip())


def ingested(
    types: dict[str, ColumnType], files: Sequence[Written], folder: Path, decision: Decision | None
) -> Ingested:
    landed = []
    for number, file in enumerate(files):
        path = folder / f"landed-{number}"
        path.write_bytes(file.content)
        found = LandedObject(f"landed/{DAY}/{number}.{file.ending}", "e", len(file.content), MIDNIGHT)
        landed.append(LandedFile(found, path))
    return ingest(source(types), DAY, landed, LookBack(), folder, decision)


checked = ("values_fit_their_types", "objects_are_readable", "schema_conforms", "values_are_allowed")
DISCARD = Decision("discard", "f", checked, "seen", "ada", "2024-04-01")


@examples(300)
@given(days(), st.sampled_from([None, DISCARD]))
def test_what_comes_back_is_equal_or_refused_and_nothing_is_lost(
    day: tuple[dict[str, ColumnType], list[Written]], decision: Decision | None
) -> None:
    types, files = day
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        made = ingested(types, files, folder, decision)
        accounts = {account.object: account for account in made.accounts}
        assert made.staged is not None, made.findings
        written = pq.read_table(made.staged.path)
        aside = 0 if made.aside is None else pq.read_table(made.aside.path).num_rows
        law = {"there": 0, "written": written.num_rows, "aside": aside, "discarded": 0, "refused": 0}
        wanted: dict[int, tuple[Any, ...]] = {}
        for number, file in enumerate(files):
            account, rows = accounts[f"landed/{DAY}/{number}.{file.ending}"], there(file, folder)
            law["there"] += rows
            if account.held:
                law["refused"] += rows
                assert not rows or all(one is None for one in file.rows.values()), account.held
                continue
            assert account.rows == rows == len(file.rows)
            law["discarded"] += account.discarded
            wanted |= {key: one for key, one in file.rows.items() if one is not None}
        assert law["there"] == law["written"] + law["aside"] + law["discarded"] + law["refused"], law
        assert decision is None or not law["aside"]
        found = {row["id"]: tuple(row[name] for name in types) for row in written.to_pylist()}
        assert found == wanted
