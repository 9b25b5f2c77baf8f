"""Batch scores as an asset: a lake with raw days and features, a registry with a champion, and nothing else."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from ml_platform.components import predictions
from ml_platform.components.feature_view import compute_day
from ml_platform.components.graph import asset_key, daily
from ml_platform.components.predictions import predictions_asset
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import day_range
from ml_platform.core.settings import Settings
from ml_platform.core.spec import ModelSpec
from ml_platform.core.spec.predictions import PredictionsSpec
from ml_platform.features.engine import Embedded
from ml_platform.registry import bundle
from ml_platform.registry.versions import Aliases, Version
from ml_platform.resources.lake import Lake
from ml_platform.resources.online_store import SqliteStore
from ml_platform.serving.requests import Checker
from ml_platform_tests.conftest import NO_LOGS, lake_of
from ml_platform_tests.registry.test_bundle import make_bundle

MODEL = "fraud_detection"
KEY = keys.predictions(MODEL)
FIRST, LAST = date(2018, 5, 20), date(2018, 5, 22)
RANGE = {
    "dagster/asset_partition_range_start": FIRST.isoformat(),
    "dagster/asset_partition_range_end": LAST.isoformat(),
}


class Champion:
    """A registry with this champion."""

    def __init__(self, files: dict[str, bytes] | None, number: str = "1") -> None:
        self.files = files
        self.version = Version(MODEL, number, bundle.digest_of(files), "2018-05-10", "", "") if files else None

    def aliases(self, _: str) -> Aliases:
        return Aliases(champion=self.version)

    def download(self, _: Version) -> dict[str, bytes]:
        assert self.files
        return self.files


@pytest.fixture(scope="module")
def lake(
    tmp_path_factory: pytest.TempPathFactory, catalog: Catalog, landed_files: list[tuple[str, date, pa.Table]]
) -> Lake:
    lake = lake_of(Settings(home=tmp_path_factory.mktemp("lake")), landed_files)
    for view in catalog.snapshot_views(catalog.models[MODEL]):
        for day in day_range(FIRST, LAST):
            compute_day(view, day, catalog, lake, Embedded())
    return lake


@pytest.fixture(scope="module")
def files(catalog: Catalog) -> dict[str, bytes]:
    return make_bundle(catalog)


def materialize(
    catalog: Catalog, lake: Lake, registry: Champion, tags: dict[str, str] = RANGE, raise_on_error: bool = True
) -> dg.ExecuteInProcessResult:
    given = {"lake": lake, "engine": Embedded(), "registry": registry}
    resources = {name: dg.ResourceDefinition.hardcoded_resource(one) for name, one in given.items()}
    asset = predictions_asset(catalog.models[MODEL], catalog)
    return dg.materialize([asset], tags=tags, resources=resources, raise_on_error=raise_on_error)


def test_range_scores_every_row_of_every_day(catalog: Catalog, lake: Lake, files: dict[str, bytes]) -> None:
    result = materialize(catalog, lake, Champion(files))
    assert [check.passed for check in result.get_asset_check_evaluations() if check.partition is None] == [True]
    for day in day_range(FIRST, LAST):
        rows, scored = lake.require(keys.raw("transactions"), day), lake.read_table(KEY, [day])
        assert scored.num_rows == rows.rows > 0
        assert scored.column_names == ["transaction_id", "tx_datetime", "score", "version"]
        assert lake.require(KEY, day).tags == {"version": "1"}


def test_check_of_a_range_of_one_day_is_about_that_day(catalog: Catalog, lake: Lake, files: dict[str, bytes]) -> None:
    """As `ml-platform backfill --from D --to D` asks for it: Dagster itself records such a result without a partition."""
    range_ = {name: LAST.isoformat() for name in RANGE}
    result = materialize(catalog, lake, Champion(files), range_)
    checks = [check.partition for check in result.get_asset_check_evaluations() if check.passed]
    assert LAST.isoformat() in checks
    single = materialize(catalog, lake, Champion(files), {"dagster/partition": LAST.isoformat()})
    assert [check.partition for check in single.get_asset_check_evaluations()] == [LAST.isoformat()]


def test_scores_are_those_that_the_server_gives_for_the_same_moment(
    catalog: Catalog, lake: Lake, files: dict[str, bytes], tmp_path: Path
) -> None:
    materialize(catalog, lake, Champion(files))
    store, model = SqliteStore(tmp_path / "online.db"), bundle.unpack(files, "m")
    for view in catalog.snapshot_views(catalog.models[MODEL]):
        store.write(view, lake.read_table(keys.feature_view(view.name), [LAST]), datetime(2018, 5, 22, tzinfo=UTC))
    day = lake.read_table(keys.raw("transactions"), [LAST]).sort_by(
        [("tx_datetime", "ascending"), ("transaction_id", "ascending")]
    )
    rows = day.select(["customer_id", "terminal_id", "tx_amount", "tx_datetime"]).to_pylist()
    checker = Checker(model.schema)
    sent = checker.entities([{**row, "tx_datetime": row["tx_datetime"].isoformat()} for row in rows])
    columns = checker.columns([sent], store)
    np.testing.assert_allclose(model.score(columns.values), lake.read_table(KEY, [LAST])["score"].to_numpy(), atol=1e-9)


def test_manifest_leads_from_a_score_to_the_version_and_to_the_rows_behind_it(
    catalog: Catalog, lake: Lake, files: dict[str, bytes]
) -> None:
    materialize(catalog, lake, Champion(files))
    inputs = {one.name: one.version for one in lake.require(KEY, LAST).inputs}
    assert inputs[f"{MODEL} version 1"] == bundle.digest_of(files)
    assert (
        inputs[keys.partition(keys.raw("transactions"), LAST)]
        == lake.require(keys.raw("transactions"), LAST).content_hash
    )


def test_nothing_is_scored_before_a_version_is_deployed(catalog: Catalog, lake: Lake, tmp_path: Path) -> None:
    empty = lake_of(Settings(home=tmp_path), [])
    result = materialize(catalog, empty, Champion(None))
    assert result.success
    assert not result.asset_materializations_for_node(KEY.replace("/", "__"))
    assert not empty.days(KEY)


@pytest.mark.usefixtures("impatient")
def test_day_that_is_not_there_is_named_and_the_others_are_scored(
    catalog: Catalog, lake: Lake, files: dict[str, bytes]
) -> None:
    lake.remove(KEY, LAST)
    after = LAST + timedelta(days=1)
    tags = {**RANGE, "dagster/asset_partition_range_end": after.isoformat()}
    result = materialize(catalog, lake, Champion(files), tags, raise_on_error=False)
    assert not result.success
    assert lake.manifest(KEY, LAST)
    assert not lake.manifest(KEY, after)


def test_score_that_is_no_number_is_a_red_check_and_writes_nothing(
    catalog: Catalog, lake: Lake, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.remove(KEY, LAST)
    tags = {"dagster/partition": LAST.isoformat()}
    monkeypatch.setattr(bundle.Bundle, "score", lambda self, rows: np.full(len(rows["tx_amount"]), np.nan))
    result = materialize(catalog, lake, Champion(files), tags, raise_on_error=False)
    assert [check.passed for check in result.get_asset_check_evaluations()][:1] == [False]
    assert not lake.manifest(KEY, LAST)


def test_version_that_needs_a_feature_that_is_gone_says_so(
    catalog: Catalog, lake: Lake, files: dict[str, bytes]
) -> None:
    view = catalog.views["customer_activity"]
    features = {name: feature for name, feature in view.features.items() if name != "customer_last_amount"}
    poorer = Catalog(
        catalog.sources, {**catalog.views, view.name: view.model_copy(update={"features": features})}, catalog.models
    )
    with pytest.raises(dg.Failure, match="needs customer_last_amount, which the feature views no longer have"):
        materialize(poorer, lake, Champion(files), {"dagster/partition": LAST.isoformat()})


def test_several_classes_have_a_probability_each(
    catalog: Catalog, lake: Lake, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = np.array([0.2, 0.3, 0.5])
    model = bundle.unpack(files, "m")
    classes = {"spec": model.spec.model_copy(update={"task": "multiclass_classification"})}
    monkeypatch.setattr(predictions.bundle, "unpack", lambda *_: bundle.Bundle(**{**vars(model), **classes}))
    monkeypatch.setattr(bundle.Bundle, "score", lambda self, rows: np.tile(shares, (len(rows["tx_amount"]), 1)))
    materialize(catalog, lake, Champion(files, "7"), {"dagster/partition": LAST.isoformat()})
    assert lake.read_table(KEY, [LAST])["scores"][0].as_py() == list(shares)


def requested(catalog: Catalog, spec: ModelSpec, days: Iterable[date]) -> list[str]:
    """Which of these days are asked for by themselves, at noon of the last, when all their inputs have just been made."""
    asset = predictions_asset(spec, catalog)
    parents = [key for key in asset.asset_deps[asset_key(KEY)] if key != asset_key(keys.deployment(MODEL))]
    assets = [dg.AssetSpec(key, partitions_def=daily(FIRST)) for key in parents]
    definitions = dg.Definitions(
        assets=[*assets, asset], resources=dict.fromkeys(("lake", "engine", "registry"), object())
    )
    with dg.instance_for_test(overrides=NO_LOGS) as instance:
        for key in parents:
            for day in days:
                instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=day.isoformat()))
        noon = datetime(LAST.year, LAST.month, LAST.day, 12, tzinfo=UTC)
        result = dg.evaluate_automation_conditions(definitions, instance, evaluation_time=noon)
        return sorted(filter(None, result.get_requested_partitions(asset_key(KEY))))


def test_newest_days_are_scored_by_themselves(catalog: Catalog) -> None:
    spec = catalog.models[MODEL]
    days = list(day_range(FIRST, LAST - timedelta(days=1)))
    two = spec.model_copy(update={"predictions": PredictionsSpec(automatic_days=2)})
    assert requested(catalog, two, days) == [days[-1].isoformat()]
    assert requested(catalog, spec, days) == [day.isoformat() for day in days]
    none = spec.model_copy(update={"predictions": PredictionsSpec(automatic_days=0)})
    assert requested(catalog, none, days) == []
