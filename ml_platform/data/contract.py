# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# The stubs of PyArrow know fewer methods than the library has.
"""The contract between a producer and the platform: what must hold of files and rows before they become a raw partition.

This module judges one file's columns and one batch of rows; ingest.py puts a day together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_platform.core.days import ONE_DAY, start_of
from ml_platform.core.spec import ColumnSpec, SourceSpec
from ml_platform.core.values import FLOATS
from ml_platform.data.opened import Opened
from ml_platform.data.values import ARROW_TYPES, converted, may_become, without_nan

CHECKS = {
    "everything_is_recognised": "Whatever lies in the day's folder has a name that is read, and every row has a time that says its day.",
    "objects_are_readable": "Every landed object of the day opens as what its name says.",
    "schema_conforms": "Every object has every declared column, of a kind that can become the declared type.",
    "values_fit_their_types": "Every value becomes its column's type without loss.",
    "required_values_are_present": "No column that is not nullable has a null; NaN is one.",
    "values_are_allowed": "Every value is finite and lies within its column's min, max and allowed.",
    "event_times_are_in_partition": "Every row's event time lies in the day that the objects are named for.",
    "keys_are_unique": "No row has the key of another row of the day, nor of the days before that share no keys.",
    "references_exist": "Every value of a column with a reference occurs where the reference says.",
    "row_count_is_normal": "The day has as many rows as it may have, and about as many as the days before.",
    "every_object_is_accounted_for": "For every object, rows in = rows written + rows quarantined + rows discarded.",
}
_SHOWN = 10  # allowed values
ACROSS_CHECKS = ("keys_are_unique", "references_exist")  # judged by other partitions as well


@dataclass(frozen=True)
class Offence:
    """A rule and the rows of a batch that break it, by position; `shown` is the first value that does."""

    check: str
    rule: str
    rows: np.ndarray
    shown: str = ""


def arrow_schema(source: SourceSpec) -> pa.Schema:
    """The declared columns of the source's raw table."""
    return pa.schema([pa.field(name, ARROW_TYPES[column.type]) for name, column in source.columns.items()])


# --- columns of a file ------------------------------------------------------------------------------------------------


def misfit(source: SourceSpec, opened: Opened) -> str:
    """Why a file's columns cannot become the declared ones; empty if they can."""
    problems = []
    for name, spec in source.columns.items():
        if name not in opened.schema.names:
            if not (opened.sparse and spec.nullable):
                shown = ", ".join(opened.schema.names[:20]) or "none"
                problems.append(f"column {name!r} is missing; there are {shown}")
        elif not opened.text and not may_become(found := opened.schema.field(name).type, spec.type):
            problems.append(f"column {name!r} has type {found}, not {spec.type}")
    return "; ".join(problems)


# --- values of a batch ------------------------------------------------------------------------------------------------


def fit(
    source: SourceSpec, rows: pa.Table, extra: pa.Schema, json_kinds: pa.Table | None = None
) -> tuple[pa.Table, list[Offence]]:
    """A batch with the declared types, and the rows with values that do not fit; those values are null.

    `extra` are columns to take over besides, as they are. Columns that the batch does not have are null. `json_kinds` are
    those of a batch from JSON.
    """
    schema = pa.schema([*arrow_schema(source), *extra])
    columns, offences = [], []
    for field in schema:
        if field.name not in rows.column_names:
            columns.append(pa.nulls(rows.num_rows, field.type))
            continue
        column, spec = rows[field.name].combine_chunks(), source.columns.get(field.name)
        if spec is None:
            values, unfit = _adopted(column, field.type)
            refused = [(f"no {field.type} without loss", unfit, "")] if len(unfit) else []
        else:
            kinds = None if json_kinds is None else json_kinds[field.name].combine_chunks()
            values, refused = converted(column, spec.type, kinds)
        columns.append(values)
        offences += [Offence("values_fit_their_types", f"{field.name}: {why}", *those) for why, *those in refused]
    return pa.table(columns, schema=schema), offences


def _adopted(column: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """A column of the type that it has in all objects together, and where a value would not come back the same."""
    none = np.empty(0, np.int64)
    if column.type == wanted:
        return without_nan(column), none
    try:
        return without_nan(column.cast(wanted)), none
    except pa.ArrowInvalid:
        bare = column.cast(wanted, safe=False)
        same = pc.fill_null(pc.equal(bare.cast(column.type, safe=False), column), True)
        return pc.if_else(same, bare, pa.scalar(None, wanted)), np.flatnonzero(~same.to_numpy(zero_copy_only=False))


# --- rules on values --------------------------------------------------------------------------------------------------


def broken_rules(source: SourceSpec, day: date, rows: pa.Table) -> Iterator[Offence]:
    """Rules on single values that rows of the declared types break."""
    for name, spec in source.columns.items():
        column = rows[name].combine_chunks()
        if not spec.nullable and column.null_count:
            nulls = np.flatnonzero(pc.is_null(column).to_numpy(zero_copy_only=False))
            yield Offence("required_values_are_present", f"{name}: null where a value is required", nulls)
        try:
            for check, rule, broken in _broken(spec, column):
                yield from _offence(check, f"{name}: {rule}", column, broken)
        except pa.ArrowException as error:  # such a rule says nothing of the rows, so none of them counts as good
            rule = f"{name}: the check could not be evaluated: {error}"
            yield Offence("values_are_allowed", rule, np.arange(len(column)))
        if name == source.event_time:
            begin, end = (pa.scalar(start_of(on), column.type) for on in (day, day + ONE_DAY))
            outside = pc.or_(pc.less(column, begin), pc.greater_equal(column, end))
            yield from _offence("event_times_are_in_partition", f"{name}: not within {day}", column, outside)


def _broken(spec: ColumnSpec, column: pa.Array) -> Iterator[tuple[str, str, pa.Array]]:
    """Limits are values of the column's type, and compared in it."""
    check = "values_are_allowed"
    if spec.type in FLOATS:
        yield check, "infinite", pc.is_inf(column)
    if spec.min is not None:
        least = pa.scalar(spec.min, column.type)
        yield check, f"less than min, {_text(least)}", pc.less(column, least)
    if spec.max is not None:
        most = pa.scalar(spec.max, column.type)
        yield check, f"more than max, {_text(most)}", pc.greater(column, most)
    if spec.allowed is not None:
        allowed = pa.array(spec.allowed, column.type)
        is_allowed = pc.is_in(column, allowed)
        shown = ", ".join(map(_text, allowed[:_SHOWN])) + ", ..." * (len(allowed) > _SHOWN)
        yield check, f"not among allowed, {shown}", pc.and_(pc.invert(is_allowed), pc.is_valid(column))


def _offence(check: str, rule: str, column: pa.Array, broken: pa.Array) -> Iterator[Offence]:
    if pc.any(broken).as_py():
        rows = np.flatnonzero(pc.fill_null(broken, False).to_numpy(zero_copy_only=False))
        yield Offence(check, rule, rows, _text(column[int(rows[0])]))


def _text(value: Any) -> str:
    if isinstance(value, pa.FloatScalar):
        return str(np.float32(value.as_py()))  # as short as its type allows
    return str(value) if isinstance(value, pa.TimestampScalar) else repr(value.as_py())
