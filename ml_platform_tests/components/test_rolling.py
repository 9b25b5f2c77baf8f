"""Rolling views as assets, and a model that is trained on them: a lake with raw days, and nothing else."""

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from ml_platform.components.candidate import make_training_set, training_set_asset
from ml_platform.components.feature_view import compute_day, view_asset
from ml_platform.components.graph import asset_key, daily
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import day_range
from ml_platform.core.errors import RequestError
from ml_platform.core.settings import Settings
from ml_platform.core.spec import CandidateSpec, ModelSpec, TrainingSpec
from ml_platform.features.engine import Embedded
from ml_platform.registry import bundle
from ml_platform.registry.candidate import train_candidate
from ml_platform.resources.lake import Lake
from ml_platform.resources.lineage import training_fingerprint, training_needs, view_is_current
from ml_platform.resources.online_store import SqliteStore
from ml_platform.training.training_set import columns_of, part_of
from ml_platform.training.windows import windows
from ml_platform_tests.conftest import FIRST_DAY, NO_LOGS, lake_of
from ml_platform_tests.features.computing import from_tables
from ml_platform_tests.serving.test_requests import from_entities, from_rows

VIEWS = ("customer_windows", "terminal_windows")
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
TRAINING_DATE = date(2018, 5, 10)


@pytest.fixture(scope="module")
def model(catalog: Catalog) -> ModelSpec:
    """The fraud model on the handbook's features."""
    training = TrainingSpec(window_days=4, validation_days=3, embargo_days=0)
    trainer = CandidateSpec(trainer="linear")
    changes = {"name": "book", "features": (*VIEWS, "handbook_request"), "training": training, "candidates": (trainer,)}
    return catalog.models["fraud_detection"].model_copy(update=changes)


@pytest.fixture(scope="module")
def with_model(catalog: Catalog, model: ModelSpec) -> Catalog:
    return Catalog(catalog.sources, catalog.views, {**catalog.models, model.name: model})


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, landed_files: list[tuple[str, date, pa.Table]]) -> Lake:
    """A lake with 60 raw days; labels as far as they are known."""
    return lake_of(Settings(home=tmp_path_factory.mktemp("lake")), landed_files)


def resources(lake: Lake) -> dict[str, dg.ResourceDefinition]:
    given = {"lake": lake, "engine": Embedded()}
    return {name: dg.ResourceDefinition.hardcoded_resource(one) for name, one in given.items()}


def materialize(asset: dg.AssetsDefinition, lake: Lake, first: date, last: date) -> dg.ExecuteInProcessResult:
    tags = {RANGE_START: first.isoformat(), RANGE_END: last.isoformat()}
    return dg.materialize([asset], tags=tags, resources=resources(lake))


def test_range_makes_every_day_from_its_own_raw_days(catalog: Catalog, lake: Lake) -> None:
    view, first, last = catalog.views["terminal_windows"], FIRST_DAY, FIRST_DAY + timedelta(days=9)
    assert materialize(view_asset(view, catalog), lake, first, last).success
    assert lake.days(keys.feature_view(view.name)) == list(day_range(first, last))
    made_from = [one.name for one in lake.require(keys.feature_view(view.name), last).inputs]
    assert made_from == [
        *(f"transactions/raw [{day}]" for day in day_range(first, last)),
        *(f"fraud_labels/raw [{day}]" for day in day_range(first, last - timedelta(days=7))),
    ]
    tables = {
        source: lake.read_table(
            keys.raw(source), [d for d in day_range(first, last) if d in lake.days(keys.raw(source))]
        )
        for source in view.inputs
    }
    expected = from_tables(view, last, catalog.sources, tables)
    assert lake.read_table(keys.feature_view(view.name), [last]).equals(expected)


def test_day_is_current_until_one_of_its_raw_days_changes(catalog: Catalog, lake: Lake) -> None:
    view, day = catalog.views["customer_windows"], FIRST_DAY + timedelta(days=40)
    compute_day(view, day, catalog, lake, Embedded())
    assert view_is_current(lake.manifest, catalog, view, day)
    oldest, before = day - timedelta(days=30), day - timedelta(days=31)
    for changed, current in ((before, True), (oldest, False)):
        rows = lake.read_table(keys.raw("transactions"), [changed])
        lake.write_table(keys.raw("transactions"), changed, rows.slice(1), [])
        assert view_is_current(lake.manifest, catalog, view, day) is current
        lake.write_table(keys.raw("transactions"), changed, rows, [])


def mappings(asset: dg.AssetsDefinition) -> dict[str, tuple[int, int]]:
    offsets = {}
    for spec in asset.specs:
        for dep in spec.deps:
            mapping = dep.partition_mapping
            assert isinstance(mapping, dg.TimeWindowPartitionMapping)
            offsets[dep.asset_key.to_user_string()] = (mapping.start_offset, mapping.end_offset)
    return offsets


def test_day_depends_on_its_raw_days_up_to_itself(catalog: Catalog) -> None:
    assert mappings(view_asset(catalog.views["terminal_windows"], catalog)) == {
        "transactions/raw": (-37, 0),
        "fraud_labels/raw": (-37, -7),
    }


def test_training_set_depends_on_the_days_of_its_rolling_views(with_model: Catalog, model: ModelSpec) -> None:
    found = mappings(training_set_asset(model, with_model))
    assert {found[f"features/{view}"] for view in VIEWS} == {found["transactions/raw"]} == {(-14, -8)}


def requested(catalog: Catalog, landed: Mapping[str, Iterable[date]]) -> dict[str, list[str]]:
    """The days of the rolling views that the freshness sensor's conditions ask for, once these raw days are there."""
    calendar = daily(FIRST_DAY)
    raw = [dg.AssetSpec(asset_key(keys.raw(source)), partitions_def=calendar) for source in landed]
    assets = [view_asset(catalog.views[view], catalog) for view in VIEWS]
    with dg.instance_for_test(overrides=NO_LOGS) as instance:
        for source, days in landed.items():
            for day in days:
                event = dg.AssetMaterialization(asset_key(keys.raw(source)), partition=day.isoformat())
                instance.report_runless_asset_event(event)
        definitions = dg.Definitions(assets=[*raw, *assets], resources={"lake": object(), "engine": object()})
        result = dg.evaluate_automation_conditions(definitions, instance)
        return {
            view: sorted(filter(None, result.get_requested_partitions(asset_key(keys.feature_view(view)))))
            for view in VIEWS
        }


def test_days_follow_their_raw_days_where_a_model_uses_the_view(with_model: Catalog) -> None:
    """Nine days of transactions and one of labels: the ninth day would need the second day's labels."""
    days = list(day_range(FIRST_DAY, FIRST_DAY + timedelta(days=8)))
    names = [day.isoformat() for day in days]
    landed = {"transactions": days, "fraud_labels": days[:1]}
    assert requested(with_model, landed) == {"customer_windows": names, "terminal_windows": names[:8]}


def test_days_wait_to_be_asked_for_where_no_model_does(catalog: Catalog) -> None:
    assert {view: view_asset(catalog.views[view], catalog).automation_conditions_by_key for view in VIEWS} == {
        view: {} for view in VIEWS
    }


@pytest.fixture(scope="module")
def trained(lake: Lake, with_model: Catalog, model: ModelSpec) -> tuple[bundle.Bundle, pa.Table]:
    """The model's bundle, and the training set that it is from."""
    used = windows(model.training, 7, TRAINING_DATE)
    assert training_fingerprint(lake, with_model, model, TRAINING_DATE) is None
    for view in VIEWS:
        for day in used.days:
            compute_day(with_model.views[view], day, with_model, lake, Embedded())
    assert training_fingerprint(lake, with_model, model, TRAINING_DATE) is not None
    results = list(make_training_set(model, with_model, TRAINING_DATE, lake, Embedded(), {}))
    assert [r.check_results for r in results if isinstance(r, dg.MaterializeResult)]
    table = lake.read_table(keys.training_set(model.name), [TRAINING_DATE])
    trained = train_candidate(
        model,
        TRAINING_DATE,
        with_model.sources["transactions"],
        with_model.daily_views(model),
        with_model.request_views(model),
        table,
        "hash",
        [],
        lambda *_: None,
    )
    return bundle.unpack(trained.files, "book"), table


def test_training_set_has_the_features_of_each_row(
    trained: tuple[bundle.Bundle, pa.Table], lake: Lake, with_model: Catalog, model: ModelSpec
) -> None:
    _, table = trained
    days = windows(model.training, 7, TRAINING_DATE).days
    assert table.num_rows == lake.dataset(keys.raw("transactions"), days).count_rows()
    for view in VIEWS:
        spec = with_model.views[view]
        computed = lake.read_table(keys.feature_view(view), days).sort_by("transaction_id")
        for name in spec.features:
            assert table.sort_by("transaction_id")[name].to_pylist() == computed[name].to_pylist()
        assert table[f"{view}__as_of"].to_pylist() == table["tx_datetime"].to_pylist()
    needs = {key for key, _ in training_needs(with_model, model, TRAINING_DATE)}
    assert {keys.feature_view(view) for view in VIEWS} <= needs


def test_model_answers_full_rows_and_refuses_ids(
    trained: tuple[bundle.Bundle, pa.Table], with_model: Catalog, model: ModelSpec, tmp_path: Path
) -> None:
    loaded, table = trained
    assert loaded.schema.request == {"tx_amount": "float64", "tx_datetime": "timestamp"}
    assert set(loaded.transforms.names) == {
        *(name for view in model.features for name in with_model.views[view].features)
    }
    rows: list[dict[str, Any]] = (
        table.select([*loaded.schema.request, *loaded.schema.features]).slice(0, 20).to_pylist()
    )
    rows = [{**row, "tx_datetime": row["tx_datetime"].isoformat()} for row in rows]
    offline = loaded.score({name: values[:20] for name, values in columns_of(table).items()})
    np.testing.assert_allclose(loaded.score(from_rows(loaded.schema, rows)), offline, atol=1e-9)
    with pytest.raises(RequestError, match="customer_windows, terminal_windows has features of single events"):
        from_entities(loaded.schema, [{"customer_id": 1}], SqliteStore(tmp_path / "online.db"))
    assert len(part_of(table, "validation")["label"]) > 0
