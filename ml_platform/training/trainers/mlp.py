"""A multi-layer perceptron for tables: numbers only, since the rows of the protocol are one matrix."""

import json
import logging
import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn import functional

from ml_platform.core.tasks import Task
from ml_platform.training.loop import EVALUATED_ROWS, LoopParams, Loss, deterministic, train
from ml_platform.training.trainers import Context, Labelled
from ml_platform.training.trainers.params import checked

LOG = logging.getLogger(__name__)
WEIGHTS = "model.safetensors"
ARCHITECTURE = "model.json"


class Params(LoopParams):
    hidden: tuple[int, ...] = Field(default=(128, 128), description="width of each hidden layer")
    dropout: float = Field(default=0.1, ge=0, lt=1)


class Architecture(BaseModel):
    """The network, and what its outputs mean. A regression's output is the target less `mean`, divided by `scale`."""

    model_config = ConfigDict(extra="forbid")
    features: int
    hidden: tuple[int, ...]
    dropout: float
    task: Task = "binary_classification"
    classes: int = 2
    mean: float = 0.0
    scale: float = 1.0

    @property
    def has_class_outputs(self) -> bool:
        """One output per class, instead of one in all."""
        return self.task == "multiclass_classification"

    def build(self) -> nn.Sequential:
        layers: list[nn.Module] = []
        width = self.features
        for size in self.hidden:
            layers += [nn.Linear(width, size), nn.SiLU(), nn.Dropout(self.dropout)]
            width = size
        head = [nn.Linear(width, self.classes)] if self.has_class_outputs else [nn.Linear(width, 1), nn.Flatten(0)]
        return nn.Sequential(*layers, *head)

    def loss(self) -> Loss:
        """(output, labels) -> loss summed over the rows."""
        function = {
            "binary_classification": functional.binary_cross_entropy_with_logits,
            "multiclass_classification": functional.cross_entropy,
            "regression": functional.mse_loss,
        }[self.task]
        return lambda output, labels: function(output, labels, reduction="sum")

    def labelled(self, rows: Labelled) -> Labelled:
        """The rows as the loss takes them: class numbers int64, everything else float32."""
        if self.has_class_outputs:
            return Labelled(rows.x, rows.y.astype(np.int64))
        return Labelled(rows.x, ((rows.y - self.mean) / self.scale).astype(np.float32))


class MLP:
    """Linear layers with SiLU and dropout, ending in one logit, one logit per class, or one value."""

    def __init__(self, architecture: Architecture, network: nn.Module) -> None:
        self.architecture = architecture
        self.network = network.eval()

    @classmethod
    def fit(cls, params: Mapping[str, Any], train: Labelled, validation: Labelled, context: Context) -> Self:
        """Fit; the losses of a regression that are reported are of the standardized target."""
        checked_params = checked(Params, params, "mlp")
        device = _device()
        if checked_params.precision == "bfloat16" and device.type != "cuda":
            LOG.warning("precision bfloat16 is for GPUs: there is none, so this is float32")
        architecture = Architecture(
            features=train.x.shape[1],
            hidden=checked_params.hidden,
            dropout=checked_params.dropout,
            task=context.task,
            classes=context.classes,
            **(_standardization(train.y) if context.task == "regression" else {}),
        )
        torch.manual_seed(context.seed)
        network = architecture.build().to(device)
        _train(architecture, network, checked_params, train, validation, context, device)
        return cls(architecture, network.to("cpu"))

    def predict(self, x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            parts = [self.network(part) for part in torch.from_numpy(x).split(EVALUATED_ROWS)]
            output = torch.cat(parts)
        if self.architecture.task == "regression":
            return output.numpy().astype(np.float64) * self.architecture.scale + self.architecture.mean
        probabilities = torch.softmax(output, dim=1) if self.architecture.has_class_outputs else torch.sigmoid(output)
        return probabilities.numpy().astype(np.float64)

    def save(self) -> dict[str, bytes]:
        return {
            WEIGHTS: safetensors.torch.save(self.network.state_dict()),
            ARCHITECTURE: json.dumps(self.architecture.model_dump(mode="json"), indent=1).encode(),
        }

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Self:
        architecture = Architecture.model_validate_json(files[ARCHITECTURE])
        network = architecture.build()
        network.load_state_dict(safetensors.torch.load(files[WEIGHTS]))
        return cls(architecture, network)


def _train(
    architecture: Architecture,
    network: nn.Module,
    params: Params,
    rows: Labelled,
    validation: Labelled,
    context: Context,
    device: torch.device,
) -> None:
    labelled, held_out = architecture.labelled(rows), architecture.labelled(validation)
    with deterministic(params.deterministic):
        train(network, architecture.loss(), params, labelled, held_out, context, device)


def _standardization(targets: np.ndarray) -> dict[str, float]:
    deviation = float(targets.std())
    return {"mean": float(targets.mean()), "scale": deviation if deviation > 0 else 1.0}


def _device() -> torch.device:
    """The GPU of this process, by torchrun's numbering on the node; the CPU where there is none."""
    return (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if torch.cuda.is_available()
        else torch.device("cpu")
    )
