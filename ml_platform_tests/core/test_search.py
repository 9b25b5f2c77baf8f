"""What `search:` of a candidate may say."""

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from ml_platform.core.spec import CandidateSpec, RangeSpec, SearchSpec


def search(text: str) -> SearchSpec:
    return SearchSpec.model_validate(yaml.safe_load(text))


def test_a_param_may_stand_beside_the_settings_or_in_space() -> None:
    short, long = (
        search("{lr: {log: [1e-4, 1e-2]}, trials: 12}"),
        search("{space: {lr: {log: [1e-4, 1e-2]}}, trials: 12}"),
    )
    assert short == long
    assert short.space == {"lr": RangeSpec(log=(1e-4, 1e-2))}
    assert short.count == 12


@pytest.mark.parametrize(
    ("text", "how", "count"),
    [
        ("{alpha: [1, 2, 3], max_iter: [1, 2]}", "grid", 6),
        ("{alpha: [1, 2, 3], trials: 2}", "tpe", 2),
        ("{alpha: {range: [0, 1.0]}}", "tpe", 20),
        ("{alpha: {range: [1, 4]}}", "tpe", 4),
        ("{method: grid, alpha: {range: [2, 10], step: 4}, hidden: [[8], [8, 8]]}", "grid", 6),
        ("{method: random, alpha: [1, 2, 3]}", "random", 3),
    ],
)
def test_lists_are_a_grid_unless_trials_are_counted(text: str, how: str, count: int) -> None:
    assert (search(text).how, search(text).count) == (how, count)


def test_whole_numbers_are_those_that_are_written_so() -> None:
    assert RangeSpec(range=(1, 4)).values == [1, 2, 3, 4]
    assert RangeSpec(range=(1, 2.0), step=0.5).values == [1, 1.5, 2.0]
    assert RangeSpec(range=(1, 2.0)).values is None
    assert RangeSpec(log=(1, 64)).values is None
    assert search("{lr: [1e-4, 1e-3], max_features: [sqrt, 0.5]}").space["lr"] == (1e-4, 1e-3)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{trials: 3}", "Field required"),
        ("{lr: {log: [1e-2, 1e-4]}}", "the low end 0.01 is not below the high end 0.0001"),
        ("{lr: {log: [0, 1]}}", "above zero, not 0"),
        ("{lr: {range: [0, .inf]}}", "is not below the high end inf"),
        ("{lr: {lgo: [1, 2]}}", "give a list of values, {range: [low, high]}, also with a step, or {log: [low, high]}"),
        ("{lr: {}}", "give a list of values"),
        ("{lr: []}", "at least 1 item"),
        ("{lr: {range: [0, 1], step: 0.3}}", "steps of 0.3 do not lead from 0 to 1"),
        ("{lr: {log: [1, 9], step: 2}}", "steps of 2 do not lead"),
        ("{lr: 3, n: [1]}", "Extra inputs are not permitted"),
        ("{trails: 3, n: [1]}", "Extra inputs are not permitted"),
        ("{method: grid, lr: {range: [0, 0.5]}}", "a grid needs values of lr"),
        ("{method: grid, lr: [1, 2], trials: 2}", "a grid has as many trials as points (2): leave `trials` out"),
        ("{lr: {range: [1, 32]}, n: {range: [1, 32]}, method: grid}", "the grid has 1,024 points, and 1,000 are the most"),
        ("{lr: [1, 2], trials: 3}", "3 trials of 2 points: lower `trials`, or take method: grid"),
        ("{lr: [1], max_failed_share: 1}", "less than 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValidationError) as error:
        search(text)
    assert problem in str(error.value)


def test_spec_is_the_same_again_after_a_trip_through_json() -> None:
    given: dict[str, Any] = {"trainer": "mlp", "search": {"lr": {"log": ["1e-4", 0.1]}, "hidden": [[8], [16, 16]]}}
    spec = CandidateSpec.model_validate(given)
    again = CandidateSpec.model_validate_json(spec.model_dump_json())
    assert again.model_dump(mode="json") == spec.model_dump(mode="json")


def test_every_end_and_value_is_worth_a_check() -> None:
    found = list(search("{lr: {log: [0.1, 1]}, hidden: [[1], [2], [3]]}").extremes())
    assert found == [{"lr": lr, "hidden": [1]} for lr in (0.1, 1)] + [{"lr": 0.1, "hidden": [n]} for n in (1, 2, 3)]
