"""A value means the same at every door, or every door refuses it."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core.spec import SourceSpec
from ml_platform.core.values import FLOATS, INTEGERS, PATTERNS, TYPES, ColumnType, Value, of_json, of_text, parsed
from ml_platform.data.contract import fit, misfit
from ml_platform.data.formats import open_file
from ml_platform.data.values import ARROW_TYPES, converted, parse_json
from ml_platform.resources.sql_origin import SqlRows
from ml_platform_tests.selection import examples

REFUSED = "refused"
NONE = pa.schema([])
DAY = date(2024, 3, 1)


def source(type_: str) -> SourceSpec:
    columns = {"id": {"type": "int64"}, "at": {"type": "timestamp"}, "value": {"type": type_, "nullable": True}}
    origin = {"type": "sql", "url_variable": "WAREHOUSE_URL", "table": "rows"}
    content = {
        "name": "rows",
        "start_date": DAY,
        "key": ["id"],
        "event_time": "at",
        "columns": columns,
        "origin": origin,
    }
    return SourceSpec.model_validate(content)


def outcome(ask: Callable[..., Value | None], *arguments: Any) -> Any:
    """A value, or that there is none."""
    try:
        return ask(*arguments)
    except ValueError:
        return REFUSED


def opened(type_: str, path: Path) -> list[Any]:
    """What becomes of the column `value` of a file."""
    file, found = open_file(path.name, path, 1 << 30), []
    if misfit(source(type_), file):
        return [REFUSED] * pq.read_metadata(path).num_rows
    for batch in file.batches(file.schema.names):
        table, offences = fit(source(type_), batch.rows, NONE, batch.json_kinds)
        refused = {row for one in offences for row in one.rows.tolist()}
        found += [REFUSED if row in refused else value for row, value in enumerate(table["value"].to_pylist())]
        found += [REFUSED] * len(batch.malformed)
    return found


# --- doors: each writes values as it can, and says what came of them --------------------------------------------------

Written = Sequence[Any]


def by_csv(type_: str, written: Written, folder: Path) -> list[Any]:
    rows = pa.table(
        {"id": range(len(written)), "at": ["2024-03-01"] * len(written), "value": pa.array(written, pa.string())}
    )
    pacsv.write_csv(rows, folder / "rows.csv")
    return opened(type_, folder / "rows.csv")


def by_json(type_: str, written: Written, folder: Path) -> list[Any]:
    lines = [f'{{"id": {n}, "at": "2024-03-01", "value": {value}}}\n' for n, value in enumerate(written)]
    (folder / "rows.jsonl").write_text("".join(lines))
    return opened(type_, folder / "rows.jsonl") if lines else []


def by_parquet(type_: str, column: pa.Array, folder: Path, **options: Any) -> list[Any]:
    rows = pa.table({"id": range(len(column)), "at": [datetime(2024, 3, 1)] * len(column), "value": column})
    pq.write_table(rows, folder / "rows.parquet", **options)
    return opened(type_, folder / "rows.parquet")


def by_sqlite(type_: str, written: Written, folder: Path) -> list[Any]:
    (folder / "rows.db").unlink(missing_ok=True)
    with sqlite3.connect(folder / "rows.db") as database:
        database.execute("CREATE TABLE rows (id, at, value)")
        database.executemany("INSERT INTO rows VALUES (?, '2024-03-01', ?)", enumerate(written))
    database.close()
    spec = source(type_)
    origin = SqlRows.at(spec, spec.origin, {"WAREHOUSE_URL": f"sqlite:///{folder}/rows.db"}, lambda: datetime(2024, 4, 1, tzinfo=UTC))  # type: ignore[arg-type]  # fmt: skip
    days = origin.of_day(spec, DAY)
    for day in days:
        origin.fetch(spec, day, folder / "rows.parquet")
    origin.engine.dispose()
    return [] if not days else opened(type_, folder / "rows.parquet")


Found = Iterator[tuple[str, Sequence[Any], list[Any]]]  # door, the values that it can say, what came of them


def whole_numbers(type_: str, values: Sequence[int], folder: Path) -> Found:
    yield "csv", values, by_csv(type_, [str(value) for value in values], folder)
    yield "json", values, by_json(type_, [str(value) for value in values], folder)
    some = [value for value in values if abs(value) <= 2**53 or type_ in FLOATS]  # beyond, it may have been rounded
    yield "csv with a point", some, by_csv(type_, [f"{value}.0" for value in some], folder)
    yield "json with a point", some, by_json(type_, [f"{value}.0" for value in some], folder)
    limits = [
        (pa.int8(), 2**7),
        (pa.int32(), 2**31),
        (pa.int64(), 2**63),
        (pa.decimal128(38, 0), 10**38),
        (pa.decimal256(76, 9), 10**66),
    ]
    for kind, limit in limits:
        some = [value for value in values if -limit <= value < limit]
        numbers = list(map(Decimal, some)) if pa.types.is_decimal(kind) else some
        column = pa.array(numbers, kind)
        yield str(kind), some, by_parquet(type_, column, folder)
        if pa.types.is_integer(kind):
            yield f"dictionary of {kind}", some, by_parquet(type_, column.dictionary_encode(), folder)
    some = [value for value in values if 0 <= value < 2**64]
    yield "uint64", some, by_parquet(type_, pa.array(some, pa.uint64()), folder)
    for kind, limit in ((pa.float64(), 2**53), (pa.float32(), 2**24)):
        some = [value for value in values if abs(value) <= limit]
        yield str(kind), some, by_parquet(type_, pa.array(list(map(float, some)), kind), folder)
    some = [value for value in values if -(2**63) <= value < 2**63]
    yield "sqlite", some, by_sqlite(type_, some, folder)


def floats(type_: str, values: Sequence[float], folder: Path) -> Found:
    yield "csv", values, by_csv(type_, list(map(repr, values)), folder)
    yield "json", values, by_json(type_, list(map(json.dumps, values)), folder)
    yield "double", values, by_parquet(type_, pa.array(values, pa.float64()), folder)
    some = [value for value in values if _is_single(value) and (type_ in FLOATS or abs(value) <= 2**24)]
    yield "float32", some, by_parquet(type_, pa.array(some, pa.float32()), folder)
    some = [value for value in values if 1e-9 < abs(value) < (1e20 if type_ in FLOATS else 2**53)]
    exact = [Decimal(value) if abs(value) > 2**53 else Decimal(repr(value)) for value in some]
    yield "decimal", some, by_parquet(type_, pa.array(exact, pa.decimal256(76, 38)), folder)
    yield "sqlite", values, by_sqlite(type_, values, folder)


def times(type_: str, values: Sequence[datetime], folder: Path) -> Found:
    in_utc = [value.astimezone(UTC) for value in values]
    written = {
        "as it is": [value.isoformat() for value in values],
        "with UTC": [f"{value.replace(tzinfo=None).isoformat(' ')} UTC" for value in in_utc],
        "with Z": [value.isoformat().replace("+00:00", "Z") for value in in_utc],
    }
    for how, texts in written.items():
        yield f"csv {how}", values, by_csv(type_, texts, folder)
        yield f"json {how}", values, by_json(type_, list(map(json.dumps, texts)), folder)
        yield f"sqlite {how}", values, by_sqlite(type_, texts, folder)
    micros = [(value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) for value in in_utc]
    for unit, ticks in (("s", 10**6), ("ms", 10**3), ("us", 1)):
        some = [n for n, value in enumerate(micros) if value % ticks == 0]
        for zone in (None, "UTC", "Asia/Tokyo"):
            column = pa.array([micros[n] // ticks for n in some], pa.timestamp(unit, zone))
            yield f"{unit} {zone}", [values[n] for n in some], by_parquet(type_, column, folder)
    some = [n for n, value in enumerate(micros) if abs(value) < 9 * 10**15]
    column = pa.array([micros[n] * 1_000 for n in some], pa.timestamp("ns"))
    yield "ns", [values[n] for n in some], by_parquet(type_, column, folder)
    old = {"use_deprecated_int96_timestamps": True}
    yield "int96", values, by_parquet(type_, pa.array(micros, pa.timestamp("us")), folder, **old)
    some = [n for n, value in enumerate(in_utc) if value.time() == datetime.min.time()]
    for kind in (pa.date32(), pa.date64()):
        column = pa.array([in_utc[n].date() for n in some], kind)
        yield str(kind), [values[n] for n in some], by_parquet(type_, column, folder)


def _is_single(value: float) -> bool:
    with np.errstate(over="ignore"):
        return float(np.float32(value)) == value


def held_to(type_: ColumnType, values: Sequence[Any], doors: Callable[[str, Any, Path], Found]) -> None:
    with TemporaryDirectory() as folder:
        for door, some, found in doors(type_, values, Path(folder)):
            assert found == [outcome(of_json, type_, value) for value in some], door


EDGES = [2**bits + around for bits in (7, 8, 15, 24, 31, 53, 63, 64, 80) for around in (-1, 0, 1)]
numbers = st.sampled_from([*EDGES, *(-edge for edge in EDGES)]) | st.integers() | st.integers(-(2**65), 2**65)


@examples(30)
@given(st.sampled_from([*INTEGERS, *FLOATS]), st.lists(numbers, min_size=1, max_size=20))
def test_whole_numbers(type_: ColumnType, values: list[int]) -> None:
    held_to(type_, values, whole_numbers)


fractions = st.floats(allow_nan=False) | st.floats(width=32, allow_nan=False) | st.sampled_from([0.1, 2.5, 1e23, -0.0])


@examples(30)
@given(st.sampled_from([*INTEGERS, *FLOATS]), st.lists(fractions, min_size=1, max_size=20))
def test_floats(type_: ColumnType, values: list[float]) -> None:
    held_to(type_, values, floats)


zones = st.sampled_from([UTC, timezone(timedelta(hours=2)), timezone(timedelta(hours=-9, minutes=-30))])
moments = st.datetimes(timezones=zones) | st.dates().map(lambda day: datetime(day.year, day.month, day.day, tzinfo=UTC))


ends = st.sampled_from([datetime(9999, 12, 31, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)])


@examples(20)
@given(st.lists(moments | ends, max_size=20))
def test_times(values: list[datetime]) -> None:
    # Zones shift the first and the last hours out of the calendar.
    if values := [value for value in values if outcome(of_json, "timestamp", value) != REFUSED]:
        held_to("timestamp", values, times)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)


@examples(20)
@given(st.lists(texts, min_size=1, max_size=20))
def test_texts(values: list[str]) -> None:
    with TemporaryDirectory() as folder:
        assert by_csv("string", values, Path(folder)) == values
        assert by_json("string", [json.dumps(value) for value in values], Path(folder)) == values
        assert by_sqlite("string", values, Path(folder)) == values
        for kind in (pa.string(), pa.large_string()):
            column = pa.array(values, kind)
            assert by_parquet("string", column, Path(folder)) == values
            assert by_parquet("string", column.dictionary_encode(), Path(folder)) == values


@pytest.mark.parametrize("type_", TYPES)
def test_value_of_another_kind_is_refused_by_every_typed_door(type_: ColumnType, tmp_path: Path) -> None:
    """Only text without types may be read as whatever is declared."""
    samples: dict[str, tuple[Any, str, pa.Array]] = {
        "number": (5, "5", pa.array([5])),
        "text": ("5", '"5"', pa.array(["5"])),
        "boolean": (True, "true", pa.array([True])),
        "list": ([5], "[5]", pa.array([[5]])),
        "object": ({"a": 5}, '{"a": 5}', pa.array([{"a": 5}])),
        "time of day": ("10:00", '"10:00"', pa.array([36_000], pa.time32("s"))),
    }
    fitting = {"bool": {"boolean"}, "string": {"text", "time of day"}, "timestamp": set()}.get(type_, {"number"})
    for kind, (value, in_json, column) in samples.items():
        wanted = outcome(of_json, type_, value)
        assert (wanted != REFUSED) == (kind in fitting), kind
        assert by_json(type_, [in_json], tmp_path) == [wanted], kind
        if kind != "time of day":  # which Parquet has a type of its own for
            assert by_parquet(type_, column, tmp_path) == [wanted], kind
        elif type_ == "string":
            assert by_parquet(type_, column, tmp_path) == [REFUSED]


@pytest.mark.parametrize("type_", TYPES)
def test_null_is_null_at_every_door_and_nan_is_one(type_: ColumnType, tmp_path: Path) -> None:
    kind = ARROW_TYPES[type_]
    assert of_json(type_, None) is None
    assert by_csv(type_, [None, None], tmp_path) == [None, None]
    assert by_json(type_, ["null", "null"], tmp_path) == [None, None]
    assert by_parquet(type_, pa.nulls(2, kind), tmp_path) == [None, None]
    assert by_parquet(type_, pa.nulls(2), tmp_path) == [None, None]
    assert by_parquet(type_, pa.nulls(2, kind).dictionary_encode(), tmp_path) == [None, None]
    assert by_sqlite(type_, [None, None], tmp_path) == [None, None]
    if type_ in INTEGERS or type_ in FLOATS:
        assert of_json(type_, float("nan")) is None
        assert by_csv(type_, ["NaN", "nan"], tmp_path) == [None, None]
        assert by_json(type_, ["NaN"], tmp_path) == [None]
        assert by_parquet(type_, pa.array([float("nan")]), tmp_path) == [None]
        assert by_parquet(type_, pa.array([float("nan")], pa.float32()), tmp_path) == [None]
    if type_ != "string":  # what writers that quote everything write
        assert by_csv(type_, ["", " "], tmp_path) == [None, None]
        assert by_json(type_, ['""'], tmp_path) == [REFUSED]


def test_null_in_a_dictionary_is_null() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array([None, 5]))
    assert converted(column, "int8").values.to_pylist() == [None, 5, None]


@pytest.mark.parametrize(
    "text",
    ["0x10", "0X10", "12_5", "1,000", "１２", "1e", "--5", "5%", "$5", "1d", "0b1", "0o7", "٣", "1 000", "1'000", "(5)", "5-",
     "#N/A", "null", "NULL", "None", "N/A", "-", "+", ".", "e5", "½", "1.2.3", "5\xa0", "5\n", "NaNs", "infinit", "1.#INF"],
)  # fmt: skip
def test_numeral_of_another_grammar_is_none(text: str, tmp_path: Path) -> None:
    for type_ in (*INTEGERS, *FLOATS):
        assert outcome(of_text, type_, text) == REFUSED
        assert by_csv(type_, ["5", text], tmp_path) == [5, REFUSED]


def test_whole_number_that_was_a_float_once_is_refused_where_floats_skip_some(tmp_path: Path) -> None:
    """What pandas writes of 9007199254740993 beside a missing value is 9007199254740992.0."""
    for text in ("9007199254740994.0", "-9007199254740994.", "9223372036854775806.00"):
        assert by_csv("int64", [text], tmp_path) == [REFUSED]
        assert by_csv("int64", [text.partition(".")[0]], tmp_path) == [int(text.partition(".")[0])]
    assert by_csv("int64", ["9007199254740992.0"], tmp_path) == [2**53]


@pytest.mark.parametrize(
    ("text", "integer", "number"),
    [
        ("+5", 5, 5.0), ("5.", 5, 5.0), ("5.00", 5, 5.0), (" 5\t", 5, 5.0), ("007", 7, 7.0), ("-0", 0, -0.0), ("1e2", REFUSED, 100.0),
        (".5", REFUSED, 0.5), ("-.5e1", REFUSED, -5.0), ("5.5", REFUSED, 5.5), ("inf", REFUSED, float("inf")),
        ("-Infinity", REFUSED, float("-inf")), ("nan", None, None), ("NaN", None, None),
    ],
)  # fmt: skip
def test_numeral_of_the_grammar(text: str, integer: Any, number: Any, tmp_path: Path) -> None:
    assert by_csv("int32", [text], tmp_path) == [integer]
    assert by_csv("float64", [text], tmp_path) == [number]


@pytest.mark.parametrize(("text", "value"), [("TRUE", True), ("True", True), ("t", True), ("1", True), ("F", False), ("false", False), ("0", False), ("yes", REFUSED), ("on", REFUSED), ("2", REFUSED), ("1.0", REFUSED)])  # fmt: skip
def test_boolean_of_text(text: str, value: Any, tmp_path: Path) -> None:
    assert by_csv("bool", [text], tmp_path) == [value]
    assert by_json("bool", [json.dumps(text)], tmp_path) == [REFUSED]


TEN = datetime(2024, 3, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-03-01 10:00:00", TEN), ("2024-03-01T10:00", TEN), ("2024-03-01t10:00:00z", TEN), ("2024-03-01 10:00:00 UTC", TEN),
        ("2024-03-01 10:00:00UTC", TEN), ("2024-03-01 10:00:00 +0000 UTC", TEN), ("2024-03-01T12:00:00+02:00", TEN),
        ("2024-03-01T12:00:00+0200", TEN), ("2024-03-01 12:00:00+02", TEN), ("2024-03-01 12:00:00 +02", TEN),
        ("2024-03-01T00:30:00.000000000-0930", TEN), ("2024-03-01", TEN.replace(hour=0)), ("2024-03-01Z", TEN.replace(hour=0)),
        ("9999-12-31 23:59:59.999999", datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)),
        ("0001-01-01", datetime(1, 1, 1, tzinfo=UTC)),
        ("2024-03-01 10:00:00.0000001", REFUSED), ("2024-02-30", REFUSED), ("2023-02-29", REFUSED), ("0000-01-01", REFUSED),
        ("2024-03-01 24:00:00", REFUSED), ("2024-03-01 10:00:60", REFUSED), ("2024-03-01 10", REFUSED), ("20240301", REFUSED),
        ("02/01/2024", REFUSED), ("1709287200", REFUSED), ("2024-3-1", REFUSED), ("10:00", REFUSED), ("now", REFUSED),
        ("infinity", REFUSED), ("2460371.5", REFUSED), ("2024-W09-5", REFUSED), ("+2024-03-01", REFUSED), ("2024-03-01T10:00:00 CET", REFUSED),
        ("9999-12-31T23:00:00-05:00", REFUSED), ("0001-01-01T00:00:00+05:00", REFUSED), ("2024-03-01 10:00:00+24:00", REFUSED),
        ("２０２４-03-01", REFUSED), ("2024-03-01 10:00:00 PM", REFUSED), ("1 Mar 2024", REFUSED),
    ],
)  # fmt: skip
def test_time_of_text(text: str, value: Any, tmp_path: Path) -> None:
    assert by_csv("timestamp", [text], tmp_path) == [value]
    assert by_json("timestamp", [json.dumps(text)], tmp_path) == [value]
    assert outcome(of_text, "timestamp", text) == value


def test_nanoseconds_of_old_parquet_are_refused_and_its_far_dates_are_not(tmp_path: Path) -> None:
    near = pa.array([1_709_287_200_000_000_001, 1_709_287_200_000_000_000, None], pa.timestamp("ns"))
    assert by_parquet("timestamp", near, tmp_path, use_deprecated_int96_timestamps=True) == [REFUSED, TEN, None]
    far = pa.array([datetime(9999, 12, 31), datetime(1, 1, 1), None], pa.timestamp("us"))
    assert by_parquet("timestamp", far, tmp_path, use_deprecated_int96_timestamps=True) == [
        datetime(9999, 12, 31, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC), None,
    ]  # fmt: skip


def test_times_of_old_parquet_keep_their_rows_beside_a_column_of_several_dictionaries(tmp_path: Path) -> None:
    """Such a column ends batches where times alone have none."""
    ten = 1_709_287_200_000_000_000
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("at", pa.timestamp("us")),
            ("note", pa.dictionary(pa.int32(), pa.string())),
            ("value", pa.timestamp("ns")),
        ]
    )
    with pq.ParquetWriter(tmp_path / "rows.parquet", schema, use_deprecated_int96_timestamps=True) as writer:
        for group in range(4):
            notes = pa.array([f"{group}", f"{group}!", f"{group}"]).dictionary_encode()
            times = pa.array([ten, ten + (group == 2), None], pa.timestamp("ns"))
            columns = [pa.array(range(3 * group, 3 * group + 3)), pa.array([datetime(2024, 3, 1)] * 3), notes, times]
            writer.write_table(pa.table(columns, schema=schema))
    assert opened("timestamp", tmp_path / "rows.parquet") == [TEN, TEN, None] * 2 + [TEN, REFUSED, None, TEN, TEN, None]


@pytest.mark.parametrize("kind", [pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us", "UTC")])
def test_times_beyond_the_calendar_are_refused(kind: pa.DataType, tmp_path: Path) -> None:
    assert (
        by_parquet("timestamp", pa.array([2**58, -(2**58)] if kind.unit == "us" else [2**50, -(2**50)], kind), tmp_path)
        == [REFUSED] * 2
    )
    assert by_parquet("timestamp", pa.array([2**30, -(2**30)], pa.date32()), tmp_path) == [REFUSED] * 2


# --- columns and single values ----------------------------------------------------------------------------------------

DIGITS = [
    "0",
    "5",
    "12",
    "007",
    "127",
    "128",
    "16777217",
    "9007199254740993",
    "4611686018427388",
    "9223372036854775808",
    "9" * 30,
]
numerals = st.tuples(
    st.sampled_from(["", "+", "-", " "]),
    st.sampled_from(DIGITS),
    st.sampled_from(["", ".", ".0", ".5", ".0000000001"]),
    st.sampled_from(["", "", "", "e5", "E-3", "e18", "e400", "e-400", "_5", " "]),
).map("".join) | st.sampled_from(
    ["nan", "-inf", "Infinity", "", "0x10", "t", "FALSE", "1.8e308", "1e-46", "3.4028236e38"]
)
clocks = st.tuples(
    st.sampled_from(["0000", "0001", "2023", "2024", "9999"]),
    st.sampled_from(["-01-01", "-02-29", "-02-30", "-12-31", "-13-01"]),
    st.sampled_from(["", "T10:00", " 23:59:59", "T24:00:00", " 00:00:00.1234560", "t10:00:00.1234567"]),
    st.sampled_from(["", "Z", "z", " UTC", "+00:00", " +0000 UTC", "+02:00", "-0530", " +02", "+15:59", "+16:00"]),
).map("".join)


@given(st.sampled_from([one for one in TYPES if one != "string"]), st.data(), st.booleans())
def test_columns_of_text_are_read_as_their_values_are(type_: ColumnType, data: st.DataObject, in_json: bool) -> None:
    texts = data.draw(st.lists(st.none() | (clocks if type_ == "timestamp" else numerals), max_size=8))
    kind = {"bool": "BOOLEAN", "timestamp": "VARCHAR"}.get(type_, "DOUBLE")
    kinds = pa.array([text and kind for text in texts], pa.string()) if in_json else None
    texts = [text or None for text in texts] if in_json else texts
    found = converted(pa.array(texts, pa.string()), type_, kinds)
    assert found.values.type == ARROW_TYPES[type_]
    reasons = {int(row): one.reason for one in found.refused for row in one.rows}
    for row, text in enumerate(texts):
        try:
            value, reason = None if text is None else (parsed if in_json else of_text)(type_, text), None
        except ValueError as error:
            value, reason = None, str(error)
        assert (found.values[row].as_py(), reasons.get(row)) == (value, reason), text


def test_body_with_two_values_for_a_name_is_refused_as_a_line_is() -> None:
    assert parse_json(b'{"a": {"b": 1}, "b": NaN}')["a"] == {"b": 1}
    for text in ('{"amount": 5, "amount": 50}', '[{"a": {"x": 1, "y": 2, "x": 1}}]', '{"a": 1, "\\u0061": 2}'):
        with pytest.raises(ValueError, match="two values for '(amount|x|a)'"):
            parse_json(text)
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)


@pytest.mark.parametrize(("type_", "first_lost"), [("float64", 2**53 + 1), ("float32", 2**24 + 1)])
def test_first_whole_number_that_a_float_has_not_is_refused_by_every_door(
    type_: ColumnType, first_lost: int, tmp_path: Path
) -> None:
    for value, wanted in ((first_lost, REFUSED), (first_lost - 1, float(first_lost - 1)), (-first_lost, REFUSED)):
        for door, _, found in whole_numbers(type_, [value], tmp_path):
            assert found in ([wanted], []), door


def test_patterns_are_whole_and_know_ascii_alone() -> None:
    assert set(PATTERNS) == {*TYPES} - {"string"}
    assert not any(
        "\\d" in pattern or "\\w" in pattern or "." in pattern.replace("[.]", "") for pattern in PATTERNS.values()
    )
