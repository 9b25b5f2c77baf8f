"""The expressions of request features: a small, closed part of Python's syntax over named columns.

Expressions are text, so they travel in the model bundle and run the same in training, batch scoring and serving. They can
reach nothing but the columns and functions given here, and an expression that a bundle brings can neither write to a column nor take
the process with it: arity is fixed, length, depth and numbers have limits.

Numbers are float64 whatever type their column has: int32 would overflow in training, and not in a request. A value that follows
from a null is null (NaN, or None where it is a name), unless `is_null` or `fill_null` says what it is.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ml_platform.core.errors import FeatureError
from ml_platform.core.spec.expression import reads

_MICROSECONDS_PER_HOUR = 3_600_000_000
_MICROSECONDS_PER_DAY = 24 * _MICROSECONDS_PER_HOUR
_MONDAY_BEFORE_EPOCH = 3  # 1970-01-01 was a Thursday


def _microseconds(times: np.ndarray) -> np.ndarray:
    return times.astype("datetime64[us]").astype(np.int64)


def _of_time(compute: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], np.ndarray]:
    """A function of whole microseconds, as float64; a time that is missing stays that."""

    def function(times: Any) -> np.ndarray:
        times = np.asarray(times)
        if times.dtype.kind != "M":
            raise TypeError("it is of a time")
        return np.where(np.isnat(times), np.nan, compute(_microseconds(times)).astype(np.float64))

    return function


def is_null(values: Any) -> np.ndarray:
    """Which values are missing: None, NaN, or no time."""
    values = np.asarray(values)
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind == "M":
        return np.isnat(values)
    if values.dtype.kind == "O":
        return np.array([value is None or value != value for value in values.ravel()], bool).reshape(values.shape)
    return np.zeros(values.shape, bool)


def _number(values: Any) -> Any:
    """Numbers as float64; what is none stays as it is, for numpy to refuse or compare."""
    values = np.asarray(values)
    if values.dtype.kind == "O" and all(
        value is None or isinstance(value, bool | int | float) for value in values.flat
    ):
        return np.array([np.nan if value is None else value for value in values.flat], np.float64).reshape(values.shape)
    return values.astype(np.float64) if values.dtype.kind in "biuf" else values


def _truth(values: Any) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind == "b":
        return values
    numbers = _number(values)
    if numbers.dtype.kind != "f":
        raise TypeError("only numbers and comparisons are true or false")
    return numbers != 0


def _numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *values: function(*map(_number, values))


# Each with the number of its arguments: one more would be an array that numpy writes to.
FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "abs": (1, _numbers(np.abs)),
    "asinh": (1, _numbers(np.arcsinh)),
    "log1p": (1, _numbers(np.log1p)),
    "sqrt": (1, _numbers(np.sqrt)),
    "maximum": (2, _numbers(np.maximum)),
    "minimum": (2, _numbers(np.minimum)),
    "where": (3, lambda true, this, that: np.where(_truth(true), _number(this), _number(that))),
    "hour": (1, _of_time(lambda at: at % _MICROSECONDS_PER_DAY // _MICROSECONDS_PER_HOUR)),
    "day_of_week": (1, _of_time(lambda at: (at // _MICROSECONDS_PER_DAY + _MONDAY_BEFORE_EPOCH) % 7)),
    "is_null": (1, is_null),
    "fill_null": (2, lambda values, other: np.where(is_null(values), _number(other), _number(values))),
}
MOST_CHARACTERS = 2_000
MOST_DEEP = 50  # operations within each other
LARGEST = 2**53  # of a whole number: beyond it float64 leaves some out
_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: _numbers(np.add),
    ast.Sub: _numbers(np.subtract),
    ast.Mult: _numbers(np.multiply),
    ast.Div: _numbers(np.divide),
    ast.BitAnd: lambda one, other: _truth(one) & _truth(other),
    ast.BitOr: lambda one, other: _truth(one) | _truth(other),
    ast.Lt: _numbers(operator.lt),
    ast.LtE: _numbers(operator.le),
    ast.Gt: _numbers(operator.gt),
    ast.GtE: _numbers(operator.ge),
    ast.Eq: _numbers(operator.eq),
    ast.NotEq: _numbers(operator.ne),
}


class Expression:
    """A parsed expression.

    Raises:
        FeatureError: on parsing, if the text uses anything beyond columns, numbers, arithmetic (+ - * /), comparisons,
            & and |, and the functions in `FUNCTIONS`.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        if len(text) > MOST_CHARACTERS:
            raise self._error(f"has {len(text)} characters (at most {MOST_CHARACTERS})")
        try:
            self._root = ast.parse(text, mode="eval").body
        except SyntaxError as error:
            raise self._error(f"is not an expression: {error.msg}") from error
        except (
            ValueError,
            RecursionError,
            MemoryError,
        ) as error:  # a null byte, an endless number, a thousand brackets
            raise self._error(f"is not an expression: {error or 'nested too deeply'}") from error
        self._check(self._root, MOST_DEEP)
        found = reads(self._root)
        self.columns, self.bare = list(found.columns), list(found.bare)

    def __call__(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Values of the expression, float64, one per row."""
        return np.asarray(self.as_it_is(columns), dtype=np.float64)

    def as_it_is(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Values of the expression in their own type, which for a bare column may be strings."""
        try:
            with np.errstate(all="ignore"):
                return np.asarray(self._value(self._root, columns))
        except (TypeError, ValueError, ArithmeticError) as error:  # such as a string that is added to a number
            raise self._error(f"cannot be computed: {error}") from error

    def _check(self, node: ast.AST, depth: int) -> None:
        if depth == 0:
            raise self._error(f"has more than {MOST_DEEP} operations within each other")
        match node:
            case ast.Name() | ast.Constant(value=bool() | float()):
                pass
            case ast.Constant(value=int(value)):
                if value > LARGEST:
                    raise self._error(f"has a whole number larger than {LARGEST}")
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                self._check(operand, depth - 1)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                self._check(left, depth - 1)
                self._check(right, depth - 1)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _BINARY:
                self._check(left, depth - 1)
                self._check(right, depth - 1)
            case ast.Call(func=ast.Name(id=function), args=arguments, keywords=[]) if function in FUNCTIONS:
                wanted, _ = FUNCTIONS[function]
                if len(arguments) != wanted:
                    raise self._error(f"gives {function} {len(arguments)} arguments, not {wanted}")
                for argument in arguments:
                    self._check(argument, depth - 1)
            case _:
                raise self._error(f"may not contain `{ast.unparse(node)[:100]}`")

    def _value(self, node: ast.AST, columns: Mapping[str, np.ndarray]) -> Any:
        match node:
            case ast.Name(id=name):
                return columns[name]
            case ast.Constant(value=value):
                return value
            case ast.UnaryOp(operand=operand):
                return -_number(self._value(operand, columns))
            case ast.BinOp(left=left, op=op, right=right) | ast.Compare(left=left, ops=[op], comparators=[right]):
                return _BINARY[type(op)](self._value(left, columns), self._value(right, columns))
            case ast.Call(func=ast.Name(id=function), args=arguments):
                return FUNCTIONS[function][1](*(self._value(argument, columns) for argument in arguments))
        raise AssertionError(f"unchecked node {node}")

    def _error(self, problem: str) -> FeatureError:
        return FeatureError(
            f"feature {self.name}",
            f"expression `{self.text[:200]}` {problem}",
            f"use columns, numbers, + - * / < >, {', '.join(FUNCTIONS)}",
        )
