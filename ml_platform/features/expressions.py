"""The expressions of request features: a small, closed part of Python's syntax over named columns.

Expressions are text, so they travel in the model bundle and run the same in training, batch scoring and serving. They can
reach nothing but the columns and functions given here.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ml_platform.core.errors import FeatureError

_MICROSECONDS_PER_HOUR = 3_600_000_000
_MICROSECONDS_PER_DAY = 24 * _MICROSECONDS_PER_HOUR
_MONDAY_BEFORE_EPOCH = 3  # 1970-01-01 was a Thursday


def _microseconds(times: np.ndarray) -> np.ndarray:
    return times.astype("datetime64[us]").astype(np.int64)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "asinh": np.arcsinh,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "where": np.where,
    "hour": lambda times: _microseconds(times) % _MICROSECONDS_PER_DAY // _MICROSECONDS_PER_HOUR,
    "day_of_week": lambda times: (_microseconds(times) // _MICROSECONDS_PER_DAY + _MONDAY_BEFORE_EPOCH) % 7,
}
_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
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
        self.columns: list[str] = []
        try:
            self._root = ast.parse(text, mode="eval").body
        except SyntaxError as error:
            raise self._error(f"is not an expression: {error.msg}") from error
        self._check(self._root)

    def __call__(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Values of the expression, float64, one per row."""
        return np.asarray(self.as_it_is(columns), dtype=np.float64)

    def as_it_is(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Values of the expression in their own type, which for a bare column may be strings."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self._value(self._root, columns))

    def _check(self, node: ast.AST) -> None:
        match node:
            case ast.Name(id=name):
                if name not in self.columns:
                    self.columns.append(name)
            case ast.Constant(value=int() | float()):
                pass
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                self._check(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                self._check(left)
                self._check(right)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _BINARY:
                self._check(left)
                self._check(right)
            case ast.Call(func=ast.Name(id=function), args=arguments, keywords=[]) if function in FUNCTIONS:
                for argument in arguments:
                    self._check(argument)
            case _:
                raise self._error(f"may not contain `{ast.unparse(node)}`")

    def _value(self, node: ast.AST, columns: Mapping[str, np.ndarray]) -> Any:
        match node:
            case ast.Name(id=name):
                return columns[name]
            case ast.Constant(value=value):
                return value
            case ast.UnaryOp(operand=operand):
                return -self._value(operand, columns)
            case ast.BinOp(left=left, op=op, right=right) | ast.Compare(left=left, ops=[op], comparators=[right]):
                return _BINARY[type(op)](self._value(left, columns), self._value(right, columns))
            case ast.Call(func=ast.Name(id=function), args=arguments):
                return FUNCTIONS[function](*(self._value(argument, columns) for argument in arguments))
        raise AssertionError(f"unchecked node {node}")

    def _error(self, problem: str) -> FeatureError:
        return FeatureError(
            f"feature {self.name}",
            f"expression `{self.text}` {problem}",
            f"use columns, numbers, + - * / < >, {', '.join(FUNCTIONS)}",
        )
