import numpy as np
import pytest

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
