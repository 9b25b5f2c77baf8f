"""Gradient-boosted trees by LightGBM; needs the extra `lightgbm`."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Self

import lightgbm
import numpy as np

from ml_platform.core import digest
from ml_platform.core.errors import BundleError
from ml_platform.core.spec.trainers import LightGBMParams, checked
from ml_platform.training.trainers import Context, Labelled
from ml_platform.training.trainers.boosting import options_of, report

MODEL = "model.txt"
SEAL = "model.json"
OBJECTIVES = {
    "binary_classification": {"objective": "binary", "metric": "binary_logloss"},
    "multiclass_classification": {"objective": "multiclass", "metric": "multi_logloss"},
    "regression": {"objective": "regression", "metric": "rmse"},
}


class LightGBM:
    """The rounds up to the best one, in LightGBM's own text."""

    def __init__(self, model: bytes) -> None:
        self.model = model
        self.booster = lightgbm.Booster(model_str=model.decode())

    @classmethod
    def fit(cls, params: Mapping[str, Any], train: Labelled, validation: Labelled, context: Context) -> Self:
        given = checked(LightGBMParams, params, "lightgbm")
        options = {
            **options_of(given, OBJECTIVES[context.task], context),
            "subsample_freq": 1,  # without it `subsample` says nothing
            "deterministic": True,
            "force_row_wise": True,  # deterministic wants one of the two ways chosen
            "verbosity": -1,
        }
        rows = lightgbm.Dataset(train.x, train.y)
        booster = lightgbm.train(
            options,
            rows,
            given.n_estimators,
            valid_sets=[lightgbm.Dataset(validation.x, validation.y, reference=rows)],
            callbacks=[
                lightgbm.early_stopping(given.early_stopping_rounds, verbose=False),
                _reporting(context),
            ],
        )
        return cls(booster.model_to_string(num_iteration=booster.best_iteration).encode())

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.booster.predict(x), dtype=np.float64)

    def save(self) -> dict[str, bytes]:
        return {MODEL: self.model, SEAL: json.dumps({"sha256": digest.of_bytes(self.model)}).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Self:
        """Load a model.

        Raises:
            BundleError: if the text is not the one that was saved. LightGBM ends the process when a text is cut off.
        """
        if json.loads(files[SEAL])["sha256"] != digest.of_bytes(files[MODEL]):
            raise BundleError(MODEL, f"is not the text whose digest {SEAL} has", "train again")
        return cls(files[MODEL])


def _reporting(context: Context) -> Callable[[Any], None]:
    def after_iteration(env: Any) -> None:
        report(context, env.iteration, env.end_iteration, float(env.evaluation_result_list[0][2]))

    after_iteration.order = 5  # type: ignore[attr-defined]  # before early stopping, which ends the round
    return after_iteration
