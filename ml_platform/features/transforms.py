"""From named columns to the matrix that a model reads: request expressions, then what was fitted on the training rows."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ml_platform.core.errors import FeatureError
from ml_platform.core.spec import FeatureViewSpec
from ml_platform.features.expressions import Expression, is_null

UNKNOWN = 0  # the code of every value that is not in the vocabulary


@dataclass(frozen=True)
class Feature:
    """A column of the matrix. With `categories` it has codes, from 1 to that number and `UNKNOWN`, otherwise a number.

    `default` is what the matrix has where nothing is known of an entity. Columns of one `vector` are in its order.
    """

    name: str
    categories: int = 0
    default: float = 0.0
    vector: str = ""


@dataclass(frozen=True)
class Transforms:
    """Fitted transforms. They are part of the bundle: whoever scores applies these, and never fits again.

    `columns` are snapshot features taken as they are, `expressions` the request features by name. The matrix has first
    the one, then the other; `mean` and `scale` have one entry for each. `categories` has the values of a feature that is a
    name and no number, in the order of their codes; `vectors` has the columns of each vector; `defaults` has the value of a
    request feature that follows from a null.

    The columns of a vector share one mean and one scale: they are the same quantity at different steps, and whoever reads
    them step by step needs the same value to look the same at each.
    """

    columns: tuple[str, ...]
    expressions: Mapping[str, str]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    categories: Mapping[str, tuple[float | str, ...]] = field(default_factory=dict)
    vectors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    defaults: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of_views(
        cls,
        daily_views: Sequence[FeatureViewSpec],
        request_views: Sequence[FeatureViewSpec],
        rows: Mapping[str, np.ndarray],
    ) -> "Transforms":
        """Learn the transforms of a model's features from its training rows."""
        daily = {name: feature for view in daily_views for name, feature in view.features.items()}
        requested = {name: feature for view in request_views for name, feature in view.features.items()}
        most = {name: feature.categories for name, feature in {**daily, **requested}.items() if feature.categories}
        vectors: dict[str, tuple[str, ...]] = {}
        for name, feature in daily.items():
            if feature.vector:
                vectors[feature.vector] = (*vectors.get(feature.vector, ()), name)
        expressions = {name: feature.expression or "" for name, feature in requested.items()}
        defaults = {
            name: feature.default for name, feature in requested.items() if "default" in feature.model_fields_set
        }
        return cls.fit(tuple(daily), expressions, rows, most, vectors, defaults)

    @classmethod
    def fit(
        cls,
        columns: tuple[str, ...],
        expressions: Mapping[str, str],
        rows: Mapping[str, np.ndarray],
        most_categories: Mapping[str, int] | None = None,
        vectors: Mapping[str, tuple[str, ...]] | None = None,
        defaults: Mapping[str, float] | None = None,
    ) -> "Transforms":
        """Learn mean and standard deviation of numbers, and the most frequent values of features with categories.

        Raises:
            FeatureError: if a number is missing or infinite in one of the rows: it would take the whole feature away.
        """
        names = (*columns, *expressions)
        zeros, ones = (0.0,) * len(names), (1.0,) * len(names)
        unscaled = cls(columns, dict(expressions), zeros, ones, defaults=dict(defaults or {}))
        values = unscaled._values(rows)
        categories = {name: _most_frequent(name, values[name], most) for name, most in (most_categories or {}).items()}
        matrix = np.column_stack(
            [np.zeros(len(value)) if name in categories else value for name, value in values.items()]
        ).astype(np.float64)
        _check_finite(names, matrix)
        mean, deviation = matrix.mean(axis=0), matrix.std(axis=0)
        for vector in (vectors or {}).values():
            at = [names.index(name) for name in vector]
            mean[at], deviation[at] = matrix[:, at].mean(), matrix[:, at].std()
        return cls(
            columns,
            dict(expressions),
            tuple(mean.tolist()),
            tuple(np.where(deviation > 0, deviation, 1.0).tolist()),
            categories,
            dict(vectors or {}),
            dict(defaults or {}),
        )

    def apply(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """The model's input: float32 [rows, features].

        The inverse hyperbolic sine of the z-score keeps rare large values apart, where clipping would make them equal.
        Codes stay as they are.
        """
        values = self._values(rows)
        return self._scaled(
            np.column_stack(
                [self._codes(name, value) if name in self.categories else value for name, value in values.items()]
            ).astype(np.float64)
        )

    def describe(self, defaults: Mapping[str, float]) -> tuple[Feature, ...]:
        """Each column of the matrix, for trainers; `defaults` are of the features that are looked up."""
        scaled = self._scaled(np.array([[defaults.get(name, 0.0) for name in self.names]]))[0].tolist()
        vector_of = {column: vector for vector, columns in self.vectors.items() for column in columns}
        return tuple(
            Feature(
                name,
                len(self.categories.get(name, ())),
                0.0 if name in self.categories else value,
                vector_of.get(name, ""),
            )
            for name, value in zip(self.names, scaled, strict=True)
        )

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
        content = {
            "columns": self.columns,
            "expressions": self.expressions,
            "mean": self.mean,
            "scale": self.scale,
            "categories": self.categories,
            "vectors": self.vectors,
            "defaults": self.defaults,
        }
        return json.dumps(content, indent=1).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Transforms":
        content = json.loads(text)
        return cls(
            tuple(content["columns"]),
            content["expressions"],
            tuple(content["mean"]),
            tuple(content["scale"]),
            # bundles from before there were categories and vectors have none
            {name: tuple(values) for name, values in content.get("categories", {}).items()},
            {name: tuple(columns) for name, columns in content.get("vectors", {}).items()},
            content.get("defaults", {}),
        )

    def _values(self, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every feature's values as the rows have them, by name."""
        if missing := [name for name in self.required_columns if name not in rows]:
            raise FeatureError(
                "model input", f"columns are missing: {', '.join(missing)}", "give every column of the input schema"
            )
        given = {name: np.asarray(rows[name]) for name in self.columns}
        return given | {expression.name: self._requested(expression, rows) for expression in self.parsed}

    def _requested(self, expression: Expression, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """A request feature, with its default where it follows from a null. A null name is a name that nobody knows."""
        values, default = expression.as_it_is(rows), self.defaults.get(expression.name)
        if default is None or expression.name in self.categories:
            return values
        nulls = [is_null(rows[column]) for column in expression.bare]
        missing = np.logical_or.reduce([is_null(values), *nulls])
        return np.where(missing, default, values) if missing.any() else values

    def _codes(self, feature: str, values: np.ndarray) -> np.ndarray:
        code_of = self._code_of[feature]
        return np.array([code_of.get(value, UNKNOWN) for value in _names(feature, values)], dtype=np.float64)

    @cached_property
    def _code_of(self) -> dict[str, dict[float | str, int]]:
        return {
            name: {value: code for code, value in enumerate(values, start=1)}
            for name, values in self.categories.items()
        }

    def _scaled(self, matrix: np.ndarray) -> np.ndarray:
        scaled = np.arcsinh((matrix - np.asarray(self.mean)) / np.asarray(self.scale))
        coded = [position for position, name in enumerate(self.names) if name in self.categories]
        scaled[:, coded] = matrix[:, coded]
        return scaled.astype(np.float32)


def _check_finite(names: Sequence[str], matrix: np.ndarray) -> None:
    for name, values in zip(names, matrix.T, strict=True):
        if wrong := int((~np.isfinite(values)).sum()):
            raise FeatureError(
                f"feature {name}",
                f"is missing or infinite in {wrong:,} of {len(values):,} training rows",
                "set its `default`, use is_null() or fill_null() in its expression, or mend the view's function",
            )


def _most_frequent(feature: str, values: np.ndarray, most: int) -> tuple[float | str, ...]:
    """The values that get a code, the most frequent first, of equals the smaller first."""
    counts = Counter(value for value in _names(feature, values) if value is not None and value == value)  # no NaN
    return tuple(sorted(counts, key=lambda value: (-counts[value], value))[:most])


def _names(feature: str, values: np.ndarray) -> list[Any]:
    """Values as a vocabulary has them: strings, or float64 as which a request has every number. Null is None or NaN."""
    if values.dtype.kind == "M":
        raise FeatureError(f"feature {feature}", "is a time, which has no categories", "use hour() or day_of_week()")
    return (values.astype(np.float64) if values.dtype.kind in "biuf" else values).tolist()
