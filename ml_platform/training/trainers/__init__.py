"""Trainers: model families behind one protocol. `trainer: mlp` in a model file names the module `mlp` here.

A trainer of your own is named by its import path, `mypackage.module.Class`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from ml_platform.core.errors import SpecError
from ml_platform.core.imports import load_object
from ml_platform.core.spec.trainers import check_trainer
from ml_platform.core.tasks import Task
from ml_platform.features.transforms import Feature

TRAINERS = {
    "mlp": "ml_platform.training.trainers.mlp.MLP",
    "sequence": "ml_platform.training.trainers.sequence.Sequence",
    "xgboost": "ml_platform.training.trainers.xgboost.XGBoost",
    "lightgbm": "ml_platform.training.trainers.lightgbm.LightGBM",
    "linear": "ml_platform.training.trainers.linear.Linear",
    "forest": "ml_platform.training.trainers.forest.Forest",
    "ensemble": "ml_platform.training.trainers.ensemble.Ensemble",
}
EXTRAS = ("xgboost", "lightgbm")  # each is a trainer, a library and an extra of this package
METHODS = ("fit", "predict", "save", "load")

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
    """What a fit needs beside rows and params. `classes` is 2 or more, or 0 for regression; `features` are the columns of the
    rows, or nothing where they are just numbers.

    `on_epoch` hears each epoch's (or round's) number and figures; of these, `epochs` says how many there will be at most.
    `interrupted` is asked between steps: once it says yes, a trainer that can saves a checkpoint and raises `Interrupted`.
    """

    task: Task
    classes: int
    seed: int
    on_epoch: OnEpoch = lambda epoch, figures: None
    checkpoints: Checkpoints | None = None
    interrupted: Callable[[], bool] = lambda: False
    features: tuple[Feature, ...] = ()


class Trainer(Protocol):
    """A model of one family: fitted, or loaded from what `save` returned.

    One that several processes can fit together says so by `on_ranks = True` (training/ranks.py).
    """

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


def load_fitted(kind: str, files: Mapping[str, bytes], plugins: Collection[str] = ()) -> Trainer:
    """A fitted model of a kind from what its `save` returned, which may come from anywhere.

    What files name is never imported because they name it: a kind is built in, or among `plugins`, the import paths that
    this process's own project declares.

    Raises:
        SpecError: if the kind, or that of an ensemble's member, is neither.
    """
    check_kind(kind, plugins)
    if kind == "ensemble":
        from ml_platform.training.trainers.ensemble import Ensemble

        return Ensemble.load_members(files, lambda kind, files: load_fitted(kind, files, plugins))
    return trainer_named(kind).load(files)


def check_kind(kind: str, plugins: Collection[str]) -> None:
    """Raise SpecError unless the kind is built in, or among `plugins`."""
    if kind not in TRAINERS and kind not in plugins:
        raise SpecError(
            f"model of kind {str(kind)[:100]!r}",
            f"is none that this process may load: {', '.join([*TRAINERS, *sorted(plugins)])}",
            "declare that trainer in a model file of the project that runs here, if its code is to be trusted",
        )


def trainer_named(name: str) -> type[Trainer]:
    """The trainer class of a name or an import path that a model file of the project says.

    Raises:
        SpecError: if there is none, if its library is not installed, or if it is no trainer.
    """
    check_trainer(name)
    try:
        found = load_object(TRAINERS.get(name, name), "candidates.trainer")
    except SpecError as error:
        missing = getattr(error.__cause__, "name", None)
        if name in EXTRAS and missing == name:
            problem = f"needs the package {name}, which is not installed"
            raise SpecError(f"trainer {name!r}", problem, f"pip install 'ml-platform[{name}]'") from error
        raise
    if lacking := [method for method in METHODS if not callable(getattr(found, method, None))]:
        raise SpecError(f"trainer {name!r}", f"has no {', '.join(lacking)}", "see Trainer in docs/training.md")
    return found
