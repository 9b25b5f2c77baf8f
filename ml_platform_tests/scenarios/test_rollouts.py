"""Rollouts with a real model server and registry: clients ask, the log says how it went, and ticks decide."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import httpx
import numpy as np
import pytest

from ml_platform.components.parity import MATCHES
from ml_platform.components.reporting import CheckOutcome
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.settings import Settings, load_settings
from ml_platform.core.spec import AbortSpec, ModelSpec, RolloutSpec
from ml_platform.evaluation.report import ChampionReport
from ml_platform.registry import bundle
from ml_platform.registry.versions import Version
from ml_platform.resources.lake import Lake
from ml_platform.resources.model_server import ModelServer
from ml_platform.resources.registry import Registry
from ml_platform.resources.release import Begun, Deployed, deploy, progress
from ml_platform.resources.verdict import REPORT
from ml_platform.rollout.state import Rollout
from ml_platform_tests.evaluation.test_gates import REPORT as GOOD
from ml_platform_tests.evaluation.test_gates import figure
from ml_platform_tests.processes import eventually, free_port
from ml_platform_tests.registry.test_bundle import make_bundle
from ml_platform_tests.resources.test_registry import run_id
from ml_platform_tests.servers import server

MODEL = "fraud_detection"
LIMITS = AbortSpec(error_rate=0.05, score_psi=0.25)
CANARY = RolloutSpec(strategy="canary", steps=(30, 60), bake="1s", min_requests=40, abort_if=LIMITS)


@dataclass
class World:
    """One model with a champion, its server as a process that can be killed, and clients."""

    settings: Settings
    catalog: Catalog
    registry: Registry
    folder: Path
    running: ExitStack
    process: subprocess.Popen | None = None
    customers: int = 0

    @property
    def spec(self) -> ModelSpec:
        return self.catalog.models[MODEL].model_copy(update={"rollout": CANARY})

    def start_server(self) -> None:
        command = [sys.executable, "-m", "ml_platform.serving.main"]
        url = f"{self.settings.model_server_url}/health"
        self.process = self.running.enter_context(server(command, url, self.folder / "server.log"))

    def kill_server(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def register(self, files: dict[str, bytes], day: str) -> Version:
        return self.registry.register(MODEL, files, run_id(self.registry), {"training_date": day})

    def deploy(self, version: Version) -> Begun | Deployed:
        champion = self.registry.aliases(MODEL).champion
        metrics = {"average_precision": 0.9, "roc_auc": 0.95}
        report = replace(
            GOOD,
            bundle_digest=version.digest,
            metrics=metrics,
            figures={name: figure(value, 0.5) for name, value in metrics.items()},
            champion=ChampionReport(champion.number, dict.fromkeys(metrics, 0.5)) if champion else None,
        )
        lake, day = Lake.at(self.settings), date.fromisoformat(version.training_date)
        lake.write_files(keys.evaluation(MODEL), day, {REPORT: report.to_json()}, [])
        prove = lambda _: CheckOutcome(MATCHES, True)  # noqa: E731
        outcome = deploy(self.spec, day, lake, self.registry, ModelServer.at(self.settings), prove, "run 1")
        assert isinstance(outcome, Begun | Deployed)
        return outcome

    def ask(self, count: int) -> list[str]:
        """New customers ask; the versions that answered."""
        rng, by = np.random.default_rng(self.customers), []
        schema = ModelServer.at(self.settings).status(MODEL) or {}
        with httpx.Client(base_url=self.settings.model_server_url) as client:
            for customer in range(self.customers, self.customers + count):
                row = {name: float(rng.uniform(0, 10)) for name in schema["input"]["features"]}
                row |= {
                    "tx_amount": float(rng.uniform(0, 10)),
                    "tx_datetime": "2018-06-01T10:00:00",
                    "customer_id": customer,
                }
                answer = client.post(f"/models/{MODEL}/predict", json={"rows": [row]})
                assert answer.status_code == 200, answer.text
                by.append(answer.json()["version"])
        self.customers += count
        return by

    def tick(self) -> Rollout:
        """A tick of the sensor, in a process of its own as far as it can tell."""
        registry = Registry.at(self.settings)
        lake, model_server = Lake.at(self.settings), ModelServer.at(self.settings)
        rollout = progress(self.spec, self.catalog, lake, registry, model_server, "sensor")
        assert rollout
        return rollout

    def served(self) -> tuple[str | None, str | None]:
        """Champion and challenger, as the server has them."""
        status = ModelServer.at(self.settings).status(MODEL) or {}
        return status.get("version"), (status.get("challenger") or {}).get("version")


@pytest.fixture(scope="module")
def world(processes: None, tmp_path_factory: pytest.TempPathFactory, catalog: Catalog) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("rollouts")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as running:
        patch.setenv("ML_PLATFORM_HOME", str(folder))
        patch.setenv("ML_PLATFORM_MODEL_SERVER_PORT", str(free_port()))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.chdir(folder)  # MLflow without a server keeps artifacts in the working directory
        settings = load_settings()
        world = World(settings, catalog, Registry.at(settings), folder, running)
        champion = world.register(make_bundle(catalog), "2018-05-31")
        world.start_server()
        assert isinstance(world.deploy(champion), Deployed)
        assert set(world.ask(20)) == {"1"}
        yield world


def test_bad_canary_is_rolled_back(world: World, catalog: Catalog) -> None:
    """The second version, of labels that were joined wrong, scores quite otherwise: some customers get it, until the log tells."""
    other = make_bundle(catalog, seed=1, positives=0.95)
    assert isinstance(world.deploy(world.register(other, "2018-06-07")), Begun)
    eventually(lambda: world.served() == ("1", "2"), 60)
    answered = world.ask(600)
    assert 140 < answered.count("2") < 220
    eventually(lambda: world.tick().phase == "aborted", 90)
    assert "PSI of the scores" in world.tick().last.reason
    eventually(lambda: world.served() == ("1", None), 60)
    assert set(world.ask(50)) == {"1"}
    aliases = world.registry.aliases(MODEL)
    assert (aliases.champion and aliases.champion.number, aliases.candidate) == ("1", None)


def test_good_canary_becomes_champion_though_the_server_is_killed_in_the_middle(world: World, catalog: Catalog) -> None:
    """The third version has the champion's weights, and another card."""
    files = {**make_bundle(catalog), bundle.METRICS: b'{"average_precision": 0.8}'}
    third = world.register(files, "2018-06-14")
    assert isinstance(world.deploy(third), Begun)
    eventually(lambda: world.served() == ("1", "3"), 60)
    before = world.ask(200)
    assert before.count("3") >= 40
    eventually(lambda: world.tick().step == 1, 90)
    world.kill_server()
    assert world.tick().step == 1, "without a server there is nothing to be seen"
    world.start_server()
    eventually(lambda: world.served() == ("1", "3"), 60)
    assert world.ask(200).count("3") > before.count("3")
    eventually(lambda: world.tick().phase == "proving", 90)
    assert isinstance(world.deploy(third), Deployed)
    assert world.served() == ("3", None)
    assert set(world.ask(20)) == {"3"}
    assert [event.what for event in world.registry.events(third)] == ["started", "advanced", "promoted", "proven"]
    aliases = world.registry.aliases(MODEL)
    assert aliases.previous
    assert aliases.previous.number == "1"
