"""What `candidates.params` may say for each built-in trainer. The trainers themselves are in ml_platform/training/trainers.

The params are here, and not beside them, so that a mistake is found while definitions load, without torch and its like.
"""

import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ml_platform.core.errors import SpecError
from ml_platform.core.mistakes import first_mistake, nearest

Width = Annotated[int, Field(ge=1)]


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# --- networks ---------------------------------------------------------------------------------------------------------


class LoopParams(Params):
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=512, ge=1, description="rows of a step, over all ranks")
    lr: float = Field(default=2e-3, gt=0, description="peak learning rate; falls to zero along a cosine")
    warmup_steps: int = Field(default=0, ge=0, description="steps in which the learning rate rises to its peak")
    weight_decay: float = Field(default=1e-2, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    patience: int | None = Field(
        default=None,
        ge=1,
        description="epochs without a lower validation loss after which training stops, with the best weights; default: never",
    )
    checkpoint_every: int | None = Field(
        default=None, ge=1, description="steps from one checkpoint to the next; default: one at each epoch's end"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="bfloat16: mixed precision, on a GPU only"
    )
    compile: bool = Field(default=False, description="compile the network with torch.compile")
    deterministic: bool = Field(default=False, description="only operations that give the same bits each time")


class NetworkParams(LoopParams):
    hidden: tuple[Width, ...] = Field(default=(128, 128), description="width of each hidden layer")
    dropout: float = Field(default=0.1, ge=0, lt=1)
    embeddings: dict[str, Width] = Field(
        default_factory=dict,
        description="feature with categories -> width of its embedding; default: by the number of categories",
    )


class MLPParams(NetworkParams):
    pass


class SequenceParams(NetworkParams):
    steps: tuple[str, ...] = Field(
        min_length=1, description="vector features of one length: what is known of each event, the newest first"
    )
    cell: Literal["gru", "attention"] = Field(default="gru", description="what reads the events")
    width: Width = Field(default=32, description="of what the cell makes of the events")
    heads: Width = Field(default=4, description="of the attention")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> "SequenceParams":
        if self.cell == "attention" and self.width % self.heads:
            raise ValueError(f"width ({self.width}) is no multiple of heads ({self.heads})")
        return self


# --- trees and linear models ------------------------------------------------------------------------------------------


class BoostingParams(Params):
    n_estimators: int = Field(default=300, ge=1, description="rounds at most")
    early_stopping_rounds: int = Field(default=30, ge=1, description="rounds without a better validation loss")
    learning_rate: float = Field(default=0.1, gt=0, le=1)
    subsample: float = Field(default=1.0, gt=0, le=1, description="share of the rows per tree")
    colsample_bytree: float = Field(default=1.0, gt=0, le=1, description="share of the features per tree")
    reg_alpha: float = Field(default=0.0, ge=0, description="L1 penalty on leaf values")


class XGBoostParams(BoostingParams):
    max_depth: int = Field(default=6, ge=1, le=32, description="of a tree")
    min_child_weight: float = Field(default=1.0, ge=0, description="least sum of second derivatives in a leaf")
    reg_lambda: float = Field(default=1.0, ge=0, description="L2 penalty on leaf values")


class LightGBMParams(BoostingParams):
    num_leaves: int = Field(default=31, ge=2, le=131_072, description="of a tree")
    max_depth: int = Field(default=-1, ge=-1, description="of a tree; -1: no limit")
    min_child_samples: int = Field(default=20, ge=1, description="rows in a leaf")
    reg_lambda: float = Field(default=0.0, ge=0, description="L2 penalty on leaf values")


class ForestParams(Params):
    n_estimators: int = Field(default=100, ge=1, description="trees")
    max_depth: int | None = Field(default=16, ge=1, description="of a tree; null: no limit")
    min_samples_leaf: int = Field(default=5, ge=1, description="rows")
    max_features: float | Literal["sqrt"] = Field(
        default="sqrt", gt=0, le=1, description="features looked at per split: their share, or the root of their number"
    )


class LinearParams(Params):
    alpha: float = Field(default=1.0, gt=0, description="weight of the L2 penalty")
    max_iter: int = Field(default=200, ge=1, description="steps of the classifier's solver (L-BFGS)")


# --- several of them --------------------------------------------------------------------------------------------------


class EnsembleMember(Params):
    trainer: str = Field(description="a built-in trainer's name, or the import path of your own")
    params: dict[str, Any] = Field(default_factory=dict)
    seeds: int = Field(default=1, ge=1, description="how many fits of it, each from a seed of its own")

    @model_validator(mode="after")
    def _trainer_knows_its_params(self) -> "EnsembleMember":
        try:
            check_params(self.trainer, self.params)
        except SpecError as error:
            raise ValueError(f"{error.subject}: {error.problem}") from error
        return self


class EnsembleParams(Params):
    members: tuple[EnsembleMember, ...] = Field(min_length=1, description="whose scores are averaged")


PARAMS: dict[str, type[Params]] = {
    "mlp": MLPParams,
    "sequence": SequenceParams,
    "xgboost": XGBoostParams,
    "lightgbm": LightGBMParams,
    "linear": LinearParams,
    "forest": ForestParams,
    "ensemble": EnsembleParams,
}

# --- checks -----------------------------------------------------------------------------------------------------------

_Params = TypeVar("_Params", bound=Params)


def checked(model: type[_Params], params: Mapping[str, Any], trainer: str) -> _Params:
    """The params with defaults.

    Raises:
        SpecError: naming the first that is unknown, with the nearest name, or that has an impossible value.
    """
    try:
        return model.model_validate(dict(params))
    except ValidationError as error:
        found = first_mistake(model, error)
        raise SpecError(f"trainer {trainer}", found.problem, f"mend candidates.params.{found.field}") from error


def check_trainer(trainer: str) -> None:
    """Nothing is imported: of an import path only the module's file is looked for.

    Raises:
        SpecError: if there is no built-in trainer, or no module, of that name.
    """
    if "." not in trainer:
        if trainer not in PARAMS:
            next_step = f"set candidates.trainer to one of {', '.join(PARAMS)}, or an import path"
            raise SpecError(f"trainer {trainer!r}", f"is not known{nearest(trainer, PARAMS)}", next_step)
    elif not _has_file(module := trainer.rpartition(".")[0]):
        raise SpecError(
            f"trainer {trainer!r}", f"there is no module {module}", "mend candidates.trainer, or install it"
        )


def check_params(trainer: str, params: Mapping[str, Any]) -> None:
    """Check a trainer's name and its params; those of a trainer named by import path are its own business.

    Raises:
        SpecError: naming what is unknown, with the nearest name, or impossible.
    """
    check_trainer(trainer)
    if model := PARAMS.get(trainer):
        checked(model, params, trainer)


def _has_file(module: str) -> bool:
    """Whether a module could be imported, without importing its packages, as find_spec of a dotted name would."""
    if module in sys.modules:
        return True
    first, *inner = module.split(".")
    found, name = find_spec(first), first
    for part in inner:
        if found is None or found.submodule_search_locations is None:
            return False
        name = f"{name}.{part}"
        found = PathFinder.find_spec(name, list(found.submodule_search_locations))
    return found is not None
