"""Trainers: model families behind one protocol. `trainer: mlp` in a model file names the module `mlp` here."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol, Self

import numpy as np

from ml_platform.core.errors import SpecError

TRAINERS = {"mlp": "ml_platform.training.trainers.mlp.MLP"}

OnEpoch = Callable[[int, dict[str, float]], None]


class Trainer(Protocol):
    """A model of one family: fitted, or loaded from what `save` returned."""

    @classmethod
    def fit(
        cls,
        params: Mapping[str, Any],
        x: np.ndarray,
        y: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray],
        seed: int,
        on_epoch: OnEpoch,
    ) -> Self:
        """Fit on float32 [rows, features] and labels [rows]; `on_epoch` hears each epoch's number and figures.

        Raises:
            SpecError: if `params` has a parameter that this trainer does not know, or an impossible value.
        """
        ...

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Scores, float64 [rows]; for binary classification the probability of the label 1."""
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
