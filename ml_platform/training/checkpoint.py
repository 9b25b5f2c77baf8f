"""The state of a fit as files, and back: safetensors and JSON, which execute nothing on loading.

    weights.safetensors     the network
    optimizer.safetensors   AdamW's moments, as <parameter>.<name>
    best.safetensors        the weights with the lowest validation loss, where early stopping is on
    progress.json           how far the fit is, its figures, and the fingerprint of what it was started with

There is no state of random generators: the loop seeds them anew, from the seed, for every epoch and step. The learning rate
is a function of the step likewise.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import safetensors.torch
import torch
from pydantic import BaseModel
from torch import nn

from ml_platform.core import digest
from ml_platform.training.trainers import Context, Labelled

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
BEST = "best.safetensors"
PROGRESS = "progress.json"

Weights = dict[str, torch.Tensor]


class Progress(BaseModel):
    """How far a fit is: in `epoch` (from 1), of which `step` steps are done with `loss_sum` over their rows.

    A rank puts at most `part_rows` rows through the network at once, halved `halvings` times. `best_epoch` (0: none) had `best_loss`; `figures` has
    the reported figures of every epoch that is done.
    """

    epoch: int = 1
    step: int = 0
    loss_sum: float = 0.0
    part_rows: int
    halvings: int = 0
    best_epoch: int = 0
    best_loss: float | None = None
    figures: list[dict[str, float]] = []


@dataclass
class State:
    """All that a fit changes."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    progress: Progress
    best: Weights = field(default_factory=dict)


class _Saved(BaseModel):
    fingerprint: str
    progress: Progress


def fingerprint(params: BaseModel, train: Labelled, validation: Labelled, context: Context) -> str:
    """Digest of all that decides what a fit results in: another value, another fit."""
    arrays = [train.x, train.y, validation.x, validation.y]
    hashes = [(str(a.dtype), a.shape, hashlib.sha256(a.tobytes()).hexdigest()) for a in arrays]
    features = [asdict(feature) for feature in context.features]
    return digest.of_json(
        [
            digest.code_version(),
            params.model_dump(mode="json"),
            context.task,
            context.classes,
            context.seed,
            features,
            hashes,
        ]
    )


def to_files(state: State, fingerprint: str) -> dict[str, bytes]:
    """The state as files by name."""
    moments = {
        f"{parameter}.{name}": value
        for parameter, values in state.optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    files = {
        WEIGHTS: _save(state.network.state_dict()),
        OPTIMIZER: _save(moments),
        PROGRESS: _Saved(fingerprint=fingerprint, progress=state.progress).model_dump_json(indent=1).encode(),
    }
    return files | ({BEST: _save(state.best)} if state.best else {})


def fingerprint_of(files: Mapping[str, bytes]) -> str:
    return _Saved.model_validate_json(files[PROGRESS]).fingerprint


def restore(state: State, files: Mapping[str, bytes]) -> None:
    """Put the state back as it was when the files were made."""
    state.network.load_state_dict(safetensors.torch.load(files[WEIGHTS]))
    moments: dict[int, dict[str, Any]] = {}
    for key, value in safetensors.torch.load(files[OPTIMIZER]).items():
        parameter, _, name = key.partition(".")
        moments.setdefault(int(parameter), {})[name] = value
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    state.progress = _Saved.model_validate_json(files[PROGRESS]).progress
    state.best = safetensors.torch.load(files[BEST]) if BEST in files else {}


def _save(tensors: Mapping[str, torch.Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
