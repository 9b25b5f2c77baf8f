"""Features that are unsound are found, and sound ones are left in peace."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from ml_platform.core.spec import FeatureSpec, FeatureViewSpec, ViewInputSpec
from ml_platform.features.health import (
    differing,
    distribution_is_normal,
    entities_are_covered,
    nulls_are_within_limits,
    same_inputs_give_same_values,
    shift,
    shifts,
    values_are_in_range,
)
from ml_platform.features.plots import distributions


def view(**features: Mapping[str, Any]) -> FeatureViewSpec:
    return FeatureViewSpec(
        name="activity",
        entity="user",
        function="some.module.function",
        inputs={"clicks": ViewInputSpec(window_days=3)},
        features={name: FeatureSpec(**given) for name, given in features.items()},
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Any:
    def write(**columns: Sequence[Any]) -> pads.Dataset:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.parquet"
        pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), path)
        return pads.dataset(path)

    return write


@pytest.mark.parametrize("bad", [-0.5, 10.5, np.nan, np.inf, -np.inf])
def test_value_out_of_range_or_not_finite_is_found_with_its_limits(dataset: Any, bad: float) -> None:
    verdict = values_are_in_range(view(n={"min": 0, "max": 10}), dataset(n=[0.0, 10.0, bad, 5.0]))
    assert not verdict.passed
    assert verdict.words == f"n: 1 values such as {bad:g}, outside [0, 10]"


def test_values_on_the_limits_and_without_limits_are_in_range(dataset: Any) -> None:
    rows = dataset(n=[0.0, 10.0], free=[-1e300, 1e300], whole=[1, 2])
    assert values_are_in_range(view(n={"min": 0, "max": 10}, free={}, whole={"type": "int64"}), rows).passed


def test_defaults_may_stand_in_for_so_many_rows_and_no_more() -> None:
    spec = view(often={}, rarely={"max_null_share": 0.1})
    assert nulls_are_within_limits(spec, {"often": 10, "rarely": 1}, 10).passed
    verdict = nulls_are_within_limits(spec, {"often": 10, "rarely": 2}, 10)
    assert not verdict.passed
    assert verdict.words == "rarely: 20.0% against 10.0%"
    assert nulls_are_within_limits(spec, {"often": 0, "rarely": 0}, 0).passed


def test_entity_without_row_is_named_and_null_is_nobody(dataset: Any) -> None:
    rows = dataset(user=[1, 2, 3])
    assert entities_are_covered(view(n={}), rows, dataset(user=[1, 3, 3, None])).passed
    verdict = entities_are_covered(view(n={}), rows, dataset(user=[1, 4, 4, 5]))
    assert not verdict.passed
    assert verdict.words == "2 of 3 have none, such as 4"


# --- computed again ---------------------------------------------------------------------------------------------------


def test_new_column_has_nothing_to_agree_with_and_old_ones_agree() -> None:
    before = pa.table({"user": [1, 2], "n": [1.0, 2.0], "gone": [0.0, 0.0]})
    now = pa.table({"user": [2, 1], "n": [2.0 + 1e-12, 1.0], "new": [5.0, 5.0]})
    assert same_inputs_give_same_values(view(n={}, new={}), ["user"], before, now).passed


def test_value_that_changed_although_inputs_did_not_is_counted() -> None:
    before, now = pa.table({"user": [1, 2], "n": [1.0, 2.0]}), pa.table({"user": [1, 2], "n": [1.0, 2.1]})
    verdict = same_inputs_give_same_values(view(n={}), ["user"], before, now)
    assert not verdict.passed
    assert verdict.words == "n differs in 1 rows"


@pytest.mark.parametrize("users", [[1], [1, 3], [1, 2, 3]])
def test_entities_that_came_or_went_although_inputs_did_not_are_found(users: list[int]) -> None:
    before, now = pa.table({"user": [1, 2], "n": [0.0, 0.0]}), pa.table({"user": users, "n": [0.0] * len(users)})
    assert not same_inputs_give_same_values(view(n={}), ["user"], before, now).passed


def test_differing_takes_nan_for_equal_to_nan_and_rows_by_identity() -> None:
    one = pa.table({"a": [1, 1, 2], "b": ["x", "y", "x"], "n": [np.nan, 1.0, 2.0]})
    other = pa.table({"a": [2, 1, 1], "b": ["x", "x", "y"], "n": [2.0, np.nan, 3.0]})
    assert differing(["a", "b"], ["n"], one, other) == (3, {"n": 1})


# --- distributions ----------------------------------------------------------------------------------------------------


def test_psi_is_what_its_formula_says() -> None:
    """Two halves that become a quarter and three quarters: (.25-.5) ln(.25/.5) + (.75-.5) ln(.75/.5)."""
    found = shift("n", np.repeat([0.0, 1.0], 50), np.repeat([0.0, 1.0], [25, 75]))
    assert found.norm.tolist()[:2] == [0.5, 0.5]
    assert found.index == pytest.approx(-0.25 * np.log(0.5) + 0.25 * np.log(1.5))


def test_same_distribution_has_a_psi_of_about_nothing_and_another_much() -> None:
    rng = np.random.default_rng(3)
    norm = rng.lognormal(size=20_000)
    assert shift("n", norm, rng.lognormal(size=5_000)).index < 0.02
    assert shift("n", norm, rng.lognormal(mean=0.5, size=5_000)).index > 0.2
    assert shift("n", np.zeros(100), np.zeros(50)).index == 0
    assert shift("n", np.zeros(1000), np.ones(1000)).index > 5


def test_shifted_feature_is_named_with_its_index_and_the_table_begins_with_the_worst(dataset: Any) -> None:
    rng = np.random.default_rng(4)
    spec = view(calm={}, wild={})
    norm = dataset(calm=rng.normal(size=4_000), wild=rng.normal(size=4_000))
    found = shifts(spec, norm, dataset(calm=rng.normal(size=1_000), wild=rng.normal(loc=1, size=1_000)))
    verdict = distribution_is_normal(spec, found)
    assert not verdict.passed
    assert verdict.words.startswith("wild: ")
    assert [row["feature"] for row in verdict.table] == ["wild", "calm"]
    assert distributions(found, "a day").startswith(b"\x89PNG")


def test_without_norm_nothing_is_judged(dataset: Any) -> None:
    assert distribution_is_normal(view(n={}), None).passed
    assert shifts(view(n={}), dataset(n=[1.0]), dataset(n=pa.array([], pa.float64()))) == []
