"""Random forests: grown by scikit-learn, stored as arrays, applied by numpy."""

import json
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import safetensors.numpy

from ml_platform.core.spec.trainers import ForestParams, checked
from ml_platform.core.tasks import Task
from ml_platform.training.trainers import Context, Labelled
from ml_platform.training.trainers.loss import loss

TREES = "model.safetensors"
DESCRIPTION = "model.json"
ROWS_AT_ONCE = 8_192  # bounds the memory of a prediction: rows times trees node numbers


class Forest:
    """All trees in one set of arrays, [nodes]; a leaf is its own child.

    Attributes:
        roots: int32 [trees], the node at which each tree begins.
        depth: steps from a root to the deepest leaf.
        values: float64 [nodes, outputs], class shares or the mean.
    """

    def __init__(self, task: Task, depth: int, arrays: Mapping[str, np.ndarray]) -> None:
        self.task: Task = task
        self.depth = depth
        self.arrays = dict(arrays)

    @classmethod
    def fit(cls, params: Mapping[str, Any], train: Labelled, validation: Labelled, context: Context) -> Self:
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        given = checked(ForestParams, params, "forest")
        kind = RandomForestRegressor if context.task == "regression" else RandomForestClassifier
        grown = kind(**given.model_dump(), random_state=context.seed, n_jobs=-1).fit(train.x, train.y)
        trees = [estimator.tree_ for estimator in grown.estimators_]
        fitted = cls(context.task, max(tree.max_depth for tree in trees), _arrays(trees))
        context.on_epoch(1, {"validation_loss": loss(context.task, validation.y, fitted.predict(validation.x))})
        return fitted

    def predict(self, x: np.ndarray) -> np.ndarray:
        parts = [self._mean_of_trees(x[start : start + ROWS_AT_ONCE]) for start in range(0, len(x), ROWS_AT_ONCE)]
        outputs = np.concatenate(parts) if parts else np.zeros((0, self.arrays["values"].shape[1]))
        if self.task == "regression":
            return outputs[:, 0]
        return outputs[:, 1] if self.task == "binary_classification" else outputs

    def _mean_of_trees(self, x: np.ndarray) -> np.ndarray:
        """Float64 [rows, outputs]."""
        arrays, rows = self.arrays, np.arange(len(x))[:, None]
        node = np.broadcast_to(arrays["roots"], (len(x), len(arrays["roots"])))
        for _ in range(self.depth):
            to_left = x[rows, arrays["feature"][node]] <= arrays["threshold"][node]
            node = np.where(to_left, arrays["left"][node], arrays["right"][node])
        total = np.zeros((len(x), arrays["values"].shape[1]))
        for tree in range(node.shape[1]):  # one after the other: the sum is the same for one row and for many
            total += arrays["values"][node[:, tree]]
        return total / node.shape[1]

    def save(self) -> dict[str, bytes]:
        description = {"task": self.task, "depth": self.depth}
        return {TREES: safetensors.numpy.save(self.arrays), DESCRIPTION: json.dumps(description).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Self:
        description = json.loads(files[DESCRIPTION])
        return cls(description["task"], description["depth"], safetensors.numpy.load(files[TREES]))


def _arrays(trees: list[Any]) -> dict[str, np.ndarray]:
    """The nodes of scikit-learn's trees, one tree after the other."""
    counts = [tree.node_count for tree in trees]
    roots = np.cumsum([0, *counts[:-1]])
    own = np.arange(sum(counts))
    first = np.repeat(roots, counts)

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(tree, name) for tree in trees])

    leaf = joined("children_left") < 0
    return {
        "roots": roots.astype(np.int32),
        "left": np.where(leaf, own, joined("children_left") + first).astype(np.int32),
        "right": np.where(leaf, own, joined("children_right") + first).astype(np.int32),
        "feature": np.where(leaf, 0, joined("feature")).astype(np.int32),
        "threshold": joined("threshold"),
        "values": np.ascontiguousarray(joined("value")[:, 0, :]),
    }
