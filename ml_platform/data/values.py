# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# The stubs of PyArrow know fewer methods than the library has.
"""The one table of what a value is, for whole columns: whichever door it comes in by, it is the same value, or refused.

| declared | text (CSV) | JSON | Arrow (Parquet, SQL) |
|---|---|---|---|
| int8 to int64 | `[+-]?digits`, maybe `.0` | a number so written | integers, decimals and floats that are whole; floats up to 2^53 |
| float32, float64 | digits with point and exponent, `inf` | a number | numbers; whole ones exactly, fractions to the nearest |
| bool | true, false, t, f, 1, 0, in any case | true, false | booleans |
| string | the text as it is | a string | strings |
| timestamp | ISO 8601, at most microseconds | a string so written | timestamps of any unit and zone, dates |

Null is null, NaN is null, and so is text without characters that should be a number, a boolean or a time. The patterns, and what
happens to a single value, are in `core/values.py`; here what is obvious is converted together, and the rest asked there.
"""

from collections.abc import Callable
from decimal import Decimal
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_platform.core.values import (
    FLOATS,
    INTEGERS,
    PATTERNS,
    TRUE,
    ColumnType,
    Value,
    misfit,
    of_json,
    of_text,
    parse_json,
    parsed,
)
from ml_platform.data.columns import (
    ARROW_TYPES,
    TIMESTAMP,
    Converted,
    decided,
    mask_of,
    narrow_floats,
    narrow_integers,
    of_numbers,
    of_times,
    outside,
    outside_calendar,
    refused_because,
    without_nan,
)

__all__ = ["ARROW_TYPES", "Converted", "converted", "may_become", "of_json", "of_text", "parse_json", "without_nan"]

_JSON_KINDS = {
    **dict.fromkeys((*INTEGERS, *FLOATS), ("DOUBLE", "BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT")),
    "bool": ("BOOLEAN",),
    "string": ("VARCHAR",),
    "timestamp": ("VARCHAR",),
}
_EXAMPLES = {"VARCHAR": "", "BOOLEAN": True, "OBJECT": {}, "ARRAY": [], **dict.fromkeys(_JSON_KINDS["int64"], 0)}
# What makes texts of the pattern for times such as Arrow reads them.
_AS_ARROW_READS_TIMES = (
    (" ?([zZ]|UTC|[+]00:?00 UTC)$", "Z"),
    ("^(.{10})t", r"\1T"),
    ("^(.{10})( ?[+-].*|Z)?$", r"\1T00:00\2"),
    ("([.][0-9]{6})0+", r"\1"),
    (" ([+-])", r"\1"),
    ("([T ][0-9:.]+)$", r"\1Z"),
)


def may_become(found: pa.DataType, type_: ColumnType) -> bool:
    """Whether values of an Arrow type can be of a declared one without being reinterpreted; text is text alone."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_null(found):
        return True
    if type_ in INTEGERS or type_ in FLOATS:
        return any(is_(found) for is_ in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal))
    if type_ == "string":
        return _is_text(found)
    if type_ == "timestamp":
        return pa.types.is_timestamp(found) or pa.types.is_date(found)
    return pa.types.is_boolean(found)


def converted(column: pa.Array, type_: ColumnType, json_kinds: pa.Array | None = None) -> Converted:
    """A column of an object's rows as values of a declared type.

    Args:
        column: of a type that `may_become` the declared one, or text.
        json_kinds: what DuckDB's `json_type` says of each value, if it is text that was taken from JSON.
    """
    column = _plain(column)
    if pa.types.is_null(column.type):
        return Converted(pa.nulls(len(column), ARROW_TYPES[type_]), [])
    if json_kinds is not None:
        return _of_json(column, type_, json_kinds)
    if type_ in ("string", "bool") and not (type_ == "bool" and _is_text(column.type)):
        return Converted(column, [])
    if pa.types.is_decimal(column.type):
        column = _digits(column, type_)
    if _is_text(column.type):
        return _of_text(column, type_, of_text)
    return of_times(column) if type_ == "timestamp" else of_numbers(column, type_)


def _plain(column: pa.Array) -> pa.Array:
    """A column whose values lie there themselves, and whose texts are of the usual type."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.type == pa.float16():
        return column.cast(pa.float32())
    return column.cast(pa.string()) if _is_text(column.type) else column


def _is_text(type_: pa.DataType) -> bool:
    return any(is_(type_) for is_ in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


# --- text -------------------------------------------------------------------------------------------------------------


def _of_json(text: pa.Array, type_: ColumnType, kinds: pa.Array) -> Converted:
    fits = pc.is_in(kinds, pa.array(_JSON_KINDS[type_]))
    others = mask_of(pc.and_(pc.invert(fits), pc.is_valid(text)))
    text_of_kind = pc.if_else(fits, text, pa.scalar(None, pa.string()))
    result = Converted(text_of_kind, []) if type_ == "string" else _of_text(text_of_kind, type_, parsed)
    if not others.any():
        return result
    reasons = {name: misfit(type_, example) for name, example in _EXAMPLES.items()}
    refused = [
        refused_because(reasons[name], text, np.flatnonzero(others & mask_of(pc.equal(kinds, name))))
        for name in pc.unique(kinds.filter(pa.array(others))).to_pylist()
    ]
    return Converted(result.values, [*refused, *result.refused])


def _of_text(text: pa.Array, type_: ColumnType, rule: Callable[[ColumnType, str], Value | None]) -> Converted:
    """The pattern is matched before anything is cast: every library has a grammar of its own."""
    suspects, likely = np.zeros(len(text), bool), text
    if not _is_plain(text, type_):
        pattern = rf"\A({PATTERNS[type_]})\z"
        matched = pc.match_substring_regex(text, pattern)
        if rule is of_text and not pc.all(matched).as_py():
            text = pc.utf8_trim(text, " \t")
            text = likely = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
            matched = pc.match_substring_regex(text, pattern)
        if not pc.all(matched).as_py():
            suspects = mask_of(pc.invert(matched))
            likely = pc.if_else(matched, text, pa.scalar(None, pa.string()))
    if type_ == "bool":
        values = pc.is_in(pc.utf8_lower(likely), pa.array(TRUE))
        values = pc.if_else(pc.is_valid(likely), values, pa.scalar(None, pa.bool_()))
    elif type_ == "timestamp":
        values = _read_times(likely)
        suspects |= outside_calendar(values.cast(pa.int64())) | _unread(values, text)
    elif type_ in INTEGERS:
        numbers = _read(likely, pa.int64(), ("^[+]|[.]0*$", ""))
        values, beyond = narrow_integers(numbers, type_)
        suspects |= beyond | _unread(values, text)
        if (large := outside(numbers, -FLOATS["float64"], FLOATS["float64"])).any():
            suspects |= large & mask_of(pc.match_substring(likely, "."))
    else:
        doubles = _read(likely, pa.float64())
        values, lost = narrow_floats(doubles, type_)
        suspects |= lost | _unread(doubles, text) | mask_of(pc.greater_equal(pc.abs(doubles), float(FLOATS["float64"])))
        if pc.any(zero := pc.equal(doubles, 0.0)).as_py():
            suspects |= mask_of(pc.and_(zero, pc.match_substring_regex(likely, "^[^eE]*[1-9]")))
    return decided(values, text, suspects, partial(rule, type_))


def _is_plain(text: pa.Array, type_: ColumnType) -> bool:
    """Whether all texts consist of characters of which Arrow reads nothing but what has the pattern: ten times as fast."""
    characters = b"-0123456789" if type_ in INTEGERS else b"-0123456789." if type_ in FLOATS else b""
    if not characters or text.null_count == len(text) or not pc.min(pc.binary_length(text)).as_py():
        return False
    _, offsets, content = text.buffers()
    ends = np.frombuffer(offsets, np.int32)[[text.offset, text.offset + len(text)]]
    return not content[int(ends[0]) : int(ends[1])].to_pybytes().translate(None, characters)


def _read(text: pa.Array, wanted: pa.DataType, *mends: tuple[str, str]) -> pa.Array:
    """Text cast to a type; null where that cannot be done."""
    try:
        return text.cast(wanted)
    except pa.ArrowInvalid:
        for pattern, replacement in mends:
            text = pc.replace_substring_regex(text, pattern, replacement)
        return _cast_by_halves(text, wanted)


def _unread(values: pa.Array, text: pa.Array) -> np.ndarray:
    """Which texts have no value."""
    if values.null_count == text.null_count:
        return np.zeros(len(text), bool)
    return mask_of(pc.and_(pc.is_null(values), pc.is_valid(text)))


def _cast_by_halves(text: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Arrow casts all or nothing."""
    try:
        return text.cast(wanted)
    except pa.ArrowInvalid:
        if len(text) <= 1:
            return pa.nulls(len(text), wanted)
        half = len(text) // 2
        return pa.concat_arrays([_cast_by_halves(part, wanted) for part in (text[:half], text[half:])])


def _read_times(text: pa.Array) -> pa.Array:
    try:
        return text.cast(pa.timestamp("us")).cast(TIMESTAMP)  # refuses zones
    except pa.ArrowInvalid:
        return _read(text, TIMESTAMP, *_AS_ARROW_READS_TIMES)


def _digits(decimals: pa.Array, type_: ColumnType) -> pa.Array:
    """Decimals as text, without exponents; whole ones without a point, since they are exact.

    Arrow itself rounds them on their way to floats, and casts no column with a half to whole numbers.
    """
    text = decimals.cast(pa.string())
    with_exponent = pc.match_substring(text, "E")
    if pc.any(with_exponent).as_py():
        plain = [format(Decimal(one), "f") for one in text.filter(with_exponent).to_pylist()]
        text = pc.replace_with_mask(text, pc.fill_null(with_exponent, False), pa.array(plain, pa.string()))
    return pc.replace_substring_regex(text, "[.]0*$", "") if type_ in INTEGERS else text
