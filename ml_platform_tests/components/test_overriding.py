"""Run config of a training: what a run says otherwise than the model file, from the launchpad to the version."""

import json
from contextlib import nullcontext
from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from ml_platform.components import recovery
from ml_platform.components.candidate import candidate_asset, make_training_set, train, training_set_asset
from ml_platform.components.evaluation import evaluation_asset
from ml_platform.components.graph import asset_key
from ml_platform.components.release import model_version_asset
from ml_platform.components.resources import tracking
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import SpecError
from ml_platform.core.settings import Settings
from ml_platform.core.spec import ModelSpec
from ml_platform.features.engine import Embedded
from ml_platform.monitoring.due import Again, Ask
from ml_platform.registry import bundle
from ml_platform.registry.card import lineage_tags
from ml_platform.resources.lake import Lake
from ml_platform.resources.lineage import as_trained, ordinary, training_needs
from ml_platform.resources.registry import Registry
from ml_platform.training.overrides import run_config
from ml_platform_tests.conftest import FIRST_DAY, NO_LOGS, lake_of
from ml_platform_tests.test_reproduce_command import features

DAY = FIRST_DAY + timedelta(days=25)
TABLE = "otherwise/training_set"


class NoTracking:
    """Nobody reads here what MLflow is told."""

    def step(self, experiment: str) -> Any:
        told = SimpleNamespace(active_run=lambda: SimpleNamespace(info=SimpleNamespace(run_id="r")))
        return nullcontext(told)

    def metadata(self, mlflow: Any) -> dict[str, Any]:
        return {}


@pytest.fixture(scope="module")
def spec(catalog: Catalog) -> ModelSpec:
    fraud = catalog.models["fraud_detection"].model_dump(exclude={"gates"})
    training = {"window_days": 8, "validation_days": 3, "embargo_days": 3}
    linear = {"trainer": "linear", "params": {"max_iter": 5}}
    return ModelSpec.model_validate({**fraud, "name": "otherwise", "candidates": [linear], "training": training})


@pytest.fixture(scope="module")
def lake(catalog: Catalog, spec: ModelSpec, landed_files: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Lake:
    days = {day for _, day in training_needs(catalog, spec, DAY)}
    files = [file for file in landed_files if file[1] in days]
    lake = lake_of(Settings(home=tmp_path_factory.mktemp("overriding")), files)
    for view in catalog.daily_views(spec):
        for day in days:
            ids: pa.ChunkedArray = lake.read_table(keys.raw("transactions"), [day])[view.entity]
            lake.write_table(keys.feature_view(view.name), day, features(view, day, ids), [])
    return lake


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml_platform.components.candidate.log_dataset", lambda *_: None)


def made(lake: Lake, catalog: Catalog, spec: ModelSpec, config: dict[str, Any]) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [training_set_asset(spec, catalog)],
        partition_key=DAY.isoformat(),
        run_config=config,
        resources={"lake": lake, "engine": Embedded(), "tracking": NoTracking()},
        raise_on_error=False,
    )


@pytest.mark.usefixtures("quiet")
def test_what_a_run_changes_stands_in_all_that_comes_of_it(lake: Lake, catalog: Catalog, spec: ModelSpec) -> None:
    given = {"training.window_days": 5, "candidates.1.params.alpha": 4.0}
    assert made(lake, catalog, spec, run_config("otherwise", given)).success
    run = as_trained(spec, lake, DAY)
    assert (run.training.window_days, run.candidates[0].params) == (5, {"max_iter": 5, "alpha": 4.0})
    train(run, catalog, DAY, lake, "r", lambda epoch, figures: None)  # in whichever run: the training set says it
    files = lake.read_files(keys.candidate("otherwise"), DAY)
    manifest = json.loads(files[bundle.MANIFEST])
    assert manifest["overrides"] == given
    assert manifest["windows"]["train"][0] == (DAY - timedelta(days=7 + 3 + 3 + 5)).isoformat()
    assert json.loads(lineage_tags(files)["overrides"]) == given
    assert "Its run changed this of the model file: " in files[bundle.MODEL_CARD].decode()
    assert bundle.unpack(files, "otherwise").spec.training.window_days == 5


def test_one_run_from_training_set_to_version_goes_by_its_config(
    lake: Lake, catalog: Catalog, spec: ModelSpec, mlflow_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_url)
    registry, nouns = Registry(mlflow_url), (training_set_asset, candidate_asset, evaluation_asset, model_version_asset)
    result = dg.materialize(
        [noun(spec, catalog) for noun in nouns],
        partition_key=DAY.isoformat(),
        run_config=run_config("otherwise", {"training.window_days": 6, "candidates.1.params.max_iter": 4}),
        resources={
            "lake": dg.ResourceDefinition.hardcoded_resource(lake),
            "engine": dg.ResourceDefinition.hardcoded_resource(Embedded()),
            "registry": dg.ResourceDefinition.hardcoded_resource(registry),
            "tracking": tracking,
        },
    )
    assert result.success
    (version,) = registry.versions("otherwise")
    assert json.loads(version.overrides) == {"candidates.1.params.max_iter": 4, "training.window_days": 6}
    (made,) = result.asset_materializations_for_node("otherwise__training_set")
    assert made.metadata["overrides"].value == json.loads(version.overrides)
    served = bundle.unpack(registry.download(version), "otherwise").spec
    assert (served.training.window_days, served.candidates[0].params) == (6, {"max_iter": 4})


@pytest.mark.usefixtures("quiet")
def test_run_with_the_defaults_of_the_launchpad_is_an_ordinary_training(
    lake: Lake, catalog: Catalog, spec: ModelSpec
) -> None:
    written_out = run_config(
        "otherwise", {"training.window_days": 8, "training.seed": 7, "candidates.1.params.alpha": 1.0}
    )
    assert made(lake, catalog, spec, written_out).success
    manifest = lake.require(TABLE, DAY)
    assert "overrides" not in manifest.tags
    assert as_trained(spec, lake, DAY) == spec
    assert "overrides" not in json.loads(manifest.tags["described"])


@pytest.mark.usefixtures("quiet")
def test_training_with_overrides_is_another_than_the_ordinary_one_of_its_date(
    lake: Lake, catalog: Catalog, spec: ModelSpec
) -> None:
    lake.remove(TABLE, DAY)
    assert made(lake, catalog, spec, run_config("otherwise", {"training.seed": 3})).success
    assert ordinary(lake.require(TABLE, DAY)) is None, "the model was never trained as its file says"
    assert made(lake, catalog, spec, {}).success
    before = lake.require(TABLE, DAY)
    for seed in (4, 5):
        assert made(lake, catalog, spec, run_config("otherwise", {"training.seed": seed})).success
    after, remembered = lake.require(TABLE, DAY), ordinary(before)
    assert ordinary(after) == remembered, "what the retrain sensor knows is as before"
    assert remembered
    assert after.tags["inputs_fingerprint"] != remembered.inputs


@pytest.mark.usefixtures("quiet")
def test_impossible_value_fails_once_and_leaves_what_there_was(lake: Lake, catalog: Catalog, spec: ModelSpec) -> None:
    list(make_training_set(spec, catalog, DAY, lake, Embedded(), {}))
    before = lake.require(TABLE, DAY)
    result = made(lake, catalog, spec, run_config("otherwise", {"training.window_days": 0}))
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    assert "`training.window_days`: Input should be greater than or equal to 1 (it is 0)" in str(
        failure.event_specific_data
    )
    assert lake.require(TABLE, DAY) == before


def test_launchpad_shows_defaults_and_descriptions(catalog: Catalog, spec: ModelSpec) -> None:
    job = dg.define_asset_job("one", [asset_key(TABLE)]).resolve(
        asset_graph=dg.Definitions(
            assets=[training_set_asset(spec, catalog)], resources=dict.fromkeys(("lake", "engine", "tracking"))
        ).resolve_asset_graph()
    )
    (op,) = job.graph.node_defs
    training = op.config_schema.as_field().config_type.fields["training"].config_type.fields  # type: ignore[union-attr]
    assert (training["window_days"].default_value, training["window_days"].description) == (
        8,
        "days of rows that the model is fitted on",
    )
    with pytest.raises(dg.DagsterInvalidConfigError, match='unexpected config entry "window_dayz"'):
        dg.validate_run_config(job, run_config("otherwise", {"training.window_dayz": 1}))


def test_training_that_is_asked_for_again_says_what_the_first_did(catalog: Catalog, spec: ModelSpec) -> None:
    known = Catalog(catalog.sources, catalog.views, {"otherwise": spec})
    with dg.instance_for_test(overrides=NO_LOGS) as instance:
        config = run_config("otherwise", {"training.seed": 3})
        run = instance.create_run_for_job(dg.job(name="any")(lambda: None), run_config=None)
        run = run.with_tags({"dagster/priority": "3"})._replace(run_config=config)
        instance.delete_run(run.run_id)
        instance.add_run(run)
        ask = Ask(run.run_id, 0.0, frozenset())
        again = recovery._request(Again((TABLE, "otherwise/candidate"), (DAY, DAY), ask), known, instance)
        rest = recovery._request(Again(("otherwise/candidate",), (DAY, DAY), ask), known, instance)
    assert again.run_config["ops"] == config["ops"]
    assert again.tags["dagster/priority"] == "3"
    assert "ops" not in rest.run_config, "its training set is there, and says it"


def test_what_the_file_forbids_by_now_is_said_where_it_is_met(lake: Lake, catalog: Catalog, spec: ModelSpec) -> None:
    lake.write_table(TABLE, date(2018, 4, 20), pa.table({"n": [1]}), [], {"overrides": '{"training.seed": 3}'})
    narrow = {"training": {**spec.training.model_dump(), "overrides": {"allowed": []}}}
    with pytest.raises(SpecError, match="otherwise training.seed: is nothing that a run may change"):
        as_trained(ModelSpec.model_validate({**spec.model_dump(), **narrow}), lake, date(2018, 4, 20))
