from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from ml_platform.core.errors import FeatureError
from ml_platform.resources.online_store import OnlineStore

JUNE, JULY = datetime(2018, 6, 1, tzinfo=UTC), datetime(2018, 7, 1, tzinfo=UTC)


def rows(*values: float) -> pa.Table:
    return pa.table({"user": pa.array(range(len(values)), pa.int32()), "clicks": list(values)})


@pytest.fixture
def store(tmp_path: Path) -> OnlineStore:
    return OnlineStore(tmp_path / "deep" / "online.db")


def test_known_ids_are_found_and_unknown_ones_left_out(store: OnlineStore) -> None:
    assert store.write("activity", "user", rows(1.5, 2.5), JUNE)
    assert store.read("activity", "user", [0, 1, 1, 99], ["clicks"]) == {0: {"clicks": 1.5}, 1: {"clicks": 2.5}}


def test_newer_rows_replace_all_older_ones(store: OnlineStore) -> None:
    store.write("activity", "user", rows(1, 2), JUNE)
    store.write("activity", "user", rows(9), JULY)
    assert store.read("activity", "user", [0, 1], ["clicks"]) == {0: {"clicks": 9}}
    assert store.as_of("activity") == JULY


def test_older_rows_never_replace_newer_ones(store: OnlineStore) -> None:
    store.write("activity", "user", rows(9), JULY)
    assert not store.write("activity", "user", rows(1), JUNE)
    assert store.read("activity", "user", [0], ["clicks"]) == {0: {"clicks": 9}}


def test_writer_that_dies_leaves_the_old_rows(store: OnlineStore) -> None:
    store.write("activity", "user", rows(1), JUNE)
    twice = pa.table({"user": [5, 5], "clicks": [1.0, 2.0]})
    with pytest.raises(Exception, match="UNIQUE"):
        store.write("activity", "user", twice, JULY)
    assert store.read("activity", "user", [0], ["clicks"]) == {0: {"clicks": 1}}


def test_feature_that_the_store_does_not_have_is_an_error(store: OnlineStore) -> None:
    store.write("activity", "user", rows(1), JUNE)
    with pytest.raises(FeatureError, match="no such column"):
        store.read("activity", "user", [0], ["never_written"])


def test_missing_store_or_view_is_an_error_not_a_default(store: OnlineStore) -> None:
    with pytest.raises(FeatureError, match="materialize features/online_store"):
        store.read("activity", "user", [1], ["clicks"])
    store.write("other", "user", rows(1), JUNE)
    with pytest.raises(FeatureError, match=r"\[activity\]"):
        store.read("activity", "user", [1], ["clicks"])
