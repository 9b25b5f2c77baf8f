"""From rows of the prediction log to the figures of a step."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from ml_platform.core.spec import AbortSpec, MetricLimitSpec, RolloutSpec
from ml_platform.core.tasks import Task
from ml_platform.registry.versions import Aliases, Version
from ml_platform.resources.prediction_rows import Prediction, as_table
from ml_platform.rollout.observations import LABEL, observe, row_losses
from ml_platform.rollout.state import Rollout
from ml_platform.rollout.traffic import Arm

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = AbortSpec(error_rate=0.01, latency_p99_ms=50, score_psi=0.2, metric=MetricLimitSpec(name="brier"))
ONE, TWO = (Version("m", number, number, "2026-01-01", "", "") for number in "12")
ROLLOUT = Rollout.begin(TWO, Aliases(champion=ONE), RolloutSpec(strategy="canary", abort_if=LIMITS), NOW, "me")


def rows(
    version: str, scores: np.ndarray, arm: Arm = "champion", latency: float = 5.0, failed: int = 0
) -> list[Prediction]:
    return [
        Prediction(
            f"{version}-{n}", NOW + timedelta(milliseconds=n), version, arm, str(n), latency,
            None if n < failed else float(score), error="boom" if n < failed else "",
        )
        for n, score in enumerate(scores)
    ]  # fmt: skip


def uniform(count: int, seed: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, count)


def test_requests_errors_and_latency_are_those_of_the_challenger() -> None:
    log = as_table(rows("1", uniform(900, 1), failed=400) + rows("2", uniform(100, 2), "challenger", 70.0, failed=20))
    found = observe(ROLLOUT, log, "binary_classification")
    assert (found.requests, found.champion_requests, found.latency_p99_ms) == (100, 900, 70.0)
    assert found.errors is not None
    assert found.slow is not None
    assert (found.errors.value, found.slow.value) == (0.2, 1.0)
    assert found.errors.lower > 0.01
    assert found.figures()["error_rate"] == 0.2


def test_shadow_rows_count_and_other_versions_do_not() -> None:
    log = as_table(rows("2", uniform(30, 1), "shadow") + rows("7", uniform(50, 1), "challenger"))
    found = observe(ROLLOUT, log, "binary_classification")
    assert (found.requests, found.champion_requests) == (30, 0)
    assert found.score_psi is None


def test_nothing_logged_yet_is_nothing_observed() -> None:
    found = observe(ROLLOUT, as_table([]), "binary_classification", "refused")
    assert (found.requests, found.latency_p99_ms, found.trouble) == (0, None, "refused")
    assert found.figures() == {"requests": 0, "champion_requests": 0}


def test_scores_of_another_distribution_are_a_shift_and_few_alike_ones_are_not() -> None:
    champion = rows("1", uniform(5_000, 1))
    alike = observe(ROLLOUT, as_table([*champion, *rows("2", uniform(60, 2), "challenger")]), "binary_classification")
    assert alike.score_psi is not None
    assert alike.score_psi < 0.2
    assert not alike.shifted
    high = observe(
        ROLLOUT, as_table([*champion, *rows("2", uniform(60, 2, 0.8), "challenger")]), "binary_classification"
    )
    assert high.score_psi is not None
    assert high.score_psi > 0.2
    assert high.shifted


def test_looking_at_alike_scores_often_ends_nothing() -> None:
    """The bins follow the champion's sample, which the test's guarantee does not cover: seen, not proven."""
    alarms = 0
    for seed in range(30):
        champion, challenger = rows("1", uniform(2_000, seed)), rows("2", uniform(2_000, 1_000 + seed), "challenger")
        for n in range(20, 2_000, 240):
            found = observe(ROLLOUT, as_table(champion[:n] + challenger[:n]), "binary_classification")
            alarms += found.shifted and (found.score_psi or 0) > 0.2
    assert alarms == 0


def test_labelled_rows_say_which_version_is_worse() -> None:
    labels = (uniform(2_000, 3) < 0.3).astype(float)
    right, wrong = np.where(labels == 1, 0.9, 0.1), np.full(2_000, 0.6)
    log = as_table(rows("1", right) + rows("2", wrong, "challenger"))
    known = [*labels, *labels[:1_500], *[None] * 500]
    found = observe(ROLLOUT, log.append_column(LABEL, pa.array(known, pa.float64())), "binary_classification")
    assert found.labels == 1_500
    assert found.metric is not None
    assert found.metric.lower > 0.2
    assert observe(ROLLOUT, log, "binary_classification").metric is None


@pytest.mark.parametrize(
    ("task", "metric", "score", "label", "loss"),
    [
        ("binary_classification", "brier", 0.8, 1, 0.04),
        ("binary_classification", "log_loss", 0.8, 0, -np.log(0.2)),
        ("binary_classification", "accuracy", 0.8, 0, 1.0),
        ("regression", "mae", 8.0, 10, 2.0),
        ("regression", "mape", 8.0, 10, 0.2),
        ("multiclass_classification", "accuracy", [0.1, 0.7, 0.2], 1, 0.0),
        ("multiclass_classification", "log_loss", [0.1, 0.7, 0.2], 2, -np.log(0.2)),
    ],
)
def test_each_row_has_its_loss(task: Task, metric: str, score: float | list[float], label: int, loss: float) -> None:
    scored = {"scores": score} if isinstance(score, list) else {"score": score}
    table = as_table([Prediction("1", NOW, "2", "champion", "e", 1.0, **scored)])  # type: ignore[arg-type]
    found = row_losses(metric, task, table.append_column(LABEL, pa.array([label], pa.float64())))  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx([loss])
