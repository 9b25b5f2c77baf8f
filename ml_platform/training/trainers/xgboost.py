"""Gradient-boosted trees by XGBoost; needs the extra `xgboost`."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import xgboost
from xgboost.callback import TrainingCallback

from ml_platform.core.spec.trainers import XGBoostParams, checked
from ml_platform.training.trainers import Context, Labelled
from ml_platform.training.trainers.boosting import options_of, report

MODEL = "model.json"
OBJECTIVES = {
    "binary_classification": {"objective": "binary:logistic", "eval_metric": "logloss"},
    "multiclass_classification": {"objective": "multi:softprob", "eval_metric": "mlogloss"},
    "regression": {"objective": "reg:squarederror", "eval_metric": "rmse"},
}


class XGBoost:
    """The rounds up to the best one, in XGBoost's own JSON."""

    def __init__(self, model: bytes) -> None:
        self.model = model
        self.booster = xgboost.Booster(model_file=bytearray(model))

    @classmethod
    def fit(cls, params: Mapping[str, Any], train: Labelled, validation: Labelled, context: Context) -> Self:
        given = checked(XGBoostParams, params, "xgboost")
        booster = xgboost.train(
            options_of(given, OBJECTIVES[context.task], context),
            xgboost.DMatrix(train.x, train.y),
            given.n_estimators,
            evals=[(xgboost.DMatrix(validation.x, validation.y), "validation")],
            early_stopping_rounds=given.early_stopping_rounds,
            verbose_eval=False,
            callbacks=[_Report(context, given.n_estimators)],
        )
        return cls(bytes(booster[: booster.best_iteration + 1].save_raw(raw_format="json")))

    def predict(self, x: np.ndarray) -> np.ndarray:
        scores = self.booster.inplace_predict(x).astype(np.float64)
        # The shares are float32 and sum to one only as nearly as those do.
        return scores / scores.sum(axis=1, keepdims=True) if scores.ndim == 2 else scores

    def save(self) -> dict[str, bytes]:
        return {MODEL: self.model}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Self:
        return cls(files[MODEL])


class _Report(TrainingCallback):
    def __init__(self, context: Context, rounds: int) -> None:
        super().__init__()
        self.context = context
        self.rounds = rounds

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        (losses,) = evals_log["validation"].values()
        report(self.context, epoch, self.rounds, float(losses[-1]))
        return False
