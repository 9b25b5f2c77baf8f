"""Plots that a person wants to look at, as PNG."""

import io
from typing import TYPE_CHECKING

import numpy as np

from ml_platform.core.tasks import Task
from ml_platform.evaluation.report import finite_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def picture(task: Task, labels: np.ndarray, scores: np.ndarray, title: str) -> bytes:
    """Curves of two classes, the confusion matrix of several, predicted against actual values."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    finite = finite_rows(scores)
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    figure.suptitle(title)
    if finite.any():
        draw = {
            "binary_classification": _curves,
            "multiclass_classification": _confusion,
            "regression": _predicted_and_actual,
        }
        draw[task](figure, labels[finite], scores[finite])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def _curves(figure: "Figure", labels: np.ndarray, scores: np.ndarray) -> None:
    """Precision-recall and ROC curve side by side."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    left, right = figure.subplots(1, 2)
    precision, recall, _ = precision_recall_curve(labels, scores)
    left.step(recall, precision, where="post")
    left.set(xlabel="recall", ylabel="precision", title="precision-recall", xlim=(0, 1), ylim=(0, 1.02))
    false_positive, true_positive, _ = roc_curve(labels, scores)
    right.plot(false_positive, true_positive)
    right.plot([0, 1], [0, 1], linestyle=":", color="grey")
    right.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC", xlim=(0, 1), ylim=(0, 1.02))


def _confusion(figure: "Figure", labels: np.ndarray, scores: np.ndarray) -> None:
    """Rows of each actual class by the class that was decided for, as shares of the actual class."""
    from sklearn.metrics import confusion_matrix

    classes = np.arange(scores.shape[1])
    shares = confusion_matrix(labels, scores.argmax(axis=1), labels=classes, normalize="true")
    axes = figure.subplots()
    figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=1))
    if len(classes) <= 12:  # more would not be legible
        for (actual, predicted), share in np.ndenumerate(shares):
            color = "white" if share > 0.5 else "black"
            axes.text(predicted, actual, f"{share:.2f}", ha="center", va="center", color=color)
        axes.set(xticks=classes, yticks=classes)
    axes.set(xlabel="predicted class", ylabel="actual class", title="confusion matrix, share of the actual class")


def _predicted_and_actual(figure: "Figure", labels: np.ndarray, scores: np.ndarray) -> None:
    axes = figure.subplots()
    axes.hexbin(labels, scores, gridsize=60, bins="log", cmap="Blues", mincnt=1)
    ends = min(labels.min(), scores.min()), max(labels.max(), scores.max())
    axes.plot(ends, ends, linestyle=":", color="grey")
    axes.set(xlabel="actual", ylabel="predicted", title="predicted against actual")
