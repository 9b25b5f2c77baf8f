# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# The stubs of PyArrow know fewer methods than the library has.
"""One definition, two engines: DuckDB and a real Spark give the same numbers."""

import shutil
from collections.abc import Iterator
from datetime import date, timedelta

import pyarrow as pa
import pytest

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog, load_catalog
from ml_platform.core.days import day_range, start_of
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.core.settings import Settings
from ml_platform.core.spec import FeatureViewSpec
from ml_platform.data.contract import arrow_schema
from ml_platform.features.engine import Embedded, Engine
from ml_platform.features.health import differing
from ml_platform.features.leakage import no_future_information
from ml_platform.features.views import AS_OF, compute, input_days, view_inputs
from ml_platform.resources.lake import Lake
from ml_platform.resources.spark import Spark, engine_at
from ml_platform.training.training_set import SPLIT, assemble
from ml_platform.training.windows import Windows
from ml_platform_tests.conftest import lake_of

DAY = date(2018, 5, 20)
SEQUENCE = FeatureViewSpec.model_validate(
    {
        "name": "customer_sequence",
        "entity": "customer_id",
        "function": "ml_platform.examples.fraud.sequences.customer_sequence",
        "inputs": {"transactions": {"window_days": 30}},
        "features": {"customer_last_amounts": {"length": 8, "default": -1}, "customer_last_days": {"length": 16}},
    }
)
VIEWS = [*(view.name for view in load_catalog(find_project(EXAMPLE).defs).daily_views()), SEQUENCE.name]


@pytest.fixture(scope="module")
def spark(processes: None) -> Iterator[Engine]:
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java 17, and there is no `java` on the PATH")
    engine = engine_at(Settings(engine="local[2]", engine_memory="2GB"))
    assert isinstance(engine, Spark)
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, landed_files: list[tuple[str, date, pa.Table]]) -> Lake:
    """60 raw days."""
    return lake_of(Settings(home=tmp_path_factory.mktemp("lake")), landed_files)


def computed(view_name: str, day: date, catalog: Catalog, lake: Lake, engine: Engine) -> pa.Table:
    view = SEQUENCE if view_name == SEQUENCE.name else catalog.views[view_name]
    raw = {
        source: lake.dataset(keys.raw(source), days, arrow_schema(catalog.sources[source]))
        for source in view.inputs
        if (days := input_days(view, catalog.sources[source], day))
    }
    return compute(view, day, catalog.sources, view_inputs(view, day, catalog.sources, raw, engine), engine).read_all()


def assert_same(catalog: Catalog, view_name: str, one: pa.Table, other: pa.Table) -> None:
    view = SEQUENCE if view_name == SEQUENCE.name else catalog.views[view_name]
    identity = [str(view.entity)] if view.kind == "snapshot" else list(catalog.sources["transactions"].key)
    assert one.schema == other.schema
    assert one.select(identity).equals(other.select(identity))
    assert differing(identity, list(view.features), one, other) == (one.num_rows, {})


@pytest.mark.parametrize("view", VIEWS)
def test_view_has_the_same_values_on_both_engines(catalog: Catalog, lake: Lake, spark: Engine, view: str) -> None:
    embedded = computed(view, DAY, catalog, lake, Embedded())
    assert embedded.num_rows > 100
    assert_same(catalog, view, embedded, computed(view, DAY, catalog, lake, spark))


def test_first_day_without_any_known_row_is_the_same(catalog: Catalog, lake: Lake, spark: Engine) -> None:
    first = catalog.sources["transactions"].start_date + timedelta(days=1)
    for view in ("terminal_risk", "terminal_windows"):  # no label is known yet
        assert_same(
            catalog, view, computed(view, first, catalog, lake, Embedded()), computed(view, first, catalog, lake, spark)
        )


def test_training_set_is_joined_alike(catalog: Catalog, lake: Lake, spark: Engine) -> None:
    """The as-of join of DuckDB, and that by window of an engine that has none."""
    days = list(day_range(DAY, DAY + timedelta(days=3)))
    views = [catalog.views[name] for name in ("customer_activity", "terminal_risk", "customer_windows")]
    for view in views:
        for day in days:
            lake.write_table(keys.feature_view(view.name), day, computed(view.name, day, catalog, lake, Embedded()), [])
    split = Windows((days[0], days[1]), (days[2], days[3]))
    transactions, labels = catalog.sources["transactions"], catalog.sources["fraud_labels"]
    tables = [
        assemble(
            lake.dataset(keys.raw("transactions"), days, arrow_schema(transactions)),
            transactions,
            lake.dataset(keys.raw("fraud_labels"), days, arrow_schema(labels)),
            labels,
            "is_fraud",
            views,
            {view.name: lake.dataset(keys.feature_view(view.name), days) for view in views},
            split,
            engine,
        ).table
        for engine in (Embedded(), spark)
    ]
    one, other = tables
    assert one.num_rows == other.num_rows > 1_000
    assert one.column_names == other.column_names
    as_of = f"customer_activity__{AS_OF}"
    for name in ("transaction_id", SPLIT, as_of):
        assert one[name].to_pylist() == other[name].cast(one.schema.field(name).type).to_pylist()
    assert min(filter(None, one[as_of].to_pylist())) == start_of(days[0])
    features = [name for view in views for name in view.features]
    assert differing(["transaction_id"], features, one, other) == (one.num_rows, {})


def test_future_is_taken_away_on_spark_as_well(catalog: Catalog, lake: Lake, spark: Engine) -> None:
    view = catalog.views["terminal_windows"]
    raw = {
        source: lake.dataset(keys.raw(source), input_days(view, catalog.sources[source], DAY)) for source in view.inputs
    }
    inputs = view_inputs(view, DAY, catalog.sources, raw, spark)
    lake.write_table(keys.feature_view("made"), DAY, compute(view, DAY, catalog.sources, inputs, spark).read_all(), [])
    made = lake.dataset(keys.feature_view("made"), [DAY])
    assert no_future_information(view, DAY, catalog.sources, inputs, made, spark).passed
