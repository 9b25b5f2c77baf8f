"""Trainers: model families behind one protocol. `trainer: mlp` in a model file names the module `mlp` here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, Protocol, Self

import numpy as np

from ml_platform.core.errors import SpecError

TRAINERS = {"mlp": "ml_platform.training.trainers.mlp.MLP"}

Task = Literal["binary_classification", "multiclass_classification", "regression"]
OnEpoch = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Labelled:
    """Rows to fit on or to judge by: x float32 [rows, features], y [rows] (class numbers from 0, or float targets)."""

    x: np.ndarray
    y: np.ndarray


class Checkpoints(Protocol):
    """Where a fit that is interrupted goes on from: one set of files, replaced as a whole."""

    def load(self) -> Mapping[str, bytes] | None: ...

    def save(self, files: Mapping[str, bytes]) -> None: ...


@dataclass(frozen=True)
class Context:
    """What a fit needs beside rows and params. `classes` is 2 or more, or 0 for regression.

    `on_epoch` hears each epoch's (or round's) number and figures; `interrupted` is asked between steps: once it says yes, a
    trainer that can saves a checkpoint and raises `Interrupted`.
    """

    task: Task
    classes: int
    seed: int
    on_epoch: OnEpoch = lambda epoch, figures: None
    checkpoints: Checkpoints | None = None
    interrupted: Callable[[], bool] = lambda: False


class Trainer(Protocol):
    """A model of one family: fitted, or loaded from what `save` returned."""

    @classmethod
    def fit(cls, params: Mapping[str, Any], train: Labelled, validation: Labelled, context: Context) -> Self:
        """Fit on the training rows; the validation rows are for figures and early stopping. The same seed, the same model.

        Raises:
            SpecError: if `params` has a parameter that this trainer does not know, or an impossible value.
        """
        ...

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Scores, float64: [rows] the probability of the label 1, or the value; [rows, classes] for more than two classes."""
        ...

    def save(self) -> dict[str, bytes]:
        """Files by name, in formats that execute nothing on loading."""
        ...

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Self: ...


def trainer_named(name: str) -> type[Trainer]:
    """The trainer class.

    Raises:
        SpecError: if there is none of that name.
    """
    if name not in TRAINERS:
        raise SpecError(f"trainer {name!r}", "is not known", f"set candidates.trainer to one of {', '.join(TRAINERS)}")
    module, _, attribute = TRAINERS[name].rpartition(".")
    return getattr(import_module(module), attribute)
