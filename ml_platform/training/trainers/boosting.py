"""What the two libraries of boosted trees have in common."""

from typing import Any

from ml_platform.core.errors import Interrupted
from ml_platform.core.spec.trainers import BoostingParams
from ml_platform.training.trainers import Context

ROUNDS_PER_REPORT = 10


def options_of(params: BoostingParams, objective: dict[str, str], context: Context) -> dict[str, Any]:
    """What the library's own `train` takes as options."""
    classes = {"num_class": context.classes} if context.task == "multiclass_classification" else {}
    given = params.model_dump(exclude={"n_estimators", "early_stopping_rounds"})
    return {**given, **objective, **classes, "seed": context.seed}


def report(context: Context, number: int, rounds: int, loss: float) -> None:
    """Tell of every tenth round of at most `rounds`, beginning with the first; `number` is from 0.

    Raises:
        Interrupted: if `context.interrupted` said yes.
    """
    if context.interrupted():
        raise Interrupted("training", f"stopped after round {number + 1}", "run it again: it starts from the beginning")
    if number % ROUNDS_PER_REPORT == 0:
        context.on_epoch(number + 1, {"validation_loss": loss, "epochs": float(rounds)})
