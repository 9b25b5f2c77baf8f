import numpy as np
import pyarrow as pa
import pytest

from ml_platform.training import profile as module
from ml_platform.training.profile import frame_of, profile


def test_columns_are_described_with_what_is_missing() -> None:
    table = pa.table({"a": [1.0, None, 3.0], "b": [1, 2, 3], "name": ["x", "y", None], "flag": [True, False, True]})
    rows = profile(frame_of(table)).set_index("column")
    assert list(rows.index) == ["a", "b", "flag"]
    assert rows.loc["a", ["count", "missing", "mean", "min", "max"]].tolist() == [2.0, 1.0, 2.0, 1.0, 3.0]
    assert rows.loc["b", "50%"] == 2.0


def test_of_many_rows_evenly_spread_ones_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 100)
    frame = frame_of(pa.table({"a": np.arange(1_000)}))
    assert len(frame) == 100
    assert frame["a"].tolist()[:2] == [0, 10]
    assert frame_of(pa.table({"a": []})).empty
