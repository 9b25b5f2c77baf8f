"""A multi-layer perceptron for tables."""

import json
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from ml_platform.core.errors import SpecError
from ml_platform.training.loop import LoopParams, train
from ml_platform.training.trainers import OnEpoch

WEIGHTS = "model.safetensors"
ARCHITECTURE = "model.json"


class Params(LoopParams):
    hidden: tuple[int, ...] = Field(default=(128, 128), description="width of each hidden layer")
    dropout: float = Field(default=0.1, ge=0, lt=1)


class Architecture(BaseModel):
    model_config = ConfigDict(extra="forbid")
    features: int
    hidden: tuple[int, ...]
    dropout: float

    def build(self) -> nn.Sequential:
        layers: list[nn.Module] = []
        width = self.features
        for size in self.hidden:
            layers += [nn.Linear(width, size), nn.SiLU(), nn.Dropout(self.dropout)]
            width = size
        return nn.Sequential(*layers, nn.Linear(width, 1), nn.Flatten(0))


class MLP:
    """Linear layers with SiLU and dropout, ending in one logit."""

    def __init__(self, architecture: Architecture, network: nn.Module) -> None:
        self.architecture = architecture
        self.network = network.eval()

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
        try:
            checked = Params.model_validate(dict(params))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise SpecError("trainer mlp", f"{field}: {first['msg']}", f"mend candidates.params.{field}") from error
        torch.manual_seed(seed)
        architecture = Architecture(features=x.shape[1], hidden=checked.hidden, dropout=checked.dropout)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = architecture.build().to(device)
        train(network, checked, x, y, validation, seed, device, on_epoch)
        return cls(architecture, network.to("cpu"))

    def predict(self, x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return torch.sigmoid(self.network(torch.from_numpy(x))).numpy().astype(np.float64)

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
