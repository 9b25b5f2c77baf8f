"""Plots that a person wants to look at, as PNG."""

import io

import numpy as np


def curves(labels: np.ndarray, scores: np.ndarray, title: str) -> bytes:
    """Precision-recall and ROC curve side by side."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display
    from sklearn.metrics import precision_recall_curve, roc_curve

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    precision, recall, _ = precision_recall_curve(labels, scores)
    left.step(recall, precision, where="post")
    left.set(xlabel="recall", ylabel="precision", title="precision-recall", xlim=(0, 1), ylim=(0, 1.02))
    false_positive, true_positive, _ = roc_curve(labels, scores)
    right.plot(false_positive, true_positive)
    right.plot([0, 1], [0, 1], linestyle=":", color="grey")
    right.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC", xlim=(0, 1), ylim=(0, 1.02))
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()
