"""A version becomes champion only as long as the server follows, and step by step where the model file says so."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from ml_platform.components.parity import MATCHES
from ml_platform.components.reporting import CheckOutcome
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import DeploymentError, PlatformError
from ml_platform.core.settings import Settings
from ml_platform.core.spec import AbortSpec, ModelSpec, RolloutSpec
from ml_platform.evaluation.report import ChampionReport
from ml_platform.registry.versions import Aliases, Version
from ml_platform.resources.lake import Lake
from ml_platform.resources.prediction_log import PredictionLog
from ml_platform.resources.prediction_rows import Prediction
from ml_platform.resources.release import Begun, Deployed, deploy, progress, promote, roll_back
from ml_platform.resources.verdict import REPORT
from ml_platform.rollout.plan import Hold
from ml_platform.rollout.standing import Standing
from ml_platform.rollout.state import Rollout
from ml_platform_tests.evaluation.test_gates import REPORT as GOOD
from ml_platform_tests.evaluation.test_gates import figure
from ml_platform_tests.resources.memory import MemoryRegistry, ToldServer

MODEL, DAY = "fraud_detection", date(2024, 1, 1)
METRICS = {"average_precision": 0.9, "roc_auc": 0.95}
OLD = Version(MODEL, "1", "old", "2023-12-01", "run", "source")
NEW = Version(MODEL, "2", "new", "2024-01-01", "run", "source")
LATER = Version(MODEL, "3", "later", "2024-01-02", "run", "source")
CANARY = RolloutSpec(
    strategy="canary", steps=(10, 50), bake="10m", min_requests=50, abort_if=AbortSpec(error_rate=0.01, score_psi=0.2)
)


class World:
    """A champion, a new version that passed its gates, a server, and a clock."""

    def __init__(self, catalog: Catalog, folder: Path) -> None:
        self.catalog = catalog
        self.lake = Lake.at(Settings(lake=str(folder / "lake")))
        self.registry = MemoryRegistry([LATER, NEW, OLD], Standing(Aliases(champion=OLD)))
        self.server = ToldServer()
        self.now = datetime(2024, 1, 1, 12, tzinfo=UTC)
        self.log = PredictionLog(self.lake, folder / "spool", lambda: self.now)
        self.scores_alike = True

    def spec(self, rollout: RolloutSpec | None = None) -> ModelSpec:
        return self.catalog.models[MODEL].model_copy(update={"rollout": rollout or RolloutSpec()})

    def evaluated(self, version: Version, metrics: dict[str, float] | None = None) -> None:
        champion = self.registry.held.aliases.champion
        report = replace(
            GOOD,
            bundle_digest=version.digest,
            metrics=metrics or METRICS,
            figures={name: figure(value, 0.5) for name, value in (metrics or METRICS).items()},
            class_rows=(990, 10),
            champion=ChampionReport(champion.number, {"average_precision": 0.5}) if champion else None,
        )
        day = date.fromisoformat(version.training_date)
        self.lake.write_files(keys.evaluation(MODEL), day, {REPORT: report.to_json()}, [])

    def deploy(self, version: Version = NEW, rollout: RolloutSpec | None = None) -> Hold | Begun | Deployed:
        def prove(_: Version) -> CheckOutcome:
            return CheckOutcome(MATCHES, self.scores_alike, "rows differ")

        day = date.fromisoformat(version.training_date)
        spec = self.spec(rollout)
        return deploy(spec, day, self.lake, self.registry, self.server, prove, "run 1", lambda: self.now)  # type: ignore[arg-type]

    def tick(self, minutes: float = 0) -> Rollout:
        self.now += timedelta(minutes=minutes)
        arguments = (self.spec(CANARY), self.catalog, self.lake, self.registry, self.server, "sensor", lambda: self.now)
        rollout = progress(*arguments)  # type: ignore[arg-type]
        assert rollout
        return rollout

    def promote(self, version: Version, reason: str = "", force: bool = False) -> None:
        arguments = (
            version,
            self.spec(),
            reason,
            force,
            self.lake,
            self.registry,
            self.server,
            "eve",
            lambda: self.now,
        )
        promote(*arguments)  # type: ignore[arg-type]

    def roll_back(self, reason: str = "by hand") -> Version:
        return roll_back(MODEL, reason, self.registry, self.server, "eve", lambda: self.now)[0]  # type: ignore[arg-type]

    def requests(self, count: int, failing: int = 0, seed: int = 1) -> None:
        """Entities ask, and whoever the registry says answers; of the challenger's answers every `failing`-th fails."""
        traffic, rng = self.registry.held.traffic(), np.random.default_rng(seed)
        rows = []
        for number, score in enumerate(rng.uniform(size=count)):
            arm = traffic.arm(str(number))
            version = traffic.challenger if arm == "challenger" else traffic.champion
            assert version
            fails = arm == "challenger" and failing and number % failing == 0
            answer, error = (None, "boom") if fails else (float(score), "")
            row = Prediction(str(number), self.now, version.number, arm, str(number), 5.0, answer, error=error)
            rows.append(row)
        self.log.add(MODEL, rows)
        self.log.write()

    @property
    def aliases(self) -> Aliases:
        return self.registry.held.aliases


@pytest.fixture
def world(catalog: Catalog, tmp_path: Path) -> Iterator[World]:
    world = World(catalog, tmp_path)
    world.evaluated(NEW)
    yield world
    champion = world.aliases.champion
    assert all(aliases.champion for aliases in world.registry.history), "there was always a champion"
    assert champion not in (world.aliases.previous, world.aliases.candidate)


# --- at once ----------------------------------------------------------------------------------------------------------


def test_version_of_a_run_with_overrides_becomes_champion_by_hand_alone(world: World) -> None:
    changed = replace(NEW, overrides='{"training.seed": 3}')
    world.registry.known = [changed, OLD]
    held = world.deploy()
    assert isinstance(held, Hold)
    assert world.aliases == Aliases(champion=OLD)
    world.promote(changed)
    assert world.aliases == Aliases(champion=changed, previous=OLD)


def test_served_version_is_champion_and_the_old_one_previous(world: World) -> None:
    outcome = world.deploy()
    assert isinstance(outcome, Deployed)
    assert outcome.served == {"version": "2", "digest": "new"}
    assert world.aliases == Aliases(champion=NEW, previous=OLD)
    assert world.registry.noted == [("2", "promoted"), ("2", "proven")]


def test_version_that_the_server_refuses_gives_the_aliases_back(world: World) -> None:
    world.server.refuses = True
    with pytest.raises(DeploymentError, match="refused"):
        world.deploy()
    assert world.registry.history == [Aliases(champion=NEW, previous=OLD), Aliases(champion=OLD)]


def test_version_that_scores_otherwise_on_the_server_gives_the_aliases_back(world: World) -> None:
    world.scores_alike = False
    outcome = world.deploy()
    assert isinstance(outcome, Deployed)
    assert not outcome.check.passed
    assert world.registry.history == [Aliases(champion=NEW, previous=OLD), Aliases(champion=OLD)]


def test_failed_deployment_does_not_undo_another_one_that_went_on(world: World) -> None:
    third = Standing(Aliases(champion=LATER))

    def meanwhile() -> None:
        world.registry.held = third

    world.server = ToldServer(True, meanwhile)
    with pytest.raises(DeploymentError, match="refused"):
        world.deploy()
    assert world.registry.held == third


def test_red_gate_is_judged_again_and_holds(world: World) -> None:
    world.evaluated(NEW, {"average_precision": 0.1, "roc_auc": 0.95})
    assert isinstance(world.deploy(), Hold)
    assert world.registry.history == []


def test_proof_that_died_with_its_process_is_made_up_for(world: World) -> None:
    """The next deployment of the day proves it, and can still take back to what was there before."""
    died = ToldServer(meanwhile=lambda: (_ for _ in ()).throw(SystemExit))
    world.server, settled = died, world.registry.changing
    world.registry.changing = lambda model: settled(model) if len(world.registry.history) == 0 else _nothing()  # type: ignore[method-assign,assignment]
    with pytest.raises((SystemExit, RuntimeError)):
        world.deploy()
    world.registry.changing = settled  # type: ignore[method-assign]
    assert world.registry.held.active
    assert world.aliases.champion == NEW
    world.server, world.scores_alike = ToldServer(), False
    assert isinstance(world.deploy(), Deployed)
    assert world.aliases == Aliases(champion=OLD)


def _nothing() -> Iterator[None]:
    raise RuntimeError("killed")


# --- step by step -----------------------------------------------------------------------------------------------------


def test_bad_canary_is_rolled_back(world: World) -> None:
    """A tenth of the cards get a version that fails on every fifth: the first look after that ends it."""
    assert isinstance(world.deploy(rollout=CANARY), Begun)
    assert world.aliases == Aliases(champion=OLD, candidate=NEW)
    assert world.registry.held.traffic().share == 0.1
    world.requests(2_000, failing=5)
    ended = world.tick(0.2)
    assert ended.phase == "aborted"
    assert "error rate" in ended.last.reason
    assert ended.last.figures["requests"] > 100
    assert world.aliases == Aliases(champion=OLD)
    assert world.registry.held.traffic().challenger is None
    assert world.tick(10) == ended


def test_good_canary_becomes_champion(world: World) -> None:
    world.deploy(rollout=CANARY)
    world.requests(2_000)
    assert world.tick(9).step == 0
    assert world.tick(2).step == 1
    assert world.registry.held.traffic().share == 0.5
    assert world.tick(11).step == 1, "no requests since the step began"
    world.requests(500, seed=2)
    proving = world.tick(1)
    assert (proving.phase, proving.last.what) == ("proving", "promoted")
    assert world.aliases == Aliases(champion=NEW, previous=OLD)
    assert isinstance(world.deploy(), Deployed)
    assert world.registry.held.rollout
    assert world.registry.held.rollout.phase == "finished"
    assert world.registry.noted == [("2", what) for what in ("started", "advanced", "promoted", "proven")]


def test_canary_without_requests_ends_and_the_champion_stays(world: World) -> None:
    world.deploy(rollout=CANARY)
    ended = world.tick(24 * 60)
    assert ended.phase == "aborted"
    assert "not ready within max_wait, 1d: 0 of 50 requests" in ended.last.reason
    assert world.aliases == Aliases(champion=OLD)


def test_version_that_the_server_refuses_ends_its_rollout(world: World) -> None:
    world.deploy(rollout=CANARY)
    world.server.says = {"refused": {"version": "2", "reason": "self-test failed"}}
    assert world.tick().last.reason == "the server refused it: self-test failed"


def test_later_version_takes_the_place_of_one_on_its_way_and_an_earlier_one_does_not(world: World) -> None:
    world.deploy(rollout=CANARY)
    world.evaluated(LATER)
    assert isinstance(world.deploy(LATER, CANARY), Begun)
    assert world.registry.held.challenger == LATER
    assert ("2", "aborted") in world.registry.noted
    held = world.deploy(NEW, CANARY)
    assert isinstance(held, Hold)
    assert held.reason == "a rollout is under way of version 3 was trained as of 2024-01-02, later than 2024-01-01"


def test_deployment_that_is_made_again_leaves_the_rollout_alone(world: World) -> None:
    world.deploy(rollout=CANARY)
    world.requests(2_000)
    second = world.tick(11)
    again = world.deploy(rollout=CANARY)
    assert isinstance(again, Begun)
    assert again.rollout == second


def test_edited_model_file_does_not_change_a_rollout_that_has_begun(world: World) -> None:
    world.deploy(rollout=CANARY)
    assert world.tick().spec == CANARY


def test_champion_that_somebody_moved_ends_the_rollout(world: World) -> None:
    world.deploy(rollout=CANARY)
    world.registry.held = replace(world.registry.held, aliases=Aliases(champion=LATER, candidate=NEW))
    assert world.tick().phase == "aborted"
    assert world.aliases == Aliases(champion=LATER)


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_promotion_by_hand_needs_a_passed_evaluation(world: World) -> None:
    world.evaluated(NEW, {"average_precision": 0.1, "roc_auc": 0.95})
    with pytest.raises(
        DeploymentError, match=r"version 2 is not to be champion: .* is 0\.1 .*at least .* --force --reason"
    ):
        world.promote(NEW)
    assert world.aliases == Aliases(champion=OLD)
    world.promote(NEW, "the old one is worse", force=True)
    assert world.aliases == Aliases(champion=NEW, previous=OLD)
    rollout = world.registry.held.rollout
    assert rollout
    assert rollout.phase == "finished"


def test_promotion_fails_closed_where_no_gate_was_evaluated(world: World) -> None:
    world.lake.remove(keys.evaluation(MODEL), date.fromisoformat(NEW.training_date))
    with pytest.raises(PlatformError):
        world.promote(NEW)
    assert world.aliases == Aliases(champion=OLD)


def test_promotion_of_a_version_on_its_way_ends_its_rollout(world: World) -> None:
    world.deploy(rollout=CANARY)
    world.promote(NEW)
    assert world.registry.held.active is None
    assert world.registry.held.traffic().champion == NEW


def test_promotion_that_the_server_does_not_take_is_taken_back(world: World) -> None:
    world.server.refuses = True
    with pytest.raises(DeploymentError, match="refused"):
        world.promote(NEW)
    assert world.aliases == Aliases(champion=OLD)


def test_roll_back_ends_the_rollout_and_else_brings_the_previous_one_back(world: World) -> None:
    world.deploy(rollout=CANARY)
    assert world.roll_back("customers complain") == OLD
    rollout = world.registry.held.rollout
    assert rollout
    assert (rollout.phase, rollout.last.reason, rollout.last.by) == ("aborted", "customers complain", "eve")
    world.deploy()
    assert world.aliases.champion == NEW
    assert world.roll_back() == OLD
    assert world.aliases == Aliases(champion=OLD)
    with pytest.raises(DeploymentError, match="there is no previous version"):
        world.roll_back()
