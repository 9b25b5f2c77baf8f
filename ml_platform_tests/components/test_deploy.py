"""Deployment moves the champion alias only as long as the server follows."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from ml_platform.components.graph import CheckOutcome
from ml_platform.components.parity import MATCHES
from ml_platform.components.release import Deployed, deploy
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import DeploymentError
from ml_platform.core.settings import Settings
from ml_platform.evaluation.report import ChampionReport
from ml_platform.registry.versions import Aliases, Version
from ml_platform.resources.lake import Lake
from ml_platform.resources.verdict import REPORT
from ml_platform.rollout.plan import Hold
from ml_platform_tests.evaluation.test_gates import REPORT as GOOD

DAY = date(2024, 1, 1)
METRICS = {"average_precision": 0.9, "roc_auc": 0.95}


class Registry:
    """A registry with an old champion and a new version."""

    def __init__(self) -> None:
        self.old = Version("fraud_detection", "1", "old", "2023-12-01", "run", "source")
        self.new = Version("fraud_detection", "2", "new", "2024-01-01", "run", "source")
        self.held = Aliases(champion=self.old)
        self.history: list[Aliases] = []

    def versions(self, _: str) -> list[Version]:
        return [self.new, self.old]

    def aliases(self, _: str) -> Aliases:
        return self.held

    def set_aliases(self, _: str, aliases: Aliases) -> None:
        self.held = aliases
        self.history.append(aliases)


class Server:
    def __init__(self, refuses: bool = False, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.refuses = refuses
        self.meanwhile = meanwhile

    def wait_until_served(self, version: Version) -> dict[str, str]:
        self.meanwhile()
        if self.refuses:
            raise DeploymentError("fraud_detection/deployment", "refused", "train again")
        return {"version": version.number, "digest": version.digest}


def deployed(
    catalog: Catalog,
    folder: Path,
    registry: Registry,
    server: Server,
    metrics: dict[str, float] = METRICS,
    scores_alike: bool = True,
) -> Hold | Deployed:

    lake = Lake.at(Settings(lake=str(folder)))
    report = replace(
        GOOD,
        bundle_digest="new",
        metrics=metrics,
        class_rows=(990, 10),
        champion=ChampionReport("1", {"average_precision": 0.5}),
    )
    lake.write_files(keys.evaluation("fraud_detection"), DAY, {REPORT: report.to_json()}, [])
    check = CheckOutcome(MATCHES, scores_alike)
    return deploy(catalog.models["fraud_detection"], DAY, lake, registry, server, lambda _: check)  # type: ignore[arg-type]


def test_served_version_is_champion_and_the_old_one_previous(catalog: Catalog, tmp_path: Path) -> None:
    registry = Registry()
    outcome = deployed(catalog, tmp_path, registry, Server())
    assert isinstance(outcome, Deployed)
    assert outcome.served == {"version": "2", "digest": "new"}
    assert registry.held == Aliases(champion=registry.new, previous=registry.old)


def test_version_that_the_server_refuses_gives_the_aliases_back(catalog: Catalog, tmp_path: Path) -> None:
    registry = Registry()
    with pytest.raises(DeploymentError, match="refused"):
        deployed(catalog, tmp_path, registry, Server(refuses=True))
    assert registry.history == [Aliases(champion=registry.new, previous=registry.old), Aliases(champion=registry.old)]


def test_version_that_scores_otherwise_on_the_server_gives_the_aliases_back(catalog: Catalog, tmp_path: Path) -> None:
    registry = Registry()
    outcome = deployed(catalog, tmp_path, registry, Server(), scores_alike=False)
    assert isinstance(outcome, Deployed)
    assert not outcome.check.passed
    assert registry.history == [Aliases(champion=registry.new, previous=registry.old), Aliases(champion=registry.old)]


def test_failed_deployment_does_not_undo_another_one_that_went_on(catalog: Catalog, tmp_path: Path) -> None:
    registry = Registry()
    third = Aliases(champion=Version("fraud_detection", "3", "third", "2024-01-02", "run", "source"))
    with pytest.raises(DeploymentError, match="refused"):
        deployed(catalog, tmp_path, registry, Server(True, lambda: registry.set_aliases("", third)))
    assert registry.held == third


def test_red_gate_is_judged_again_and_holds(catalog: Catalog, tmp_path: Path) -> None:
    registry = Registry()
    outcome = deployed(catalog, tmp_path, registry, Server(), {"average_precision": 0.1, "roc_auc": 0.95})
    assert isinstance(outcome, Hold)
    assert registry.history == []
