"""The sensor that looks at all rollouts: each state is reported once, and a new champion is proven."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_platform.components.rollout import SENSOR, rollout_progress_sensor
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import RegistryError
from ml_platform.core.settings import Settings
from ml_platform.core.spec import AutomationSpec, RolloutSpec
from ml_platform.registry.versions import Aliases, Version
from ml_platform.resources.lake import Lake
from ml_platform.resources.prediction_log import PredictionLog
from ml_platform.resources.prediction_rows import Prediction
from ml_platform.rollout.standing import Standing
from ml_platform.rollout.state import Rollout
from ml_platform_tests.resources.memory import MemoryRegistry, ToldServer

MODEL, DEPLOYMENT = "fraud_detection", dg.AssetKey(["fraud_detection", "deployment"])
OLD, NEW = (Version(MODEL, number, number, f"2024-01-0{number}", "run", "source") for number in "12")
SHADOW = RolloutSpec(strategy="shadow", steps=(50,), bake="1m", min_requests=1)


class Ticks:
    """Ticks of the sensor, each in a process of its own as far as it can tell: all that is kept is the cursor."""

    def __init__(self, catalog: Catalog, folder: Path) -> None:
        self.catalog, self.now, self.cursor = catalog, datetime(2024, 1, 2, 12, tzinfo=UTC), ""
        self.lake, self.server = Lake.at(Settings(lake=str(folder / "lake"))), ToldServer()
        self.log = PredictionLog(self.lake, folder / "spool", lambda: self.now)
        rollout = Rollout.begin(NEW, Aliases(champion=OLD), SHADOW, self.now, "run 1")
        self.registry = MemoryRegistry([NEW, OLD], Standing(Aliases(champion=OLD, candidate=NEW), rollout, NEW))

    def tick(self, minutes: float = 0) -> dg.SensorResult:
        self.now += timedelta(minutes=minutes)
        sensor = rollout_progress_sensor(self.catalog, AutomationSpec(), lambda: self.now)
        resources = {"lake": self.lake, "registry": self.registry, "server": self.server}
        context = dg.build_sensor_context(cursor=self.cursor or None, resources=resources)
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor or ""
        return result

    def told(self, minutes: float = 0) -> list[dict[str, Any]]:
        """The metadata of the materializations of a tick."""
        events = self.tick(minutes).asset_events
        assert {(event.asset_key, event.partition) for event in events} <= {(DEPLOYMENT, NEW.training_date)}
        return [{name: one.value for name, one in event.metadata.items()} for event in events]

    def shadow_request(self) -> None:
        self.log.add(MODEL, [Prediction("1", self.now, "2", "shadow", "card 1", 5.0, 0.5)])
        self.log.write()


@pytest.fixture
def ticks(catalog: Catalog, tmp_path: Path) -> Ticks:
    return Ticks(catalog, tmp_path)


def test_each_step_is_one_materialization_with_what_was_observed(ticks: Ticks) -> None:
    assert ticks.told() == [], "the run that began it has said so"
    ticks.shadow_request()
    assert ticks.told(0.5) == []
    (advanced,) = ticks.told(1)
    expected = {
        "event": "advanced",
        "step": 2,
        "of_steps": 2,
        "gets": "50 %",
        "stage": "shadow",
        "requests": 1,
        "by": SENSOR,
    }
    assert {name: advanced[name] for name in expected} == expected
    assert advanced["reason"] == "shadow: 1 requests within the limits"
    assert ticks.told(0.1) == []


def test_new_champion_is_proven_by_a_run_that_is_asked_for_once_and_again_when_it_does_not_come(ticks: Ticks) -> None:
    ticks.shadow_request()
    ticks.tick(1.5)
    ticks.shadow_request()
    result = ticks.tick(1.5)
    (request,) = result.run_requests or []
    assert (request.asset_selection, request.partition_key) == ([DEPLOYMENT], NEW.training_date)
    keys = {request.run_key}
    keys |= {one.run_key for _ in range(3) for one in ticks.tick(1).run_requests or []}
    assert len(keys) == 1
    (again,) = ticks.tick(3).run_requests or []
    assert again.run_key not in keys
    (ended,) = ticks.told(30)
    assert (ended["event"], ended["reason"]) == ("aborted", "as champion it was not proven within 0:30:00")
    assert ticks.registry.held.aliases == Aliases(champion=OLD)


def test_end_within_one_tick_of_what_goes_wrong(ticks: Ticks) -> None:
    ticks.server.says = {"refused": {"version": "2", "reason": "self-test failed"}}
    (ended,) = ticks.told()
    assert (ended["event"], ended["reason"]) == ("aborted", "the server refused it: self-test failed")
    assert ticks.registry.held.traffic().challenger is None
    assert ticks.told(10) == []


def test_state_that_nobody_got_to_report_is_reported_by_the_next_tick(ticks: Ticks) -> None:
    ticks.shadow_request()
    before = ticks.cursor
    ticks.tick(1.5)
    ticks.cursor = before  # the daemon died before it stored what the tick said
    assert [told["event"] for told in ticks.told()] == ["advanced"]


def test_restart_in_the_middle_goes_on(ticks: Ticks) -> None:
    """Nothing but the registry's tag, the log and the cursor: every tick is a new sensor. See also test_decide."""
    events = []
    for _ in range(6):
        ticks.shadow_request()
        ticks.registry.held = Standing(
            ticks.registry.held.aliases, Rollout.from_json(_tag(ticks)), ticks.registry.held.challenger
        )
        events += [told["event"] for told in ticks.told(0.7)]
    assert events == ["advanced", "promoted"]


def _tag(ticks: Ticks) -> str:
    assert ticks.registry.held.rollout
    return ticks.registry.held.rollout.to_json()


def test_registry_that_is_down_for_one_model_lets_the_others_go_on(ticks: Ticks, catalog: Catalog) -> None:
    second = catalog.models[MODEL].model_copy(update={"name": "second"})
    ticks.catalog = Catalog(catalog.sources, catalog.views, {"second": second, MODEL: catalog.models[MODEL]})
    held, ticks.server.says = ticks.registry.held, {"refused": {"version": "2", "reason": "broken"}}
    assert held.rollout
    ticks.registry.rollouts = lambda _=None: {"second": held.rollout, "of nobody": held.rollout, MODEL: held.rollout}  # type: ignore[method-assign,dict-item,return-value]
    standing = ticks.registry.standing

    def failing(model: str) -> Standing:
        if model == "second":
            raise RegistryError("second/registry", "down", "wait")
        return standing(model)

    ticks.registry.standing = failing  # type: ignore[method-assign]
    result = ticks.tick()
    assert [event.metadata["event"].value for event in result.asset_events] == ["aborted"]
    assert set(json.loads(ticks.cursor)) == {MODEL, "second"}


def test_champion_that_somebody_set_by_hand_is_an_event_that_people_see_once(ticks: Ticks) -> None:
    ticks.tick()
    ticks.registry.moved = {MODEL: "7"}
    (seen,) = [event for event in ticks.tick(1).asset_events if isinstance(event, dg.AssetObservation)]
    assert seen.asset_key == DEPLOYMENT
    assert "somebody moved its alias champion to version 7" in (seen.description or "")
    assert not ticks.tick(1).asset_events
    ticks.registry.moved = {}
    ticks.tick(1)
    ticks.registry.moved = {MODEL: "7"}
    assert len(ticks.tick(1).asset_events) == 1, "again, after it was put right"
