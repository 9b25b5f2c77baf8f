"""One call for several requests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import BundleError, RequestError
from ml_platform.registry.bundle import Bundle, unpack
from ml_platform.resources.online_store import SqliteStore
from ml_platform.serving.requests import Checker
from ml_platform.serving.scoring import Scored, score_together, scores_of
from ml_platform_tests.registry.test_bundle import make_bundle


@pytest.fixture(scope="module")
def bundle(catalog: Catalog) -> Bundle:
    return unpack(make_bundle(catalog), "m")


class Mean:
    def predict(self, x: np.ndarray) -> np.ndarray:
        return x.mean(axis=1).astype(np.float64)


def test_value_beyond_the_model_is_named_and_its_neighbours_are_scored(bundle: Bundle, tmp_path: Path) -> None:
    fine = replace(bundle.transforms, scale=(1e-9,) * len(bundle.transforms.scale))
    bundle = replace(bundle, transforms=fine, trainer=Mean())  # type: ignore[arg-type]
    row = {"tx_amount": 1.0, "tx_datetime": "2018-06-01", **dict.fromkeys(bundle.schema.features, 1.0)}
    huge = next(iter(bundle.schema.features))
    checker = Checker(bundle.schema)
    batch = [checker.rows([row]), checker.rows([row, {**row, huge: 1.7e308}]), checker.rows([row, row])]
    first, second, third = score_together(bundle, checker, SqliteStore(tmp_path / "unused.db"), batch)
    assert isinstance(first, Scored)
    assert isinstance(second, RequestError)
    assert second.subject == f"row 1, field {huge!r}"
    assert isinstance(third, Scored)
    assert third.scores == first.scores * 2


def test_trainer_that_gives_fewer_scores_than_rows_is_found_out(bundle: Bundle) -> None:
    class Short:
        def predict(self, x: np.ndarray) -> np.ndarray:
            return np.zeros(len(x) - 1)

    columns = {name: np.zeros(2) for name in bundle.schema.features}
    columns |= {"tx_amount": np.zeros(2), "tx_datetime": np.zeros(2, dtype="datetime64[us]")}
    with pytest.raises(BundleError, match="1 scores for 2 rows"):
        scores_of(replace(bundle, trainer=Short()), columns, 2)  # type: ignore[arg-type]
