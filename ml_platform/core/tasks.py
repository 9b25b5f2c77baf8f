"""What a model is for, and the figures that it is judged by."""

from typing import Literal, get_args

Task = Literal["binary_classification", "multiclass_classification", "regression"]
BinaryMetric = Literal["average_precision", "roc_auc", "log_loss", "brier", "accuracy", "precision", "recall", "f1"]
MulticlassMetric = Literal["accuracy", "log_loss", "macro_f1"]
RegressionMetric = Literal["rmse", "mae", "mape", "r2"]
Metric = Literal[BinaryMetric, MulticlassMetric, RegressionMetric]

METRICS: dict[Task, tuple[Metric, ...]] = {
    "binary_classification": get_args(BinaryMetric),
    "multiclass_classification": get_args(MulticlassMetric),
    "regression": get_args(RegressionMetric),
}
SELECT_BY: dict[Task, Metric] = {
    "binary_classification": "average_precision",
    "multiclass_classification": "log_loss",
    "regression": "rmse",
}
LOWER_IS_BETTER: frozenset[Metric] = frozenset({"log_loss", "brier", "rmse", "mae", "mape"})
# What lies between 0 and 1.
SHARES: frozenset[Metric] = frozenset(
    {"average_precision", "roc_auc", "brier", "accuracy", "precision", "recall", "f1", "macro_f1"}
)
