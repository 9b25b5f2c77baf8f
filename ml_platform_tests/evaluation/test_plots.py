"""Plots show what there is, and are never in the way."""

import numpy as np
import pytest

from ml_platform.core.tasks import METRICS, Task
from ml_platform.evaluation.plots import pictures

RANDOM = np.random.default_rng(1)
LABELS = RANDOM.integers(0, 2, 300)
SCORES = np.clip(RANDOM.normal(LABELS, 0.5), 0, 1)
CURVES = {
    "binary_classification": {"precision_recall", "roc", "calibration"},
    "multiclass_classification": {"confusion"},
    "regression": {"predicted_against_actual"},
}


@pytest.mark.parametrize("task", METRICS)
def test_every_task_has_its_pictures(task: Task) -> None:
    scores = RANDOM.dirichlet([1, 1, 1], 300) if task == "multiclass_classification" else SCORES
    drawn = pictures(task, LABELS, scores, None, "title")
    assert set(drawn) == CURVES[task]
    assert all(png.startswith(b"\x89PNG") for png in drawn.values())


def test_champion_is_drawn_beside_the_candidate() -> None:
    alone = pictures("binary_classification", LABELS, SCORES, None, "title")
    both = pictures("binary_classification", LABELS, SCORES, 1 - SCORES, "title")
    assert all(alone[name] != both[name] for name in CURVES["binary_classification"])


@pytest.mark.parametrize(
    ("labels", "scores", "champion"),
    [
        (LABELS, SCORES * np.nan, None),
        (LABELS, SCORES, SCORES * np.nan),
        (LABELS * 0, SCORES, SCORES),
        (LABELS[:0], SCORES[:0], None),
    ],
)
def test_what_cannot_be_drawn_is_left_out(labels: np.ndarray, scores: np.ndarray, champion: np.ndarray | None) -> None:
    drawn = pictures("binary_classification", labels, scores, champion, "title")
    assert set(drawn) == CURVES["binary_classification"]
