"""Linear models: logistic regression for classes, ridge regression for values. Fitted by scikit-learn, applied by numpy."""

import json
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import safetensors.numpy
from pydantic import Field

from ml_platform.core.tasks import Task
from ml_platform.training.trainers import Context, Labelled
from ml_platform.training.trainers.loss import loss
from ml_platform.training.trainers.params import Params, checked

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"


class LinearParams(Params):
    alpha: float = Field(default=1.0, gt=0, description="weight of the L2 penalty")
    max_iter: int = Field(default=200, ge=1, description="steps of the classifier's solver (L-BFGS)")


class Linear:
    """`coefficients` float64 [outputs, features], `intercepts` float64 [outputs]; one output unless there are many classes."""

    def __init__(self, task: Task, coefficients: np.ndarray, intercepts: np.ndarray) -> None:
        self.task: Task = task
        self.coefficients = coefficients
        self.intercepts = intercepts

    @classmethod
    def fit(cls, params: Mapping[str, Any], train: Labelled, validation: Labelled, context: Context) -> Self:
        from sklearn.linear_model import LogisticRegression, Ridge

        given = checked(LinearParams, params, "linear")
        model: Any
        if context.task == "regression":
            model = Ridge(alpha=given.alpha, random_state=context.seed)
        else:
            model = LogisticRegression(C=1 / given.alpha, max_iter=given.max_iter, random_state=context.seed)
        model.fit(train.x.astype(np.float64), train.y)
        fitted = cls(context.task, np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_))
        context.on_epoch(1, {"validation_loss": loss(context.task, validation.y, fitted.predict(validation.x))})
        return fitted

    def predict(self, x: np.ndarray) -> np.ndarray:
        outputs = x.astype(np.float64) @ self.coefficients.T + self.intercepts
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
        return {WEIGHTS: safetensors.numpy.save(arrays), DESCRIPTION: json.dumps({"task": self.task}).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Self:
        return cls(json.loads(files[DESCRIPTION])["task"], **safetensors.numpy.load(files[WEIGHTS]))
