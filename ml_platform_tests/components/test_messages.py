"""The sensor over Kafka topics: every message once, whatever dies, and none that stops it."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
import yaml
from dagster._core.scheduler.instigation import SensorInstigatorData

from ml_platform.components.messages import kafka_sensor
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import LakeError, StackError
from ml_platform.core.settings import Settings
from ml_platform.core.spec import AutomationSpec, TriggersSpec
from ml_platform.resources import triggers
from ml_platform.resources.lake import Lake
from ml_platform_tests.broker import Broker
from ml_platform_tests.components import ticking
from ml_platform_tests.components.ticking import MODEL, TOPIC, tick
from ml_platform_tests.conftest import FIRST_DAY, NO_LOGS
from ml_platform_tests.forks import Nursery
from ml_platform_tests.processes import eventually

ROOT = Path(__file__).parents[2]
QUEUED = {"run_coordinator": {"module": "dagster", "class": "QueuedRunCoordinator"}, **NO_LOGS}


@pytest.fixture
def broker(environment: Settings, monkeypatch: pytest.MonkeyPatch) -> Broker:
    """A broker of the test's own; rows are there up to the 1st of June."""
    broker = Broker()
    monkeypatch.setenv("ML_PLATFORM_KAFKA", broker.servers)
    monkeypatch.setattr(triggers, "training_fingerprint", lambda *_: "inputs")
    Lake.at(environment).write_table(keys.raw("transactions"), FIRST_DAY.replace(month=6), pa.table({"n": [1]}), [])
    return broker


@pytest.fixture
def instance(broker: Broker, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    folder = tmp_path / "dagster"
    folder.mkdir()
    with dg.instance_for_test(overrides=QUEUED, temp_dir=str(folder)) as instance:
        yield instance


def ticked(lake: Lake, cursor: str | None = None, catalog: Catalog | None = None) -> dg.SensorResult:
    sensor = kafka_sensor(catalog or ticking.catalog(), AutomationSpec())
    with (
        dg.instance_for_test(overrides=NO_LOGS) as instance,
        dg.build_sensor_context(instance=instance, cursor=cursor, resources={"lake": lake}) as context,
    ):
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result


def cursor_of(instance: dg.DagsterInstance) -> dict[str, dict[str, int]]:
    (state,) = instance.all_instigator_state()
    assert isinstance(state.instigator_data, SensorInstigatorData)
    return json.loads(state.instigator_data.cursor or "{}")


def test_tick_that_dies_after_a_launch_neither_loses_nor_doubles(
    instance: dg.DagsterInstance, broker: Broker, nursery: Nursery
) -> None:
    broker.send(TOPIC, b'{"reason": "one"}', b"no json", b'{"reason": "two", "overrides": {"training.seed": "3"}}')
    command = [sys.executable, "-m", "ml_platform_tests.components.ticking", "RUN_LAUNCHED"]

    def died() -> bool:
        return nursery.start(command).wait() == -9

    eventually(died)
    assert len(instance.get_runs()) == 1, "it has launched one, and could not say so"

    def again() -> bool:
        tick(instance)
        return cursor_of(instance) == {TOPIC: {"0": 3}}

    eventually(again)
    runs = {run.tags["dagster/run_key"]: run for run in instance.get_runs()}
    assert len(instance.get_runs()) == 2
    assert set(runs) == {f"{TOPIC}-0-0", f"{TOPIC}-0-2"}
    assert runs[f"{TOPIC}-0-2"].run_config["ops"] == {f"{MODEL}__training_set": {"config": {"training": {"seed": 3}}}}

    (state,) = instance.all_instigator_state()  # somebody has it read all of it again
    data = SensorInstigatorData(cursor=None, min_interval=1)
    instance.update_instigator_state(state.with_data(data))
    eventually(again)
    assert len(instance.get_runs()) == 2


def test_trainings_of_one_model_follow_each_other(broker: Broker, tmp_path: Path) -> None:
    """By the limits that an instance has, on a laptop and on a cluster."""
    local, cluster = (
        yaml.safe_load((ROOT / path).read_text())["concurrency"]["runs"]["tag_concurrency_limits"]
        for path in ("ml_platform/local/dagster.yaml", "k8s/base/dagster.yaml")
    )
    assert local == cluster
    launcher = {"module": "dagster._core.test_utils", "class": "MockedRunLauncher"}
    limits = {"concurrency": {"runs": {"tag_concurrency_limits": local}}, "run_launcher": launcher, **QUEUED}
    broker.send(TOPIC, b"{}", b'{"as_of": "2018-05-30"}')
    with dg.instance_for_test(overrides=limits, temp_dir=str(tmp_path)) as instance:
        eventually(lambda: tick(instance) or len(instance.get_runs()) == 2)
        ticking.dequeue(instance)
        assert len(instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))) == 1


def test_message_becomes_a_run_of_its_training(broker: Broker, environment: Settings) -> None:
    said = {"as_of": "2018-05-30", "priority": 7, "overrides": {"candidates.1.params.epochs": 2}, "reason": "new shop"}
    broker.send(TOPIC, json.dumps(said).encode(), partition=2)
    result = ticked(Lake.at(environment))
    (request,) = list(result.run_requests or ())
    assert (request.run_key, request.partition_key) == (f"{TOPIC}-2-0", "2018-05-30")
    assert [key.to_user_string() for key in request.asset_selection or ()] == triggers.training_assets(
        ticking.catalog().models[MODEL]
    )
    assert request.tags["dagster/priority"] == "7"
    assert request.tags["ml_platform/trigger"] == "message"
    assert request.tags["ml_platform/reason"] == f"new shop, {TOPIC}-2-0"
    op = {"config": {"candidates": {"1": {"params": {"epochs": 2}}}}}
    assert request.run_config["ops"] == {f"{MODEL}__training_set": op}
    assert json.loads(result.cursor or "") == {TOPIC: {"2": 1}}
    assert not ticked(Lake.at(environment), result.cursor).run_requests


def test_bad_messages_are_set_aside_with_the_reason_and_stop_nothing(broker: Broker, environment: Settings) -> None:
    broker.send(TOPIC, b"\xff\x00", None, b"[" * 60_000, b'{"overrides": {"training.window_days": 0}}', b"{}")
    lake = Lake.at(environment)
    result = ticked(lake)
    assert [request.run_key for request in result.run_requests or ()] == [f"{TOPIC}-0-4"]
    assert json.loads(result.cursor or "") == {TOPIC: {"0": 5}}
    again = ticked(lake)  # as after a kill: each record is there once
    assert [request.run_key for request in again.run_requests or ()] == [f"{TOPIC}-0-4"]
    records = [json.loads(path.read_text()) for path in sorted(Path(lake.root).glob(f"{MODEL}/dead_letters/*/*.json"))]
    assert [record["offset"] for record in records] == [0, 1, 2, 3]
    assert records[0]["content"] == "\\xff\x00"
    assert "`training.window_days`: Input should be greater than or equal to 1" in records[3]["reason"]


def test_what_waits_holds_its_own_partition_alone(
    broker: Broker, environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(lake: Lake, catalog: Catalog, spec: object, day: object) -> str | None:
        return None if str(day) == "2018-05-31" else "inputs"

    monkeypatch.setattr(triggers, "training_fingerprint", missing)
    broker.send(TOPIC, b"{}", b'{"as_of": "2018-05-31"}', b"{}")
    broker.send(TOPIC, b"{}", partition=1)
    result = ticked(Lake.at(environment))
    assert {request.run_key for request in result.run_requests or ()} == {f"{TOPIC}-0-0", f"{TOPIC}-1-0"}
    assert json.loads(result.cursor or "") == {TOPIC: {"0": 1, "1": 1}}
    waits = ticked(Lake.at(environment), result.cursor)
    assert waits.cursor == result.cursor
    assert f"{TOPIC}-0-1" in str(waits.skip_reason)
    assert "inputs of its 42 days are missing or out of date" in str(waits.skip_reason)
    monkeypatch.setattr(triggers, "training_fingerprint", lambda *_: "inputs")
    rest = ticked(Lake.at(environment), waits.cursor)
    assert [request.run_key for request in rest.run_requests or ()] == [f"{TOPIC}-0-1", f"{TOPIC}-0-2"]


def test_topic_in_trouble_keeps_no_other_from_being_read_and_alone_fails_the_tick(
    broker: Broker, environment: Settings
) -> None:
    known = ticking.catalog()
    lost = known.models[MODEL].model_copy(update={"name": "second", "triggers": TriggersSpec(topic="nobody")})
    both = replace(known, models={"second": lost, **known.models})
    broker.send(TOPIC, b"{}")
    assert [one.run_key for one in ticked(Lake.at(environment), None, both).run_requests or ()] == [f"{TOPIC}-0-0"]
    with pytest.raises(StackError, match="topic nobody: cannot be read"):
        ticked(Lake.at(environment), None, replace(known, models={"second": lost}))


def test_nothing_is_passed_over_while_the_lake_takes_no_record(
    broker: Broker, environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    broker.send(TOPIC, b"junk")
    lake = Lake.at(environment)
    monkeypatch.setattr(lake, "put", full)
    with pytest.raises(LakeError, match="no space left"):
        ticked(lake)
