"""The sensors over several sources and models."""

from datetime import date
from typing import Any

import dagster as dg
import pytest

from ml_platform.components import automation
from ml_platform.components.candidate import candidate_asset, training_set_asset
from ml_platform.components.evaluation import evaluation_asset
from ml_platform.components.feature_view import view_asset
from ml_platform.components.monitoring import monitoring_asset
from ml_platform.components.online_store import online_store_asset
from ml_platform.components.predictions import predictions_asset
from ml_platform.components.release import deployment_asset, model_version_asset
from ml_platform.components.source import landed_asset, raw_asset
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog, load_catalog
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.core.settings import Settings
from ml_platform.core.spec import AutomationSpec, ModelSpec
from ml_platform.definitions import defs
from ml_platform.resources.lake import Lake
from ml_platform.resources.object_store import ObjectStore
from ml_platform.resources.origins import Origins
from ml_platform_tests.conftest import NO_LOGS


def test_model_that_waits_does_not_keep_another_from_training(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    fraud = catalog.models["fraud_detection"]
    second = fraud.model_copy(update={"name": "second"})
    both = Catalog(catalog.sources, catalog.views, {"fraud_detection": fraud, "second": second})

    def request(spec: ModelSpec, *_: object) -> dg.RunRequest | str:
        return dg.RunRequest(run_key="due") if spec.name == "second" else "waiting for features"

    monkeypatch.setattr(automation, "training_request", request)
    sensor = automation.retrain_sensor(both, AutomationSpec())
    with (
        dg.instance_for_test(overrides=NO_LOGS) as instance,
        dg.build_sensor_context(instance=instance, resources={"lake": None}) as context,
    ):
        ticked = sensor(context)
    assert isinstance(ticked, dg.SensorResult)
    assert [request.run_key for request in ticked.run_requests or ()] == ["due"]
    assert ticked.skip_reason is None


def test_alarms_of_many_models_on_one_source_train_none_and_say_so(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    fraud = catalog.models["fraud_detection"]
    models = {name: fraud.model_copy(update={"name": name}) for name in ("a", "b", "c", "d", "by_cadence")}

    def request(spec: ModelSpec, *_: object) -> dg.RunRequest:
        trigger = "cadence" if spec.name == "by_cadence" else "drift"
        return dg.RunRequest(spec.name, tags={automation.MODEL: spec.name, automation.TRIGGER: trigger})

    monkeypatch.setattr(automation, "training_request", request)

    def ticked(names: str) -> dg.SensorResult:
        some = Catalog(catalog.sources, catalog.views, {name: models[name] for name in names.split()})
        sensor = automation.retrain_sensor(some, AutomationSpec())
        with (
            dg.instance_for_test(overrides=NO_LOGS) as instance,
            dg.build_sensor_context(instance=instance, resources={"lake": None}) as context,
        ):
            result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        return result

    assert [one.run_key for one in ticked("a b c d by_cadence").run_requests or ()] == ["by_cadence"]
    assert [one.run_key for one in ticked("a b c by_cadence").run_requests or ()] == ["a", "b", "c", "by_cadence"]
    assert "4 models on transactions at once" in str(ticked("a b c d").skip_reason)


def test_unreadable_ledger_of_one_day_keeps_no_other_day_waiting(s3_port: int, environment: Settings) -> None:
    store, lake = ObjectStore.at(environment), Lake.at(environment)
    store.ensure_bucket()
    for day in ("2018-04-01", "2018-04-02"):
        store.write(f"transactions/{day}/a.csv", b"junk")
    ledger = environment.home / "lake" / keys.ledger("transactions") / "date=2018-04-01"
    ledger.mkdir(parents=True)
    (ledger / "_manifest.json").write_text("{")
    with (
        dg.instance_for_test(overrides=NO_LOGS) as instance,
        dg.build_sensor_context(
            instance=instance, definitions=defs, resources={"lake": lake, "origins": Origins(store)}
        ) as context,
    ):
        ticked = defs.resolve_sensor_def("arrival_sensor")(context)
    assert isinstance(ticked, dg.SensorResult)
    assert [request.partition_key for request in ticked.run_requests or ()] == ["2018-04-02"]


def test_sources_that_begin_on_different_days_are_one_code_location() -> None:
    """Each sensor asks for days of all of them, each by its own calendar."""
    built_in = load_catalog(find_project(EXAMPLE).defs)
    late = built_in.sources["fraud_labels"].model_copy(update={"start_date": date(2018, 4, 3)})
    third = built_in.sources["transactions"].model_copy(update={"name": "third", "start_date": date(2019, 1, 1)})
    catalog = Catalog({**built_in.sources, "fraud_labels": late, "third": third}, built_in.views, built_in.models)
    (spec,) = catalog.models.values()
    nouns = (
        training_set_asset,
        candidate_asset,
        evaluation_asset,
        model_version_asset,
        deployment_asset,
        predictions_asset,
        monitoring_asset,
    )
    assets = [
        *(asset for source in catalog.sources.values() for asset in (landed_asset(source), raw_asset(source, catalog))),
        *(view_asset(view, catalog) for view in catalog.daily_views()),
        *(noun(spec, catalog) for noun in nouns),
        online_store_asset(catalog.snapshot_views()),
    ]
    of_sensors = automation.Automation(AutomationSpec()).definitions(catalog)
    resources: dict[str, Any] = dict.fromkeys(("lake", "origins", "engine", "tracking", "registry", "server", "store"))
    whole = dg.Definitions.merge(dg.Definitions(assets=assets, resources=resources), of_sensors)
    dg.Definitions.validate_loadable(whole)
    names = {sensor.name for sensor in whole.get_repository_def().sensor_defs}
    assert names >= {
        "arrival_sensor",
        "freshness_sensor",
        "retrain_sensor",
        "rollout_progress_sensor",
        "recovery_sensor",
    }
