from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core.errors import FeatureError
from ml_platform.features.transforms import Transforms

ROWS = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([5.0, 5.0, 5.0]), "amount": np.array([10.0, 20.0, 60.0])}


def fitted() -> Transforms:
    return Transforms.fit(("a", "b"), {"ratio": "amount / a"}, ROWS)


def test_matrix_is_the_asinh_of_z_scores() -> None:
    matrix = fitted().apply(ROWS)
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix[:, 0], np.arcsinh([-(1.5**0.5), 0, 1.5**0.5]), rtol=1e-6)
    np.testing.assert_allclose(matrix[:, 1], 0)


def test_applying_never_fits_again() -> None:
    one_row = {name: values[:1] for name, values in ROWS.items()}
    np.testing.assert_array_equal(fitted().apply(one_row), fitted().apply(ROWS)[:1])


def test_json_round_trip_is_exact() -> None:
    again = Transforms.from_json(fitted().to_json())
    assert again == fitted()
    np.testing.assert_array_equal(again.apply(ROWS), fitted().apply(ROWS))


def test_missing_columns_are_named() -> None:
    with pytest.raises(FeatureError, match="columns are missing: b, amount"):
        fitted().apply({"a": ROWS["a"]})


def test_required_columns_are_inputs_not_features() -> None:
    assert fitted().required_columns == ("a", "b", "amount")


# --- categories and vectors -------------------------------------------------------------------------------------------

SHOPS = np.array([7, 7, 7, 9, 9, 3, 5, 8], dtype=np.int32)
CITIES = np.array(["Rome", "Oslo", "Oslo", None, "Rome", "Rome", "Bern", "Oslo"], dtype=object)
SALES = {"shop": SHOPS, "city": CITIES, "amount": np.arange(8.0)}


def coded(most: int = 3) -> Transforms:
    return Transforms.fit(("amount",), {"where": "shop", "town": "city"}, SALES, {"where": most, "town": 9})


def test_most_frequent_values_have_codes_and_all_others_are_unknown() -> None:
    assert coded().categories == {
        "where": (7.0, 9.0, 3.0),
        "town": ("Oslo", "Rome", "Bern"),
    }  # of equals the smaller first
    codes = coded().apply(SALES)
    assert codes[:, 1].tolist() == [1, 1, 1, 2, 2, 3, 0, 0]
    assert codes[:, 2].tolist() == [2, 1, 1, 0, 2, 2, 3, 1]
    np.testing.assert_allclose(codes[:, 0], np.arcsinh((SALES["amount"] - 3.5) / np.std(SALES["amount"])), rtol=1e-6)


def test_codes_are_the_same_of_training_rows_and_of_a_request() -> None:
    """A request has every number as float64, and strings in arrays of another kind."""
    request = {
        "shop": SHOPS.astype(np.float64),
        "city": np.array([c or "nowhere" for c in CITIES]),
        "amount": SALES["amount"],
    }
    again = Transforms.from_json(coded().to_json())
    assert again == coded()
    np.testing.assert_array_equal(again.apply(request), coded().apply(SALES))


def test_values_that_training_never_saw_and_nulls_are_unknown() -> None:
    rows = {
        "shop": np.array([np.nan, 99, 7]),
        "city": np.array([None, "Lima", "Oslo"], dtype=object),
        "amount": np.zeros(3),
    }
    assert coded().apply(rows)[:, 1:].tolist() == [[0, 0], [0, 0], [1, 1]]


def test_whole_numbers_beyond_what_a_request_tells_apart_have_the_code_that_a_request_gets() -> None:
    rows = {"v": np.array([2**53 + 1, 2**53 + 1, 4])}
    fit = Transforms.fit((), {"f": "v"}, rows, {"f": 9})
    assert (
        fit.apply(rows).ravel().tolist() == fit.apply({"v": rows["v"].astype(np.float64)}).ravel().tolist() == [1, 1, 2]
    )


def test_time_has_no_categories() -> None:
    rows = {"t": np.array(["2018-04-01"], dtype="datetime64[us]")}
    with pytest.raises(FeatureError, match=r"feature when: is a time, .* use hour\(\)"):
        Transforms.fit((), {"when": "t"}, rows, {"when": 5})


@given(st.lists(st.integers(-(2**31), 2**31), min_size=1), st.integers(1, 9))
def test_codes_are_dense_and_the_commoner_value_has_the_smaller(values: list[int], most: int) -> None:
    rows = {"v": np.array(values)}
    codes = Transforms.fit((), {"f": "v"}, rows, {"f": most}).apply(rows)[:, 0].astype(int)
    counts = np.bincount(codes)[1:]
    assert len(counts) == min(most, len(set(values)))
    assert (np.diff(counts) <= 0).all()
    assert len(set(zip(values, codes, strict=True))) == len(set(values))


def test_columns_of_a_vector_share_mean_and_scale() -> None:
    rows = {"v_1": np.array([1.0, 3.0]), "v_2": np.array([5.0, 7.0]), "w": np.array([1.0, 3.0])}
    fit = Transforms.fit(("v_1", "v_2", "w"), {}, rows, vectors={"v": ("v_1", "v_2")})
    assert fit.mean == (4.0, 4.0, 2.0)
    assert fit.scale == (5**0.5, 5**0.5, 1.0)
    assert Transforms.from_json(fit.to_json()) == fit


def test_features_are_described_as_the_matrix_has_them() -> None:
    rows = {"v_1": np.array([1.0, 3.0]), "v_2": np.array([5.0, 7.0]), "shop": np.array([4, 4])}
    fit = Transforms.fit(("v_1", "v_2"), {"where": "shop"}, rows, {"where": 9}, {"v": ("v_1", "v_2")})
    described = fit.describe({"v_1": -1.0, "v_2": -1.0})
    assert [(f.name, f.vector, f.categories) for f in described] == [("v_1", "v", 0), ("v_2", "v", 0), ("where", "", 1)]
    missing = fit.apply({"v_1": np.full(1, -1.0), "v_2": np.full(1, -1.0), "shop": np.zeros(1)})
    assert [f.default for f in described] == missing[0].tolist()


def test_default_stands_in_where_a_request_feature_follows_from_a_null_in_training_and_after() -> None:
    rows = {"amount": np.array([1.0, np.nan, 3.0]), "limit": np.array([10.0, 10.0, np.nan])}
    fitted = Transforms.fit(
        (), {"share": "amount / limit", "big": "amount > 2"}, rows, defaults={"share": 0.5, "big": 1.0}
    )
    again = Transforms.from_json(fitted.to_json())
    unscaled = replace(again, mean=(0.0, 0.0), scale=(1.0, 1.0))
    np.testing.assert_allclose(np.sinh(unscaled.apply(rows)), [[0.1, 0.0], [0.5, 1.0], [0.5, 1.0]], rtol=1e-6)
    np.testing.assert_allclose(fitted.mean, [(0.1 + 0.5 + 0.5) / 3, 2 / 3])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_number_that_is_missing_or_infinite_in_training_is_an_error_that_names_the_feature(value: float) -> None:
    rows = {"a": np.array([1.0, 2.0]), "b": np.array([1.0, value])}
    with pytest.raises(FeatureError, match="feature b: is missing or infinite in 1 of 2 training rows"):
        Transforms.fit(("a", "b"), {}, rows)
