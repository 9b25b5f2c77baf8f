"""Linear models: logistic regression for classes, ridge regression for values. Fitted by scikit-learn, applied by numpy."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import safetensors.numpy

from ml_platform.core.errors import SpecError
from ml_platform.core.spec.trainers import LinearParams, checked
from ml_platform.core.tasks import Task
from ml_platform.training.trainers import Context, Labelled
from ml_platform.training.trainers.loss import loss

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
MOST_CATEGORIES = 100  # of a feature: each has a coefficient of its own


class Linear:
    """`coefficients` float64 [outputs, inputs], `intercepts` float64 [outputs]; one output unless there are many classes.

    `categories` has how many each feature has, 0 where it is a number; nothing, if all are. A feature with categories is an
    input per code.
    """

    def __init__(
        self, task: Task, coefficients: np.ndarray, intercepts: np.ndarray, categories: Sequence[int] = ()
    ) -> None:
        self.task: Task = task
        self.categories = tuple(categories)
        self.coefficients = coefficients
        self.intercepts = intercepts

    @classmethod
    def fit(cls, params: Mapping[str, Any], train: Labelled, validation: Labelled, context: Context) -> Self:
        from sklearn.linear_model import LogisticRegression, Ridge

        given = checked(LinearParams, params, "linear")
        for feature in context.features:
            if feature.categories > MOST_CATEGORIES:
                problem = (
                    f"{feature.name} has {feature.categories:,} categories, and linear takes {MOST_CATEGORIES} at most"
                )
                raise SpecError("trainer linear", problem, f"lower categories of {feature.name}, or take mlp")
        coded = any(feature.categories for feature in context.features)
        categories = [feature.categories for feature in context.features] if coded else []
        model: Any
        if context.task == "regression":
            model = Ridge(alpha=given.alpha, random_state=context.seed)
        else:
            model = LogisticRegression(C=1 / given.alpha, max_iter=given.max_iter, random_state=context.seed)
        model.fit(_inputs(train.x, categories), train.y)
        fitted = cls(context.task, np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_), categories)
        context.on_epoch(1, {"validation_loss": loss(context.task, validation.y, fitted.predict(validation.x))})
        return fitted

    def predict(self, x: np.ndarray) -> np.ndarray:
        outputs = _inputs(x, self.categories) @ self.coefficients.T + self.intercepts
        if self.task == "regression":
            return outputs[:, 0]
        if self.task == "binary_classification":
            return np.exp(-np.logaddexp(0.0, -outputs[:, 0]))  # the sigmoid, which does not overflow
        odds = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    def save(self) -> dict[str, bytes]:
        arrays = {
            "coefficients": np.ascontiguousarray(self.coefficients),
            "intercepts": np.ascontiguousarray(self.intercepts),
        }
        description = {"task": self.task, "categories": self.categories}
        return {WEIGHTS: safetensors.numpy.save(arrays), DESCRIPTION: json.dumps(description).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Self:
        description, arrays = json.loads(files[DESCRIPTION]), safetensors.numpy.load(files[WEIGHTS])
        return cls(description["task"], **arrays, categories=description.get("categories", ()))


def _inputs(x: np.ndarray, categories: Sequence[int]) -> np.ndarray:
    """Float64 [rows, inputs]: numbers as they are, codes as ones among zeros, but for the code of the unknown."""
    if not categories:
        return x.astype(np.float64)
    columns = (
        x[:, at, None] == np.arange(1, many + 1) if many else x[:, at, None] for at, many in enumerate(categories)
    )
    return np.concatenate([column.astype(np.float64) for column in columns], axis=1)
