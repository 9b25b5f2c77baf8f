"""What a single run may say otherwise than its model file, and what is refused."""

from typing import Any

import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import SpecError
from ml_platform.core.spec import ModelSpec
from ml_platform.training.overrides import changes, defaults, flat, nested, overridden


@pytest.fixture
def spec(catalog: Catalog) -> ModelSpec:
    searched = {"trainer": "xgboost", "params": {"max_depth": 4}, "search": {"learning_rate": [0.1, 0.2]}}
    own = {"trainer": "my.trainers.Own", "params": {"depth": 3}}
    content = catalog.models["fraud_detection"].model_dump()
    return ModelSpec.model_validate({**content, "candidates": [{"trainer": "linear"}, searched, own]})


def test_defaults_are_what_the_file_says_and_what_trainers_take_for_granted(spec: ModelSpec) -> None:
    known = defaults(spec)
    assert known["training.window_days"] == spec.training.window_days
    assert known["training.embargo_days"] is None
    assert (known["candidates.1.params.alpha"], known["candidates.2.params.max_depth"]) == (1.0, 4)
    assert known["candidates.3.params.depth"] == 3, "of one's own trainer only the file knows"
    assert "candidates.2.params.learning_rate" not in known, "trials find it"


def test_what_is_as_in_the_file_is_no_change(spec: ModelSpec) -> None:
    given = {"training.window_days": spec.training.window_days, "training.seed": 3, "candidates.1.params.alpha": 1}
    assert changes(spec, overridden(spec, given)) == {"training.seed": 3}
    assert overridden(spec, {}) is spec


def test_run_gets_fields_and_params_and_all_else_stays(spec: ModelSpec) -> None:
    run = overridden(spec, {"training.window_days": 14, "candidates.2.params.max_depth": 2})
    assert (run.training.window_days, run.candidates[1].params) == (14, {"max_depth": 2})
    same = {"training": spec.training, "candidates": spec.candidates}
    assert run.model_copy(update=same) == spec
    assert changes(spec, run) == {"training.window_days": 14, "candidates.2.params.max_depth": 2}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"training.window_days": 0}, r"`training.window_days`: Input should be greater than or equal to 1 \(it is 0\)"),
        ({"training.seed": "seven"}, r"`training.seed`: Input should be a valid integer.*'seven'"),
        ({"training.windowdays": 7}, r"training.windowdays: is nothing.*did you mean `training.window_days`"),
        ({"training.cadence": "daily"}, "training.cadence: is nothing that a run may change"),
        ({"candidates.1.params.alpha": -1}, r"candidates.1.params.alpha: .*greater than 0 \(it is -1\)"),
        ({"candidates.2.params.learning_rate": 0.3}, "candidates.2.params.learning_rate: is nothing"),
        ({"candidates.4.params.alpha": 1}, "candidates.4.params.alpha: is nothing"),
        ({"training.window_days": 7, "training.validation_days": 7}, r"`training.window_days`: 7 days.*leave none to fit"),
    ],
)  # fmt: skip
def test_what_the_file_could_not_say_no_run_can(spec: ModelSpec, given: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        overridden(spec, given)


def test_model_file_says_what_may_be_changed(spec: ModelSpec) -> None:
    allowed = {"training": {**spec.training.model_dump(), "overrides": {"allowed": ["training.seed"]}}}
    narrow = ModelSpec.model_validate({**spec.model_dump(), **allowed})
    assert defaults(narrow) == {"training.seed": 7}
    with pytest.raises(
        SpecError, match="training.window_days: is nothing that a run may change.*Next: one of training.seed$"
    ):
        overridden(narrow, {"training.window_days": 14})


def test_names_nest_as_the_file_does() -> None:
    names = {"training.seed": 3, "candidates.1.params.hidden": [8], "candidates.2.params.a.b": 1}
    assert nested(names) == {
        "training": {"seed": 3},
        "candidates": {"1": {"params": {"hidden": [8]}}, "2": {"params": {"a.b": 1}}},
    }
    assert flat(nested(names)) == names
