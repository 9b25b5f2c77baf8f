"""Keys and references over a whole day, against plain Python."""

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.data import across

Keys = list[tuple[int, str]]
KEYS = st.lists(st.tuples(st.integers(-3, 3), st.sampled_from("ab")), max_size=30)


def table(keys: Keys) -> pa.Table:
    return pa.table(
        {"id": pa.array([k[0] for k in keys], pa.int64()), "part": pa.array([k[1] for k in keys], pa.string())}
    )


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("across") / "it's staged.parquet"


@given(KEYS, st.integers(1, 40))
def test_repeated_keys_are_all_but_the_first(staged: Path, keys: Keys, at_once: int) -> None:
    pq.write_table(table(keys), staged)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(across, "KEYS_AT_ONCE", at_once)
        found = across.repeated_keys(staged, len(keys), ["id", "part"]).tolist()
    assert found == [n for n, key in enumerate(keys) if key in keys[:n]]


@given(KEYS, KEYS)
def test_keys_among_others(staged: Path, keys: Keys, others: Keys) -> None:
    pq.write_table(table(keys), staged)
    found = across.keys_among(staged, ["id", "part"], pads.dataset(table(others))).tolist()
    assert found == [n for n, key in enumerate(keys) if key in others]


@given(st.lists(st.none() | st.integers(0, 5)), st.lists(st.none() | st.integers(0, 5)))
def test_values_that_are_not_among_others(staged: Path, values: list[int | None], others: list[int | None]) -> None:
    pq.write_table(pa.table({"id": pa.array(values, pa.int32())}), staged)
    known = pads.dataset(pa.table({"other": pa.array(others, pa.int64())}))
    found = across.values_not_among(staged, "id", known, "other").tolist()
    assert found == [n for n, value in enumerate(values) if value is not None and value not in others]
