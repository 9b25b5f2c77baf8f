"""`ml-platform reproduce` on a small model that was trained, registered and left alone; then its inputs change."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.components.candidate import make_training_set, train
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import start_of
from ml_platform.core.settings import Settings
from ml_platform.core.spec import FeatureViewSpec, ModelSpec
from ml_platform.features.engine import Embedded
from ml_platform.resources.lake import Lake
from ml_platform.resources.lineage import training_needs
from ml_platform.resources.registry import Registry
from ml_platform_tests.conftest import FIRST_DAY, lake_of

DAY = FIRST_DAY + timedelta(days=25)
RAW, VIEW = keys.raw("transactions"), keys.feature_view("terminal_risk")


@dataclass(frozen=True)
class World:
    lake: Lake
    spec: ModelSpec
    version: str

    def reproduce(self, *options: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["reproduce", self.spec.name, self.version, *options])
        return result.exit_code, result.output


def features(view: FeatureViewSpec, day: date, ids: pa.ChunkedArray) -> pa.Table:
    """Any features: nobody asks here whether they are right."""
    rng = np.random.default_rng([day.toordinal(), len(view.features)])
    entities = ids.unique().sort()
    columns = {
        name: pa.array(rng.uniform(0, 9, len(entities)), pa.float64()).cast(pa.type_for_alias(one.type), safe=False)
        for name, one in view.features.items()
    }
    assert view.entity is not None
    as_of = pa.repeat(pa.scalar(start_of(day), pa.timestamp("us", tz="UTC")), len(entities))
    return pa.table({view.entity: entities, "as_of": as_of, **columns})


@pytest.fixture(scope="module")
def world(
    catalog: Catalog,
    landed_files: list[tuple[str, date, pa.Table]],
    tmp_path_factory: pytest.TempPathFactory,
    mlflow_url: str,
) -> Iterator[World]:
    fraud = catalog.models["fraud_detection"]
    candidates = [{"trainer": "forest", "params": {"n_estimators": 5}}, {"trainer": "linear"}]
    training = {"window_days": 8, "validation_days": 3, "embargo_days": 3, "seed": 7}
    content = {**fraud.model_dump(exclude={"gates"}), "name": "small", "candidates": candidates, "training": training}
    spec = ModelSpec.model_validate(content)
    home: Path = tmp_path_factory.mktemp("reproduce")
    days = {day for _, day in training_needs(catalog, spec, DAY)}
    lake = lake_of(Settings(home=home), [file for file in landed_files if file[1] in days])
    for view in catalog.daily_views(spec):
        for day in days:
            ids = lake.read_table(RAW, [day])[view.entity]
            lake.write_table(keys.feature_view(view.name), day, features(view, day, ids), [])
    list(make_training_set(spec, catalog, DAY, lake, Embedded(), {}))
    registry = Registry(mlflow_url)
    mlflow.set_tracking_uri(mlflow_url)
    run = registry.client.create_run(mlflow.set_experiment("small").experiment_id).info.run_id
    train(spec, catalog, DAY, lake, run, lambda epoch, figures: None)
    version = registry.register(spec.name, lake.read_files(keys.candidate(spec.name), DAY), run, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ML_PLATFORM_HOME", str(home))
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_url)
        yield World(lake, spec, version.number)


@pytest.mark.parametrize("start", [(), ("--from-training-set",)])
def test_same_inputs_give_the_same_bits(world: World, start: tuple[str, ...]) -> None:
    code, output = world.reproduce(*start)
    assert code == 0, output
    assert "IDENTICAL: metrics.json, model." in output
    assert "differ" not in output


def test_version_that_is_not_there_cannot_be_reproduced(world: World) -> None:
    result = CliRunner().invoke(app, ["reproduce", "small", "99"])
    assert result.exit_code == 2
    assert (
        f"small/model_version: there is no version 99; it has {world.version}. Next: name one of them" in result.output
    )


@pytest.mark.parametrize("key", [RAW, VIEW])
def test_changed_input_is_named_with_both_hashes_and_stops_it(world: World, key: str) -> None:
    lake, day = world.lake, DAY - timedelta(days=15)
    before, rows = lake.require(key, day), lake.read_table(key, [day])
    changed = lake.write_table(key, day, rows.slice(rows.num_rows // 2), [])
    try:
        code, output = world.reproduce()
        assert (code, f"1 inputs have changed, such as {keys.partition(key, day)}" in output) == (2, True), output
        assert before.content_hash[:16] in output
        assert changed.content_hash[:16] in output
        assert world.reproduce("--from-training-set")[0] == 0
        code, output = world.reproduce("--anyway")
        assert (code, "the training set differs" in output, "DIFFERENT" in output) == (1, True, True), output
    finally:
        assert lake.write_table(key, day, rows, []).content_hash == before.content_hash
    assert world.reproduce()[0] == 0


def test_missing_input_is_named_and_no_option_helps_but_the_stored_training_set(world: World) -> None:
    lake, day = world.lake, DAY - timedelta(days=15)
    rows = lake.read_table(RAW, [day])
    lake.remove(RAW, day)
    try:
        code, output = world.reproduce("--anyway")
        assert code == 2
        assert f"1 inputs are missing, such as {keys.partition(RAW, day)}. Next: try --from-training-set" in output
        assert world.reproduce("--from-training-set")[0] == 0
    finally:
        lake.write_table(RAW, day, rows, [])


def test_surroundings_that_differ_are_named_and_the_bits_decide(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_IMAGE", "sha256:another")
    code, output = world.reproduce()
    assert code == 0, output
    assert "surroundings that differ" in output
    assert "sha256:another" in output


def test_nothing_of_it_is_written(world: World) -> None:
    tables = [RAW, VIEW, keys.training_set("small"), keys.candidate("small")]
    before = {key: world.lake.manifests(key, world.lake.days(key)) for key in tables}
    assert world.reproduce()[0] == 0
    assert {key: world.lake.manifests(key, world.lake.days(key)) for key in tables} == before
