"""From named columns to the matrix that a model reads: request expressions, then scaling fitted on the training rows."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ml_platform.core.errors import FeatureError
from ml_platform.features.expressions import Expression


@dataclass(frozen=True)
class Transforms:
    """Fitted transforms. They are part of the bundle: whoever scores applies these, and never fits again.

    `columns` are snapshot features taken as they are, `expressions` the request features by name. The matrix has first
    the one, then the other; `mean` and `scale` have one entry for each.
    """

    columns: tuple[str, ...]
    expressions: Mapping[str, str]
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def fit(
        cls, columns: tuple[str, ...], expressions: Mapping[str, str], rows: Mapping[str, np.ndarray]
    ) -> "Transforms":
        """Learn mean and standard deviation from the training rows."""
        unscaled = cls(
            columns,
            dict(expressions),
            (0.0,) * cls._width(columns, expressions),
            (1.0,) * cls._width(columns, expressions),
        )
        matrix = unscaled._matrix(rows)
        deviation = matrix.std(axis=0)
        return cls(
            columns,
            dict(expressions),
            tuple(matrix.mean(axis=0).tolist()),
            tuple(np.where(deviation > 0, deviation, 1.0).tolist()),
        )

    def apply(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """The model's input: float32 [rows, features].

        The inverse hyperbolic sine of the z-score keeps rare large values apart, where clipping would make them equal.
        """
        scaled = (self._matrix(rows) - np.asarray(self.mean)) / np.asarray(self.scale)
        return np.arcsinh(scaled).astype(np.float32)

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.columns, *self.expressions)

    @cached_property
    def parsed(self) -> tuple[Expression, ...]:
        return tuple(Expression(name, text) for name, text in self.expressions.items())

    @property
    def required_columns(self) -> tuple[str, ...]:
        """Every column that rows must have."""
        return tuple(dict.fromkeys([*self.columns, *(c for expression in self.parsed for c in expression.columns)]))

    def to_json(self) -> bytes:
        content = {"columns": self.columns, "expressions": self.expressions, "mean": self.mean, "scale": self.scale}
        return json.dumps(content, indent=1).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Transforms":
        content = json.loads(text)
        return cls(tuple(content["columns"]), content["expressions"], tuple(content["mean"]), tuple(content["scale"]))

    def _matrix(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        if missing := [name for name in self.required_columns if name not in rows]:
            raise FeatureError(
                "model input", f"columns are missing: {', '.join(missing)}", "give every column of the input schema"
            )
        values = [np.asarray(rows[name], dtype=np.float64) for name in self.columns]
        return np.column_stack([*values, *(expression(rows) for expression in self.parsed)])

    @staticmethod
    def _width(columns: tuple[str, ...], expressions: Mapping[str, str]) -> int:
        return len(columns) + len(expressions)
