"""Answers find their labels by key, and by nothing that only looks like one."""

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.settings import Settings
from ml_platform.core.spec import ColumnSpec
from ml_platform.resources.labels import with_labels
from ml_platform.resources.lake import Lake
from ml_platform.resources.prediction_rows import Prediction, as_table
from ml_platform.rollout.observations import LABEL

DAY = date(2018, 6, 1)
NOON = datetime(2018, 6, 1, 12, tzinfo=UTC)
LABELS = {"transaction_id": [1, 2, 3], "is_fraud": [1, 0, 1]}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.at(Settings(lake=str(tmp_path / "lake")))


def labelled(catalog: Catalog, lake: Lake, rows: list[Prediction], labels: dict[str, list[Any]] | None = None) -> list:
    raw = keys.raw("fraud_labels")
    lake.write_table(raw, DAY, pa.table(labels or LABELS), [])
    spec = catalog.models["fraud_detection"]
    return with_labels(spec, catalog, lake, as_table(rows))[LABEL].to_pylist()


def row(request_id: str = "r", **inputs: Any) -> Prediction:
    return Prediction(request_id, NOON, "1", "champion", "", 1.0, score=0.5, inputs=inputs)


def test_key_that_was_sent_decides(catalog: Catalog, lake: Lake) -> None:
    rows = [row("3", transaction_id=1), row("3", transaction_id=2), row("3", transaction_id=99)]
    assert labelled(catalog, lake, rows) == [1.0, 0.0, None]


def test_key_is_the_same_value_whatever_the_log_made_of_it(catalog: Catalog, lake: Lake) -> None:
    assert labelled(catalog, lake, [row(transaction_id=1.0), row(transaction_id=1.5)]) == [1.0, None]
    assert labelled(catalog, lake, [row(transaction_id="1"), row(transaction_id="one")]) == [1.0, None]


def test_request_id_is_a_key_only_where_no_other_was_sent_and_the_request_has_one_row(
    catalog: Catalog, lake: Lake
) -> None:
    assert labelled(catalog, lake, [row("1"), row("2", tx_amount=5.0), row("none")]) == [1.0, 0.0, None]
    assert labelled(catalog, lake, [row("1", transaction_id=3), row("1", transaction_id=None)]) == [1.0, None]
    assert labelled(catalog, lake, [row("1"), row("1")]) == [None, None]


def test_key_of_several_columns_is_compared_by_value(catalog: Catalog, lake: Lake) -> None:
    rows = catalog.sources["transactions"]
    columns = {**rows.columns, "order": ColumnSpec(type="string"), "at": ColumnSpec(type="timestamp")}
    keyed = rows.model_copy(update={"key": ("order", "at"), "columns": columns})
    changed = replace(catalog, sources={**catalog.sources, "transactions": keyed})
    labels = {"order": ["007", "7"], "at": pa.array([NOON, NOON], pa.timestamp("us", tz="UTC")), "is_fraud": [1, 0]}
    naive = NOON.replace(tzinfo=None)
    asked = [row(order="7", at=naive), row(order="007", at=naive), row(order="7", at=naive.replace(hour=13)), row("7")]
    assert labelled(changed, lake, asked, labels) == [0.0, 1.0, None, None]
