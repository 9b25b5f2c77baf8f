"""What a value of a declared type is, one value at a time. `data/values.py` asks the same of whole columns.

A value is what is written, exactly, or it is refused; the error says why, without the value. A whole number stays what it
is; a fraction becomes the nearest float. NaN is null, of whatever type.
"""

import json
import math
import re
import struct
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, Literal, get_args

ColumnType = Literal["int8", "int16", "int32", "int64", "float32", "float64", "bool", "string", "timestamp"]
Value = bool | int | float | str | datetime

TYPES: tuple[ColumnType, ...] = get_args(ColumnType)
INTEGERS = {type_: int(type_[3:]) for type_ in TYPES if type_.startswith("int")}  # bits
FLOATS = {"float32": 2**24, "float64": 2**53}  # beyond these only some whole numbers are among the floats
TRUE = ("true", "t", "1")

_NAN, _INFINITE = "[nN][aA][nN]", "[+-]?[iI][nN][fF]([iI][nN][iI][tT][yY])?"
_INTEGER = rf"[+-]?[0-9]+([.]0*)?|{_NAN}"
_NUMBER = rf"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?|{_INFINITE}|{_NAN}"
_CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,6}0*)?)?"
_ZONE = "[zZ]|UTC|[+-](0[0-9]|1[0-5])(:?[0-5][0-9])?|[+]00:?00 UTC"
# Whole texts, for Python and RE2 alike. Text around which there are blanks is looked at without them.
PATTERNS: dict[ColumnType, str] = {
    **dict.fromkeys(INTEGERS, _INTEGER),
    **dict.fromkeys(FLOATS, _NUMBER),
    "bool": "[tT]([rR][uU][eE])?|[fF]([aA][lL][sS][eE])?|[01]",
    "timestamp": rf"(?P<day>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})([Tt ](?P<clock>{_CLOCK}))?( ?(?P<zone>{_ZONE}))?",
}  # type: ignore[assignment]  # the keys of dict.fromkeys are the types
_NOUNS = {
    **dict.fromkeys(INTEGERS, "no whole number"),
    **dict.fromkeys(FLOATS, "no number"),
    "bool": "neither true nor false",
    "string": "no text",
    "timestamp": "no time such as 2024-03-01T12:30:00Z",
}
_FINE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:]{8}[.][0-9]{7,}.*")
_MANY_DIGITS = 40  # more than any number here has; Python parses no text of thousands of them
_MICROSECONDS = len("12:30:00.000000")
_ARTICLES = {"bool": "true or false", "string": "a string", "timestamp": "a time"}
SKIPPED = "beyond {}, where a float stands for several whole numbers"
NOT_IN_CALENDAR = "no time within the years 1 to 9999"
TOO_FINE = "a time with more than microseconds"


def of_text(type_: ColumnType, text: str) -> Value | None:
    """The value that a text of an untyped format, such as CSV, stands for. Without any characters it is null.

    Raises:
        ValueError: if it stands for none.
    """
    if type_ == "string":
        return text
    text = text.strip(" \t")
    return parsed(type_, text) if text else None


def of_json(type_: ColumnType, value: Any) -> Value | None:
    """The value that one of a typed format stands for: JSON, YAML, or an object of Python.

    Texts are texts and times, and nothing else. Times without a zone are UTC.

    Raises:
        ValueError: if it stands for none.
    """
    if value is None:
        return None
    if type_ in FLOATS or type_ in INTEGERS:
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            raise ValueError(misfit(type_, value))
        if value != value:  # NaN
            return None
        return _integer(type_, value) if type_ in INTEGERS else _float(type_, value)
    if type_ == "bool" and isinstance(value, bool):
        return value
    if type_ == "string" and isinstance(value, str):
        return value
    if type_ == "timestamp" and isinstance(value, datetime | date):
        return _in_utc(value if isinstance(value, datetime) else datetime.combine(value, time()))
    if type_ == "timestamp" and isinstance(value, str):
        return parsed(type_, value)
    raise ValueError(misfit(type_, value))


def parse_json(text: str | bytes) -> Any:
    """JSON of which every name has one value. NaN and Infinity pass, for the field that has them to be named.

    Raises:
        ValueError: if it is no JSON, nested too deeply to be read, or has two values for a name in one object.
    """
    try:
        return json.loads(text, object_pairs_hook=_with_single_values)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _with_single_values(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        name = next(name for n, (name, _) in enumerate(pairs) if name in dict(pairs[:n]))
        raise ValueError(f"two values for {name!r}")
    return found


def misfit(type_: ColumnType, value: Any) -> str:
    """That a value is none of those that can be of the type, in the words of JSON."""
    words = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    found = "a time" if isinstance(value, date) else words.get(type(value), "a number")
    return f"{found}, not {_ARTICLES.get(type_, 'a number')}"


def parsed(type_: ColumnType, text: str) -> Value | None:
    """The value that a text stands for that has to be one.

    Raises:
        ValueError: if it stands for none.
    """
    if not re.fullmatch(PATTERNS[type_], text):
        raise ValueError(TOO_FINE if type_ == "timestamp" and _FINE.fullmatch(text) else _NOUNS[type_])
    if type_ == "bool":
        return text.lower() in TRUE
    if type_ == "timestamp":
        return _time(text)
    if text.lower() == "nan":
        return None
    if type_ in INTEGERS:
        whole, point, _ = text.partition(".")
        number = int(whole) if len(whole.lstrip("+-0")) < _MANY_DIGITS else 10**_MANY_DIGITS
        if point and abs(number) > FLOATS["float64"]:  # it was a float once
            raise ValueError(SKIPPED.format(FLOATS["float64"]))
        return _integer(type_, number)
    return _float(type_, text)


def _integer(type_: ColumnType, number: float | Decimal) -> int:
    if not isinstance(number, int) and not math.isfinite(number):
        raise ValueError(_NOUNS[type_])
    if isinstance(number, float) and abs(number) > FLOATS["float64"]:
        raise ValueError(SKIPPED.format(FLOATS["float64"]))
    limit = 2 ** (INTEGERS[type_] - 1)
    if not -limit <= number < limit:
        raise ValueError(f"beyond {type_}, {-limit} to {limit - 1}")
    if number != int(number):
        raise ValueError(_NOUNS[type_])
    return int(number)


def _float(type_: ColumnType, number: float | Decimal | str) -> float:
    """The nearest float, where rounding takes away nothing but digits after the point."""
    try:
        double = float(number)
    except OverflowError:
        double = math.inf
    if math.isinf(double):
        if number.strip("+-")[0] in "iI" if isinstance(number, str) else number in (math.inf, -math.inf):
            return double
        raise ValueError(f"beyond {type_}")
    if isinstance(number, str):
        exact = Decimal(number) if double else Decimal(bool(re.match("[^eE]*[1-9]", number)))
        is_its_name = "e" in number.lower() and exact == Decimal(repr(double))  # how writers of floats write this one
        number = Decimal(double) if is_its_name else exact
    _require(type_, number, double, FLOATS["float64"])
    if type_ == "float64":
        return double
    try:
        (single,) = struct.unpack("<f", struct.pack("<f", double))
    except OverflowError:
        raise ValueError(f"beyond {type_}") from None
    _require(type_, double, single, FLOATS["float32"])
    return single


def _require(type_: str, number: float | Decimal, nearest: float, exact_up_to: int) -> None:
    if number and not nearest:
        raise ValueError(f"nearer to zero than a {type_} can be")
    if abs(number) > exact_up_to and number != nearest:
        raise ValueError(f"no {type_} without loss: beyond {exact_up_to} it has only some of the numbers")


def _time(text: str) -> datetime:
    found = re.fullmatch(PATTERNS["timestamp"], text)
    assert found, text
    zone = found["zone"] or ""
    clock = (found["clock"] or "00:00")[:_MICROSECONDS]
    try:
        offset = zone.removesuffix(" UTC") if zone[:1] in ("+", "-") else ""
        moment = datetime.fromisoformat(f"{found['day']}T{clock}{offset}")
    except ValueError:
        raise ValueError(NOT_IN_CALENDAR) from None
    return _in_utc(moment)


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError(NOT_IN_CALENDAR) from None
