"""The loss that trainers without one of their own report."""

import numpy as np

from ml_platform.core.tasks import Task


def loss(task: Task, y: np.ndarray, scores: np.ndarray) -> float:
    """Mean log loss of a classifier's scores, or the root of the mean squared error."""
    if task == "regression":
        return float(np.sqrt(np.mean((scores - y) ** 2)))
    probabilities = scores if scores.ndim == 2 else np.column_stack([1 - scores, scores])
    of_label = probabilities[np.arange(len(y)), y.astype(np.int64)]
    return float(-np.mean(np.log(np.maximum(of_label, np.finfo(np.float64).tiny))))
