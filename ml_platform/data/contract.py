# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# The stubs of PyArrow know fewer methods than the library has.
"""The contract between a producer and the platform: what must hold of files and rows before they become a raw partition.

This module judges one file's columns and one batch of rows; ingest.py puts a day together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_platform.core.days import ONE_DAY, start_of
from ml_platform.core.spec import ColumnSpec, SourceSpec
from ml_platform.data.formats import Opened

if TYPE_CHECKING:
    import pandas as pd

CHECKS = {
    "objects_are_readable": "Every landed object of the day opens as what its name says.",
    "schema_conforms": "Every object has every declared column, of a kind that can become the declared type.",
    "values_fit_their_types": "Every value becomes its column's type without loss.",
    "required_values_are_present": "No column that is not nullable has a null or NaN.",
    "values_are_allowed": "Every value is finite and lies within its column's min, max and allowed.",
    "event_times_are_in_partition": "Every row's event time lies in the day that the objects are named for.",
    "keys_are_unique": "No row has the key of another row of the day, nor of the days before that share no keys.",
    "references_exist": "Every value of a column with a reference occurs where the reference says.",
    "row_count_is_normal": "The day has as many rows as it may have, and about as many as the days before.",
    "every_object_is_accounted_for": "For every object, rows in = rows written + rows quarantined + rows discarded.",
}
ACROSS_CHECKS = ("keys_are_unique", "references_exist")  # judged by other partitions as well

_TIMESTAMP = (
    "[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,6}0*)?)?)?"
    " ?(Z|UTC|[+-][0-9]{2}(:?[0-9]{2})?)?"
)
_ARROW_TYPES = {
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


@dataclass(frozen=True)
class Offence:
    """A rule and the rows of a batch that break it, by position."""

    check: str
    rule: str
    rows: np.ndarray


def arrow_schema(source: SourceSpec) -> pa.Schema:
    """The declared columns of the source's raw table."""
    return pa.schema([pa.field(name, _ARROW_TYPES[column.type]) for name, column in source.columns.items()])


# --- columns of a file ------------------------------------------------------------------------------------------------


def misfit(source: SourceSpec, opened: Opened) -> str:
    """Why a file's columns cannot become the declared ones; empty if they can."""
    problems = []
    for name, spec in source.columns.items():
        if name not in opened.schema.names:
            if not (opened.sparse and spec.nullable):
                shown = ", ".join(opened.schema.names[:20]) or "none"
                problems.append(f"column {name!r} is missing; there are {shown}")
        elif not opened.text and not _may_become(opened.schema.field(name).type, _ARROW_TYPES[spec.type]):
            problems.append(f"column {name!r} has type {opened.schema.field(name).type}, not {_ARROW_TYPES[spec.type]}")
    return "; ".join(problems)


def _may_become(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of one type can be of another without being reinterpreted; text is text alone."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_null(found):
        return True
    numbers = (pa.types.is_integer, pa.types.is_decimal)
    if pa.types.is_floating(wanted):
        return any(kind(found) for kind in (pa.types.is_floating, *numbers))
    if pa.types.is_integer(wanted):
        return any(kind(found) for kind in numbers)
    if pa.types.is_string(wanted):
        return any(kind(found) for kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))
    return any(kind(found) and kind(wanted) for kind in (pa.types.is_timestamp, pa.types.is_boolean))


# --- values of a batch ------------------------------------------------------------------------------------------------


def fit(source: SourceSpec, rows: pa.Table, extra: pa.Schema) -> tuple[pa.Table, list[Offence]]:
    """A batch with the declared types, and the rows with values that do not fit; those values are null.

    `extra` are columns to take over besides, as they are. Columns that the batch does not have are null.
    """
    columns, offences = [], []
    for field in (*arrow_schema(source), *extra):
        if field.name not in rows.column_names:
            columns.append(pa.nulls(rows.num_rows, field.type))
            continue
        column, unfit = _converted(rows[field.name], field.type)
        columns.append(column)
        if len(unfit):
            rule = f"{field.name}: not {_article(field.type)} without loss"
            offences.append(Offence("values_fit_their_types", rule, unfit))
    return pa.table(columns, schema=pa.schema([*arrow_schema(source), *extra])), offences


def _converted(column: pa.ChunkedArray, wanted: pa.DataType) -> tuple[pa.ChunkedArray, np.ndarray]:
    """The column with another type, and where a value does not fit it."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    none = np.empty(0, np.int64)
    try:
        if (
            pa.types.is_integer(wanted)
            and pa.types.is_string(column.type)
            and pc.any(pc.match_substring(column, "x")).as_py()
        ):
            raise pa.ArrowInvalid("Arrow takes 0x10 for a number")
        return _cast(column, wanted), none
    except pa.ArrowInvalid:
        if pa.types.is_decimal(column.type):  # which Arrow casts to no whole number at all, if one of them is none
            column = column.cast(pa.string())
        slow = _try_text if pa.types.is_string(column.type) else _try_cast
        converted = slow(column, wanted)
        unfit = pc.and_(pc.is_valid(column), pc.is_null(converted))
        return converted, np.flatnonzero(unfit.to_numpy(zero_copy_only=False))


def _cast(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_timestamp(wanted):
        if pa.types.is_string(column.type):
            column = column.cast(pa.timestamp("us"))  # refuses zones; _try_text knows them
        if pa.types.is_timestamp(column.type) and column.type.tz is None:
            column = column.cast(pa.timestamp(column.type.unit, tz="UTC"))  # times without a zone are UTC
    return column.cast(wanted)


def _try_cast(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    """Null where a value would not come back the same."""
    if pa.types.is_timestamp(column.type) and column.type.tz is None:
        column = column.cast(pa.timestamp(column.type.unit, tz="UTC"))
    bare = column.cast(wanted, safe=False)
    same = pc.equal(bare.cast(column.type, safe=False), column)
    if pa.types.is_integer(wanted):  # unsigned numbers that turn negative come back the same
        same = pc.and_(same, pc.equal(_is_negative(bare), _is_negative(column)))
    return pc.if_else(pc.fill_null(same, False), bare, pa.scalar(None, wanted))


def _is_negative(numbers: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.less(numbers, pa.scalar(0, numbers.type))


def _try_text(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    """Null where the text says nothing of that type. Whole numbers may end in .0, times may have any zone."""
    import duckdb

    rows = pa.table({"value": column})
    if pa.types.is_integer(wanted):
        value = "CASE WHEN regexp_full_match(trim(value), '[+-]?[0-9]+(\\.0*)?') THEN regexp_replace(trim(value), '\\.0*$', '') END"
    elif pa.types.is_timestamp(wanted):  # no words such as infinity, and no digits that would be cut off
        value = f"CASE WHEN regexp_full_match(trim(value), '{_TIMESTAMP}') THEN trim(value) END"
    else:
        value = "trim(value)"
    kind = {pa.int8(): "TINYINT", pa.int16(): "SMALLINT", pa.int32(): "INTEGER", pa.int64(): "BIGINT", pa.float32(): "FLOAT",
            pa.float64(): "DOUBLE", pa.bool_(): "BOOLEAN"}.get(wanted, "TIMESTAMPTZ")  # fmt: skip
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        connection.sql("SET TimeZone = 'UTC'")
        found = connection.sql(f"SELECT TRY_CAST({value} AS {kind}) AS value FROM rows").to_arrow_table()
    return found["value"].cast(wanted)


def _article(wanted: pa.DataType) -> str:
    """A type as source files name it, with its article."""
    named = {pa.float32(): "float32", pa.float64(): "float64"}.get(wanted, wanted)
    name = "timestamp" if pa.types.is_timestamp(wanted) else str(named)
    return f"{'an' if name.startswith('int') else 'a'} {name}"


def broken_rules(source: SourceSpec, day: date, rows: pa.Table) -> Iterator[Offence]:
    """Rules on single values that rows of the declared types break, as Pandera finds them."""
    import pandera.errors
    import pandera.pandas as pan

    frame = rows.select(list(source.columns)).to_pandas()
    begin, end = start_of(day), start_of(day + ONE_DAY)
    in_day = pan.Check.in_range(begin, end - timedelta(microseconds=1), error="event_times_are_in_partition")
    columns = {
        name: pan.Column(
            nullable=spec.nullable,
            checks=[*_value_checks(spec), *([in_day] if name == source.event_time else [])],
        )
        for name, spec in source.columns.items()
    }
    try:
        pan.DataFrameSchema(columns).validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        cannot = cases[cases["index"].isna()]
        if len(cannot):  # a check that itself failed says nothing of the rows, so none of them counts as good
            rule = f"{cannot['column'].iloc[0]}: the check could not be evaluated: {cannot['failure_case'].iloc[0]}"
            yield Offence("values_are_allowed", rule, np.arange(len(frame)))
        cases = cases[cases["index"].notna()]
        for (column, rule), group in cases.groupby(["column", "check"], dropna=False):
            positions = np.unique(group["index"].to_numpy().astype(np.int64))
            yield Offence(_check_of(str(rule)), f"{column}: {_in_words(str(rule), begin)}", positions)


def _value_checks(spec: ColumnSpec) -> list[Any]:
    import pandera.pandas as pan

    checks = []
    if spec.type in ("float32", "float64"):
        checks.append(pan.Check(_is_finite, error="finite"))
    if spec.min is not None:
        checks.append(pan.Check.ge(spec.min))
    if spec.max is not None:
        checks.append(pan.Check.le(spec.max))
    if spec.allowed is not None:
        checks.append(pan.Check.isin(list(spec.allowed)))
    return checks


def _is_finite(values: "pd.Series") -> Any:
    return ~np.isinf(values)


def _check_of(rule: str) -> str:
    if rule == "not_nullable":
        return "required_values_are_present"
    return rule if rule in CHECKS else "values_are_allowed"


def _in_words(rule: str, begin: Any) -> str:
    words = {
        "not_nullable": "null where a value is required",
        "event_times_are_in_partition": f"not within {begin:%Y-%m-%d}",
        "finite": "infinite",
    }
    return words.get(rule, f"not {rule}")
