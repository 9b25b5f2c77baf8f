# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# The stubs of PyArrow know fewer methods than the library has.
"""Columns of numbers and times as columns of a declared type: what is obvious together, the rest by the rule for one value."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_platform.core.values import FLOATS, INTEGERS, NOT_IN_CALENDAR, SKIPPED, TOO_FINE, ColumnType, Value, of_json

TIMESTAMP = pa.timestamp("us", tz="UTC")
ARROW_TYPES: dict[ColumnType, pa.DataType] = {
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "timestamp": TIMESTAMP,
}
_FIRST, _LAST = -62_135_596_800, 253_402_300_799  # seconds of the years 1 and 9999
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class Refused(NamedTuple):
    """Why the values at these positions stand for none of the type, and the first of them as it was written."""

    reason: str
    rows: np.ndarray
    shown: str


class Converted(NamedTuple):
    """A column of the declared type, in which refused values are null."""

    values: pa.Array
    refused: list[Refused]


def of_numbers(column: pa.Array, type_: ColumnType) -> Converted:
    column = without_nan(column)
    rule: Callable[[Any], Value | None] = partial(of_json, type_)
    if type_ in INTEGERS and pa.types.is_floating(column.type):
        exact_up_to = FLOATS["float64" if column.type == pa.float64() else "float32"]
        doubles = column.cast(pa.float64())
        whole = pc.and_(pc.equal(pc.trunc(doubles), doubles), pc.less_equal(pc.abs(doubles), float(exact_up_to)))
        suspects = mask_of(pc.invert(whole))
        values, beyond = narrow_integers(pc.if_else(whole, doubles, 0.0).cast(pa.int64()), type_)
        return decided(values, doubles, suspects | beyond, partial(_of_float, type_, exact_up_to))
    if type_ in INTEGERS:
        values, suspects = narrow_integers(column, type_)
    elif pa.types.is_floating(column.type):
        values, suspects = narrow_floats(column.cast(pa.float64()), type_)
    else:
        limit = FLOATS[type_]
        suspects = np.zeros(len(column), bool)
        if column.type.bit_width > 32 or type_ == "float32":
            suspects = outside(column, -limit, limit)
        values = column.cast(pa.float64(), safe=False).cast(ARROW_TYPES[type_], safe=False)
    return decided(values, column, suspects, rule)


def _of_float(type_: ColumnType, exact_up_to: int, number: float) -> Value | None:
    value = of_json(type_, number)
    if abs(number) > exact_up_to:
        raise ValueError(SKIPPED.format(exact_up_to))
    return value


def narrow_integers(numbers: pa.Array, type_: ColumnType) -> tuple[pa.Array, np.ndarray]:
    """Whole numbers of a narrower type, and which of them are beyond it."""
    limit = 2 ** (INTEGERS[type_] - 1)
    return numbers.cast(ARROW_TYPES[type_], safe=False), outside(numbers, -limit, limit - 1)


def narrow_floats(doubles: pa.Array, type_: ColumnType) -> tuple[pa.Array, np.ndarray]:
    """Floats of a narrower type, and which of them may have lost something that counts."""
    if type_ == "float64":
        return doubles, np.zeros(len(doubles), bool)
    singles = doubles.cast(pa.float32(), safe=False)
    is_changed = pc.not_equal(singles.cast(pa.float64()), doubles)
    counts = pc.or_(
        pc.greater(pc.abs(doubles), float(FLOATS["float32"])), pc.equal(singles, pa.scalar(0, pa.float32()))
    )
    return singles, mask_of(pc.and_(is_changed, counts))


def outside(numbers: pa.Array, least: int, greatest: int) -> np.ndarray:
    """Which whole numbers are not between two others."""
    bits, signed = numbers.type.bit_width, pa.types.is_signed_integer(numbers.type)
    lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    mask = np.zeros(len(numbers), bool)
    if least > lowest:
        mask |= mask_of(pc.less(numbers, pa.scalar(least, numbers.type)))
    if greatest < highest:
        mask |= mask_of(pc.greater(numbers, pa.scalar(greatest, numbers.type)))
    return mask


def outside_calendar(numbers: pa.Array, unit: str = "us") -> np.ndarray:
    """Which numbers since 1970 are not within the years 1 to 9999."""
    return outside(numbers, _FIRST * _TICKS[unit], (_LAST + 1) * _TICKS[unit] - 1)


def of_times(column: pa.Array) -> Converted:
    """Times of any unit; those without a zone are UTC."""
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s" if pa.types.is_date32(column.type) else "ms"))
    unit = column.type.unit
    numbers = column.cast(pa.int64())
    refused = []
    if unit != "ns":  # which all lie within these years
        others = outside_calendar(numbers, unit)
        if others.any():
            as_numbers = pc.binary_join_element_wise(numbers.cast(pa.string()), unit, " ")
            refused.append(refused_because(NOT_IN_CALENDAR, as_numbers, np.flatnonzero(others)))
            numbers = _without(numbers, others)
    if unit in ("s", "ms"):
        numbers = pc.multiply(numbers, _TICKS["us"] // _TICKS[unit])
    if unit == "ns":
        whole = numbers.fill_null(0).to_numpy() // 1_000
        micros = pa.array(whole, mask=mask_of(pc.is_null(numbers)))
        cut = mask_of(pc.not_equal(pc.multiply(micros, 1_000), numbers))
        if cut.any():
            refused.append(refused_because(TOO_FINE, column.cast(pa.string()), np.flatnonzero(cut)))
        numbers = _without(micros, cut)
    return Converted(numbers.cast(TIMESTAMP), refused)


def without_nan(column: pa.Array) -> pa.Array:
    """A column in which NaN is null."""
    if not pa.types.is_floating(column.type):
        return column
    nan = pc.is_nan(column)
    return pc.if_else(nan, pa.scalar(None, column.type), column) if pc.any(nan).as_py() else column


def decided(values: pa.Array, column: pa.Array, suspects: np.ndarray, rule: Callable[[Any], Value | None]) -> Converted:
    """The rule for single values is asked about those that are not obvious."""
    rows = np.flatnonzero(suspects)
    if not len(rows):
        return Converted(without_nan(values), [])
    answers: list[Value | None] = []
    reasons: dict[str, list[int]] = {}
    for row, value in zip(rows.tolist(), column.take(pa.array(rows)).to_pylist(), strict=True):
        try:
            answers.append(rule(value))
        except ValueError as error:
            answers.append(None)
            reasons.setdefault(str(error), []).append(row)
    values = pc.replace_with_mask(values, pa.array(suspects), pa.array(answers, values.type))
    refused = [refused_because(reason, column, np.array(those)) for reason, those in reasons.items()]
    return Converted(without_nan(values), refused)


def refused_because(reason: str, column: pa.Array, rows: np.ndarray) -> Refused:
    return Refused(reason, rows, repr(column[int(rows[0])].as_py()))


def _without(column: pa.Array, rows: np.ndarray) -> pa.Array:
    return pc.if_else(pa.array(rows), pa.scalar(None, column.type), column) if rows.any() else column


def mask_of(found: pa.Array) -> np.ndarray:
    return pc.fill_null(found, False).to_numpy(zero_copy_only=False)
