"""A bundle's input schema against what is declared, and what it was trained on."""

import pyarrow as pa
import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.core.spec import ColumnSpec, FeatureSpec, SourceSpec
from ml_platform.data.contract import arrow_schema
from ml_platform.registry.bundle import InputSchema, ViewSchema
from ml_platform.registry.conformity import schema_differences


@pytest.fixture
def rows(catalog: Catalog) -> SourceSpec:
    return catalog.sources["transactions"]


SCHEMA = InputSchema(
    {"tx_amount": "float64", "tx_datetime": "timestamp"}, (ViewSchema("v", "customer_id", "int32", {"spent": 0.0}),)
)


def differences(
    catalog: Catalog, rows: SourceSpec, features: tuple[str, ...] = ("spent",), trained_on: SourceSpec | None = None
) -> list[str]:
    declared = {name: FeatureSpec(expression="0.0") for name in features}
    view = catalog.views["customer_activity"].model_copy(update={"features": declared})
    schema = arrow_schema(trained_on or rows).append(pa.field("spent", pa.float64()))
    return schema_differences(SCHEMA, rows, [view], schema)


def with_column(rows: SourceSpec, name: str, column: ColumnSpec | None) -> SourceSpec:
    columns = {known: spec for known, spec in rows.columns.items() if known != name}
    return rows.model_copy(update={"columns": columns | ({name: column} if column else {})})


def test_schema_of_what_it_was_trained_on_matches(catalog: Catalog, rows: SourceSpec) -> None:
    assert differences(catalog, rows) == []


def test_source_that_has_changed_is_told(catalog: Catalog, rows: SourceSpec) -> None:
    gone, other = with_column(rows, "tx_amount", None), with_column(rows, "customer_id", ColumnSpec(type="string"))
    assert differences(catalog, gone) == ["tx_amount is float64 in the bundle and absent in transactions"]
    assert differences(catalog, other) == ["customer_id is int32 in the bundle and string in transactions"]


def test_training_set_of_another_type_is_told(catalog: Catalog, rows: SourceSpec) -> None:
    before = with_column(rows, "tx_amount", ColumnSpec(type="float32"))
    assert differences(catalog, rows, trained_on=before) == [
        "tx_amount is float64 in the bundle and float in the training set"
    ]


def test_features_that_came_or_went_are_told(catalog: Catalog, rows: SourceSpec) -> None:
    assert differences(catalog, rows, ()) == ["feature spent of the bundle is in no view"]
    assert differences(catalog, rows, ("spent", "seen")) == ["feature seen of a view is not in the bundle"]
