"""Gradient-boosted trees by XGBoost; needs the extra `xgboost`."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import xgboost
from pydantic import Field
from xgboost.callback import TrainingCallback

from ml_platform.training.trainers import Context, Labelled, OnEpoch
from ml_platform.training.trainers.params import Params, checked

MODEL = "model.json"
ROUNDS_PER_REPORT = 10
OBJECTIVES = {
    "binary_classification": {"objective": "binary:logistic", "eval_metric": "logloss"},
    "multiclass_classification": {"objective": "multi:softprob", "eval_metric": "mlogloss"},
    "regression": {"objective": "reg:squarederror", "eval_metric": "rmse"},
}


class XGBoostParams(Params):
    n_estimators: int = Field(default=300, ge=1, description="rounds at most")
    early_stopping_rounds: int = Field(default=30, ge=1, description="rounds without a better validation loss")
    learning_rate: float = Field(default=0.1, gt=0, le=1)
    max_depth: int = Field(default=6, ge=1, le=32, description="of a tree")
    min_child_weight: float = Field(default=1.0, ge=0, description="least sum of second derivatives in a leaf")
    subsample: float = Field(default=1.0, gt=0, le=1, description="share of the rows per tree")
    colsample_bytree: float = Field(default=1.0, gt=0, le=1, description="share of the features per tree")
    reg_lambda: float = Field(default=1.0, ge=0, description="L2 penalty on leaf values")
    reg_alpha: float = Field(default=0.0, ge=0, description="L1 penalty on leaf values")


class XGBoost:
    """The rounds up to the best one, in XGBoost's own JSON."""

    def __init__(self, model: bytes) -> None:
        self.model = model
        self.booster = xgboost.Booster(model_file=bytearray(model))

    @classmethod
    def fit(cls, params: Mapping[str, Any], train: Labelled, validation: Labelled, context: Context) -> Self:
        given = checked(XGBoostParams, params, "xgboost")
        options = {
            **given.model_dump(exclude={"n_estimators", "early_stopping_rounds"}),
            **OBJECTIVES[context.task],
            "seed": context.seed,
        }
        if context.task == "multiclass_classification":
            options["num_class"] = context.classes
        booster = xgboost.train(
            options,
            xgboost.DMatrix(train.x, train.y),
            given.n_estimators,
            evals=[(xgboost.DMatrix(validation.x, validation.y), "validation")],
            early_stopping_rounds=given.early_stopping_rounds,
            verbose_eval=False,
            callbacks=[_Report(context.on_epoch)],
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
    """Tells of every tenth round, beginning with the first."""

    def __init__(self, on_epoch: OnEpoch) -> None:
        super().__init__()
        self.on_epoch = on_epoch

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        if epoch % ROUNDS_PER_REPORT == 0:
            (losses,) = evals_log["validation"].values()
            self.on_epoch(epoch + 1, {"validation_loss": float(losses[-1])})
        return False
