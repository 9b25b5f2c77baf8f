"""What a model file may say about rollouts."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from ml_platform.core.catalog import Catalog
from ml_platform.core.spec import ModelSpec, RolloutSpec, Stage, duration


@pytest.mark.parametrize(
    ("given", "stages"),
    [
        ({}, []),
        ({"strategy": "shadow"}, [Stage(0, True)]),
        ({"strategy": "shadow", "steps": [5, 50]}, [Stage(0, True), Stage(0.05), Stage(0.5)]),
        ({"strategy": "canary"}, [Stage(0.01), Stage(0.1), Stage(0.5), Stage(1.0)]),
        ({"strategy": "ab", "abort_if": {"metric": {"name": "brier"}}}, [Stage(0.5)]),
    ],
)
def test_strategies_are_stages(given: dict[str, Any], stages: list[Stage]) -> None:
    spec = RolloutSpec.model_validate(given)
    assert list(spec.stages) == stages
    assert RolloutSpec.model_validate(spec.model_dump(mode="json")) == spec, "a bundle has the whole spec"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"strategy": "canary", "steps": [10, 1]}, "do not ascend"),
        ({"strategy": "canary", "steps": [0]}, "greater than 0"),
        ({"strategy": "canary", "bake": "2h", "max_wait": "1h"}, "max_wait: 1h is shorter than bake, 2h"),
        ({"steps": [10]}, "strategy all_at_once takes no steps; choose shadow, canary, ab or ramp"),
        ({"strategy": "ab"}, "strategy ab is decided by a metric"),
        ({"strategy": "ab", "steps": [10, 20], "abort_if": {"metric": {"name": "brier"}}}, "one step, below 100"),
        ({"strategy": "canary", "abort_if": {"metric": {"name": "roc_auc"}}}, "abort_if.metric.name"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        RolloutSpec.model_validate(given)


def test_metric_has_to_be_one_of_the_task(catalog: Catalog) -> None:
    rollout = {"strategy": "canary", "abort_if": {"metric": {"name": "mae"}}}
    with pytest.raises(ValidationError, match="mae is not among brier, log_loss, accuracy"):
        ModelSpec.model_validate({**catalog.models["fraud_detection"].model_dump(), "rollout": rollout})


def test_error_is_shared_out_among_limits_and_steps() -> None:
    spec = RolloutSpec.model_validate({"strategy": "canary", "abort_if": {"error_rate": 0.01, "score_psi": 0.2}})
    assert spec.alpha == pytest.approx(0.01 / 8)


def test_durations() -> None:
    assert [duration(text) for text in ("90s", "2h")] == [timedelta(seconds=90), timedelta(hours=2)]
