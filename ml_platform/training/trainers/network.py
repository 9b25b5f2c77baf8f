"""What the networks of this package have in common: what outputs mean, how they are fitted, applied, saved and loaded."""

import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn
from torch.nn import functional

from ml_platform.core.errors import SpecError
from ml_platform.core.mistakes import nearest
from ml_platform.core.spec.trainers import NetworkParams, checked
from ml_platform.core.tasks import Task
from ml_platform.features.transforms import Feature
from ml_platform.training.loop import EVALUATED_ROWS, Loss, deterministic, train
from ml_platform.training.trainers import Context, Labelled

LOG = logging.getLogger(__name__)
WEIGHTS = "model.safetensors"
ARCHITECTURE = "model.json"


class Architecture(BaseModel):
    """The network, and what its outputs mean. A regression's output is the target less `mean`, divided by `scale`.

    `embeddings` has for each feature with codes, by its position, how many codes there are, and the width of their vectors.
    """

    model_config = ConfigDict(extra="forbid")
    features: int
    hidden: tuple[int, ...]
    dropout: float
    task: Task = "binary_classification"
    classes: int = 2
    mean: float = 0.0
    scale: float = 1.0
    embeddings: dict[int, tuple[int, int]] = {}

    @property
    def has_class_outputs(self) -> bool:
        """One output per class, instead of one in all."""
        return self.task == "multiclass_classification"

    def build(self) -> nn.Module:
        """The network, untrained: float32 [rows, features] -> [rows], or [rows, classes]."""
        raise NotImplementedError

    def layers(self, width: int) -> nn.Sequential:
        """From `width` inputs through the hidden layers to the outputs."""
        layers: list[nn.Module] = []
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


class Inputs(nn.Module):
    """Some of the features as layers read them, [rows, features] -> [rows, width]: numbers as they are, codes embedded.

    The vector of code 0, of values that training never saw, begins at zero and says nothing.
    """

    def __init__(self, positions: Iterable[int], embeddings: Mapping[int, tuple[int, int]]) -> None:
        super().__init__()
        positions = list(positions)
        numbers = [position for position in positions if position not in embeddings]
        self.numbers: torch.Tensor
        self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.int64), persistent=False)
        self.tables = nn.ModuleDict({str(at): nn.Embedding(*embeddings[at]) for at in positions if at in embeddings})
        for table in self.tables.values():
            nn.init.normal_(table.weight, std=0.1)  # type: ignore[arg-type]
            nn.init.zeros_(table.weight[0])  # type: ignore[index]
        self.width = len(numbers) + sum(embeddings[int(at)][1] for at in self.tables)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        embedded = [table(x[:, int(at)].long()) for at, table in self.tables.items()]
        return torch.cat([x[:, self.numbers], *embedded], dim=1)


class NetworkTrainer(ABC):
    """A trainer around a network. A family says what it is called, what its params are and what network they make."""

    on_ranks = True
    name: ClassVar[str]
    params: ClassVar[type[NetworkParams]]
    architecture_class: ClassVar[type[Architecture]]

    def __init__(self, architecture: Architecture, network: nn.Module) -> None:
        self.architecture = architecture
        self.network = network.eval()

    @classmethod
    @abstractmethod
    def arranged(cls, params: Any, features: Sequence[Feature]) -> dict[str, Any]:
        """What the family's own architecture has beside what all have."""

    @classmethod
    def fit(cls, params: Mapping[str, Any], train: Labelled, validation: Labelled, context: Context) -> Self:
        """Fit; the losses of a regression that are reported are of the standardized target."""
        given = checked(cls.params, params, cls.name)
        device = _device()
        if given.precision == "bfloat16" and device.type != "cuda":
            LOG.warning("precision bfloat16 is for GPUs: there is none, so this is float32")
        architecture = cls.architecture_class(
            features=train.x.shape[1],
            hidden=given.hidden,
            dropout=given.dropout,
            task=context.task,
            classes=context.classes,
            embeddings=_embeddings(given, context.features, cls.name),
            **(_standardization(train.y) if context.task == "regression" else {}),
            **cls.arranged(given, context.features),
        )
        torch.manual_seed(context.seed)
        network = architecture.build().to(device)
        _train(architecture, network, given, train, validation, context, device)
        return cls(architecture, network.to("cpu"))

    def predict(self, x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            parts = [self.network(part) for part in torch.from_numpy(x).split(EVALUATED_ROWS)]
            output = torch.cat(parts).double()  # shares of a float32 softmax sum to one only nearly
        if self.architecture.task == "regression":
            return output.numpy() * self.architecture.scale + self.architecture.mean
        return (torch.softmax(output, dim=1) if self.architecture.has_class_outputs else torch.sigmoid(output)).numpy()

    def save(self) -> dict[str, bytes]:
        return {
            WEIGHTS: safetensors.torch.save(self.network.state_dict()),
            ARCHITECTURE: json.dumps(self.architecture.model_dump(mode="json"), indent=1).encode(),
        }

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Self:
        architecture = cls.architecture_class.model_validate_json(files[ARCHITECTURE])
        network = architecture.build()
        network.load_state_dict(safetensors.torch.load(files[WEIGHTS]))
        return cls(architecture, network)


def _train(
    architecture: Architecture,
    network: nn.Module,
    params: NetworkParams,
    rows: Labelled,
    validation: Labelled,
    context: Context,
    device: torch.device,
) -> None:
    labelled, held_out = architecture.labelled(rows), architecture.labelled(validation)
    with deterministic(params.deterministic):
        train(network, architecture.loss(), params, labelled, held_out, context, device)


def _embeddings(params: NetworkParams, features: Sequence[Feature], trainer: str) -> dict[int, tuple[int, int]]:
    coded = {feature.name for feature in features if feature.categories}
    if unknown := [name for name in params.embeddings if name not in coded]:
        problem = f"embeddings: no feature {unknown[0]!r} with categories{nearest(unknown[0], coded)}"
        raise SpecError(f"trainer {trainer}", problem, "mend candidates.params.embeddings")
    return {
        position: (feature.categories + 1, params.embeddings.get(feature.name, _usual_width(feature.categories)))
        for position, feature in enumerate(features)
        if feature.categories
    }


def _usual_width(categories: int) -> int:
    """A rule of thumb, by J. Howard in fast.ai: 2 for two, 21 for a hundred, 50 at most."""
    return min(50, round(1.6 * categories**0.56))


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
