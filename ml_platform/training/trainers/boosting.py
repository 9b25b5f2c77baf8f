"""What the two libraries of boosted trees have in common."""

from typing import Any

from pydantic import Field

from ml_platform.training.trainers import Context
from ml_platform.training.trainers.params import Params

ROUNDS_PER_REPORT = 10


class BoostingParams(Params):
    n_estimators: int = Field(default=300, ge=1, description="rounds at most")
    early_stopping_rounds: int = Field(default=30, ge=1, description="rounds without a better validation loss")
    learning_rate: float = Field(default=0.1, gt=0, le=1)
    subsample: float = Field(default=1.0, gt=0, le=1, description="share of the rows per tree")
    colsample_bytree: float = Field(default=1.0, gt=0, le=1, description="share of the features per tree")
    reg_alpha: float = Field(default=0.0, ge=0, description="L1 penalty on leaf values")

    def options(self, objective: dict[str, str], context: Context) -> dict[str, Any]:
        """What the library's own `train` takes as options."""
        classes = {"num_class": context.classes} if context.task == "multiclass_classification" else {}
        given = self.model_dump(exclude={"n_estimators", "early_stopping_rounds"})
        return {**given, **objective, **classes, "seed": context.seed}


def report(context: Context, number: int, loss: float) -> None:
    """Tell of every tenth round, beginning with the first; `number` is from 0."""
    if number % ROUNDS_PER_REPORT == 0:
        context.on_epoch(number + 1, {"validation_loss": loss})
