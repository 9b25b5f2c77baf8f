"""A multi-layer perceptron for tables, with embeddings for features that are names and no numbers."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from ml_platform.core.spec.trainers import MLPParams
from ml_platform.features.transforms import Feature
from ml_platform.training.trainers.network import Architecture, Inputs, NetworkTrainer


class MLPArchitecture(Architecture):
    def build(self) -> nn.Sequential:
        if not self.embeddings:
            return self.layers(self.features)
        inputs = Inputs(range(self.features), self.embeddings)
        return nn.Sequential(inputs, *self.layers(inputs.width))


class MLP(NetworkTrainer):
    """Linear layers with SiLU and dropout, ending in one logit, one logit per class, or one value."""

    name = "mlp"
    params = MLPParams
    architecture_class = MLPArchitecture

    @classmethod
    def arranged(cls, params: MLPParams, features: Sequence[Feature]) -> dict[str, Any]:
        return {}
