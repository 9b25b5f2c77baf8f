"""Plots that a person wants to look at, as PNG."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ml_platform.core.tasks import LOWER_IS_BETTER, Metric, Task
from ml_platform.evaluation.report import finite_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Drawn:
    """Whose scores a curve is of."""

    name: str
    scores: np.ndarray


def pictures(
    task: Task, labels: np.ndarray, scores: np.ndarray, champion: np.ndarray | None, title: str
) -> dict[str, bytes]:
    """One picture per curve, by its name; the champion's on the same rows beside the candidate's.

    Curves of two classes, the confusion matrix of several, predicted against actual values.
    """
    finite = finite_rows(scores)
    if task != "binary_classification":
        draw = _confusion if task == "multiclass_classification" else _predicted_and_actual
        name = "confusion" if task == "multiclass_classification" else "predicted_against_actual"
        return {name: _png(lambda axes: draw(axes, labels[finite], scores[finite]), title, bool(finite.any()))}
    drawn = [Drawn("candidate", scores)]
    if champion is not None and finite_rows(champion).all():
        drawn.append(Drawn("champion", champion))
    both = bool(finite.all()) and len(np.unique(labels)) == 2
    return {
        curve.__name__.removeprefix("_"): _png(partial(_both, curve, labels, drawn), title, both)
        for curve in (_precision_recall, _roc, _calibration)
    }


def _png(draw: "Callable[[Axes], None]", title: str, possible: bool) -> bytes:
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(4.4, 3.6), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    if possible:
        draw(figure.subplots())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def values_over_trials(values: Mapping[int, float], pruned: Sequence[int], metric: Metric, title: str) -> bytes:
    """The metric of each complete trial by its number, the best so far, and where trials were pruned."""

    def draw(axes: "Axes") -> None:
        best = np.minimum if metric in LOWER_IS_BETTER else np.maximum
        numbers = sorted(values)
        found = np.array([values[number] for number in numbers])
        axes.plot(numbers, found, "o", markersize=4)
        axes.step(numbers, best.accumulate(found), where="post", color="grey", linewidth=1)
        for number in pruned:
            axes.axvline(number, ymax=0.03, color="tab:red")
        axes.set(xlabel="trial (red: pruned)", ylabel=metric)

    return _png(draw, title, bool(values))


def _both(
    curve: "Callable[[Axes, np.ndarray, Drawn], None]", labels: np.ndarray, drawn: Sequence[Drawn], axes: "Axes"
) -> None:
    for one in drawn:
        curve(axes, labels, one)
    axes.legend(fontsize="small")


def _precision_recall(axes: "Axes", labels: np.ndarray, drawn: Drawn) -> None:
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(labels, drawn.scores)
    axes.step(recall, precision, where="post", label=drawn.name)
    axes.set(xlabel="recall", ylabel="precision", title="precision-recall", xlim=(0, 1), ylim=(0, 1.02))


def _roc(axes: "Axes", labels: np.ndarray, drawn: Drawn) -> None:
    from sklearn.metrics import roc_curve

    false_positive, true_positive, _ = roc_curve(labels, drawn.scores)
    axes.plot(false_positive, true_positive, label=drawn.name)
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC", xlim=(0, 1), ylim=(0, 1.02))


def _calibration(axes: "Axes", labels: np.ndarray, drawn: Drawn) -> None:
    """Ten groups of as many rows each, by score."""
    from sklearn.calibration import calibration_curve

    observed, predicted = calibration_curve(labels, np.clip(drawn.scores, 0, 1), n_bins=10, strategy="quantile")
    axes.plot(predicted, observed, marker="o", markersize=3, label=drawn.name)
    end = max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.plot([0, end], [0, end], linestyle=":", color="grey")
    axes.set(xlabel="predicted share", ylabel="observed share", title="calibration")


def _confusion(axes: "Axes", labels: np.ndarray, scores: np.ndarray) -> None:
    """Rows of each actual class by the class that was decided for, as shares of the actual class."""
    from sklearn.metrics import confusion_matrix

    classes = np.arange(scores.shape[1])
    shares = confusion_matrix(labels, scores.argmax(axis=1), labels=classes, normalize="true")
    axes.figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=1))
    if len(classes) <= 12:  # more would not be legible
        for (actual, predicted), share in np.ndenumerate(shares):
            color = "white" if share > 0.5 else "black"
            axes.text(predicted, actual, f"{share:.2f}", ha="center", va="center", color=color)
        axes.set(xticks=classes, yticks=classes)
    axes.set(xlabel="predicted class", ylabel="actual class", title="confusion matrix, share of the actual class")


def _predicted_and_actual(axes: "Axes", labels: np.ndarray, scores: np.ndarray) -> None:
    axes.hexbin(labels, scores, gridsize=60, bins="log", cmap="Blues", mincnt=1)
    ends = min(labels.min(), scores.min()), max(labels.max(), scores.max())
    axes.plot(ends, ends, linestyle=":", color="grey")
    axes.set(xlabel="actual", ylabel="predicted", title="predicted against actual")
