"""The retrain sensor over several models."""

import dagster as dg
import pytest

from ml_platform.components import automation
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
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
