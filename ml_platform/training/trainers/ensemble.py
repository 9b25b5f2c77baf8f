"""Several fits as one model, whose score is the mean of theirs: other families, or the same one from other seeds."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from ml_platform.core.spec.trainers import EnsembleParams, checked
from ml_platform.training.trainers import Context, Labelled, OnEpoch, Trainer, load_fitted, trainer_named

MEMBERS = "model.json"


class Names(BaseModel):
    model_config = ConfigDict(extra="forbid")
    members: tuple[str, ...]


class Ensemble:
    """Fitted members with the names of their trainers.

    A member's fit has no checkpoint of its own: an interrupted ensemble begins anew.
    """

    def __init__(self, names: Sequence[str], members: Sequence[Trainer]) -> None:
        self.names = tuple(names)
        self.members = tuple(members)

    @classmethod
    def fit(cls, params: Mapping[str, Any], train: Labelled, validation: Labelled, context: Context) -> Self:
        wanted = [one for one in checked(EnsembleParams, params, "ensemble").members for _ in range(one.seeds)]
        members = []
        for position, one in enumerate(wanted):
            heard = _prefixed(f"member_{position + 1}", context.on_epoch)
            own = replace(context, seed=context.seed + position, on_epoch=heard, checkpoints=None)
            members.append(trainer_named(one.trainer).fit(one.params, train, validation, own))
        return cls([one.trainer for one in wanted], members)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.mean([member.predict(x) for member in self.members], axis=0)

    def save(self) -> dict[str, bytes]:
        files = {
            f"{_prefix(position)}{name}": content
            for position, member in enumerate(self.members)
            for name, content in member.save().items()
        }
        return {MEMBERS: json.dumps({"members": self.names}).encode(), **files}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Self:
        """Of built-in members; `load_fitted` knows which others may be loaded."""
        return cls.load_members(files, load_fitted)

    @classmethod
    def load_members(cls, files: Mapping[str, bytes], load: Callable[[str, Mapping[str, bytes]], Trainer]) -> Self:
        """Load each member by its kind and files."""
        names = Names.model_validate_json(files[MEMBERS]).members
        return cls(names, [load(name, _of_member(files, position)) for position, name in enumerate(names)])


def _prefix(position: int) -> str:
    return f"model.{position + 1}."


def _of_member(files: Mapping[str, bytes], position: int) -> dict[str, bytes]:
    prefix = _prefix(position)
    return {name.removeprefix(prefix): content for name, content in files.items() if name.startswith(prefix)}


def _prefixed(name: str, on_epoch: OnEpoch) -> OnEpoch:
    return lambda epoch, figures: on_epoch(epoch, {f"{name}_{what}": value for what, value in figures.items()})
