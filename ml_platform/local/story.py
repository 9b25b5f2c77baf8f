"""What the demo tells when it is over: what was made, and what the deployed model answers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog, catalog_at
from ml_platform.core.days import ONE_DAY
from ml_platform.core.errors import SettingsError
from ml_platform.core.settings import Settings
from ml_platform.core.spec import ModelSpec
from ml_platform.local.producer import DailyFile
from ml_platform.registry.versions import Version
from ml_platform.resources.dagster_api import DagsterApi
from ml_platform.resources.lake import Lake
from ml_platform.resources.model_server import ModelServer
from ml_platform.resources.object_store import ObjectStore
from ml_platform.resources.registry import Registry
from ml_platform.resources.verdict import verdict
from ml_platform.training.training_set import LABEL

REQUESTS = 200


@dataclass
class Outcome:
    """What happened, row by row; `failures` says what did not come true."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def say(self, what: str, value: str) -> None:
        self.rows.append((what, value))

    def expect(self, true: bool, otherwise: str) -> None:
        if not true:
            self.failures.append(otherwise)


@dataclass(frozen=True)
class World:
    """Everything that the demo looks at, from the outside."""

    settings: Settings
    catalog: Catalog
    spec: ModelSpec
    landing: ObjectStore
    lake: Lake
    registry: Registry
    server: ModelServer

    @property
    def model(self) -> str:
        return self.spec.name

    @classmethod
    def at(cls, settings: Settings, model: str = "") -> "World":
        """Of that model; it need not be named where the project has one.

        Raises:
            SettingsError: if there is none of that name, or which one is meant is not clear.
        """
        catalog = catalog_at(settings)
        names = [model] if model else list(catalog.models)
        if len(names) != 1 or names[0] not in catalog.models:
            problem = f"no model {model!r}" if model else f"the project has {len(names)} models"
            raise SettingsError("--model", problem, f"name one: {', '.join(catalog.models) or 'none is declared'}")
        return cls(
            settings,
            catalog,
            catalog.models[names[0]],
            ObjectStore.at(settings),
            Lake.at(settings),
            Registry.at(settings),
            ModelServer.at(settings),
        )


def describe(world: World, files: Sequence[DailyFile], outcome: Outcome) -> None:
    """What the platform made, as Dagster, the lake, the registry and the server have it."""
    for key in [
        *(keys.raw(source) for source in world.catalog.feeds),
        *(keys.feature_view(v.name) for v in world.catalog.snapshot_views(world.spec)),
    ]:
        wanted = {day for name, day, _ in files if keys.raw(name) == key} or {
            d + ONE_DAY for n, d, _ in files if n == world.spec.entity_rows
        }
        known = DagsterApi.at(world.settings).materialized_days(key)
        rows = sum(world.lake.require(key, day).rows for day in wanted)
        outcome.say(key, f"{len(wanted)} partitions, {rows:,} rows")
        outcome.expect(
            wanted <= known,
            f"Dagster does not know all partitions of {key}",
        )

    day = world.lake.days(keys.evaluation(world.model))[-1]
    report, gates = verdict(world.spec, day, world.lake)
    training_set = world.lake.require(keys.training_set(world.model), day)
    outcome.say("trained as of", f"{day}, {training_set.rows:,} rows from {len(training_set.inputs)} partitions")
    outcome.say("evaluated on", f"{report.rows:,} rows")
    for name, value in report.metrics.items():
        outcome.say(f"  {name}", f"{value:.4f}")
    in_dagster = dagster_checks(world.settings, keys.evaluation(world.model))
    for gate in gates:
        outcome.say(f"gate {gate.name}", f"{'passed' if gate.passed else 'NO'}: {gate.reason}")
        outcome.expect(gate.passed, f"gate {gate.name} said no: {gate.reason}; the old model keeps serving")
        outcome.expect(gate.name in in_dagster, f"Dagster shows no result of gate {gate.name}")


def dagster_checks(settings: Settings, key: str) -> dict[str, str]:
    """The latest status of every check of an asset that has been evaluated."""
    query = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
        assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization { status } } } } } } }"""
    node = DagsterApi.at(settings).query(query, key={"path": key.split("/")})["assetNodeOrError"]
    executions = {
        check["name"]: check["executionForLatestMaterialization"] for check in node["assetChecksOrError"]["checks"]
    }
    return {name: execution["status"] for name, execution in executions.items() if execution}


def ask(world: World, files: Sequence[DailyFile], outcome: Outcome) -> None:
    """Send real requests: transactions of the last landed day by id, and rows of the training set in full."""
    champion = world.registry.aliases(world.model).champion
    status = world.server.status(world.model)
    if champion is None or not status or not status["version"]:
        outcome.failures.append("no model is deployed")
        return
    outcome.say(
        "deployed", f"version {champion.number}, bundle {champion.digest[:12]}, trained as of {champion.training_date}"
    )
    outcome.expect(
        status["digest"] == champion.digest,
        f"the server serves version {status['version']}, not champion {champion.number}",
    )

    schema = status["input"]
    newest = world.lake.read_table(
        keys.raw(world.spec.entity_rows), [world.lake.days(keys.raw(world.spec.entity_rows))[-1]]
    )
    wanted = list(dict.fromkeys([*schema["entities"], *schema["request"]]))
    entities = [jsonable(row) for row in newest.slice(0, REQUESTS).select(wanted).to_pylist()]
    scores, elapsed = send(world, [{"entities": [row]} for row in entities], champion, outcome)
    if elapsed:
        outcome.say(
            "predictions by id",
            f"{len(scores)} requests, p50 {np.percentile(elapsed, 50):.1f} ms, p99 {np.percentile(elapsed, 99):.1f} ms",
        )

    known = world.lake.read_table(keys.training_set(world.model), [date.fromisoformat(champion.training_date)])
    labels = known[LABEL].to_numpy()
    some = [np.flatnonzero(labels == value)[-REQUESTS // 2 :] for value in np.unique(labels)[:2]]
    rows = [
        jsonable(row)
        for row in known.select([*schema["request"], *schema["features"]]).take(np.concatenate(some)).to_pylist()
    ]
    scores, _ = send(world, [{"rows": rows}], champion, outcome)
    outcome.say("predictions by full row", f"{len(scores)} rows")
    if scores and world.spec.task == "binary_classification":
        negative, positive = np.mean(scores[: len(some[0])]), np.mean(scores[len(some[0]) :])
        outcome.say("  mean score", f"of positives {positive:.3f}, of negatives {negative:.4f}")
        outcome.expect(bool(positive > negative), "the served model does not tell positives from negatives")


def send(
    world: World, bodies: list[dict[str, Any]], champion: Version, outcome: Outcome
) -> tuple[list[float], list[float]]:
    """POST each body; returns all scores, and each request's time in milliseconds."""
    scores: list[float] = []
    elapsed: list[float] = []
    with httpx.Client(base_url=world.settings.model_server_url, timeout=30, headers=world.server.headers) as client:
        for body in bodies:
            sent = time.perf_counter()
            answer = client.post(f"/models/{world.model}/predict", json=body)
            elapsed.append((time.perf_counter() - sent) * 1_000)
            if answer.status_code != 200:
                outcome.failures.append(f"a prediction request was answered {answer.status_code}: {answer.text[:300]}")
                return scores, elapsed
            content = answer.json()
            outcome.expect(
                content["version"] == champion.number,
                f"version {content['version']} answered, not champion {champion.number}",
            )
            scores += content["scores"]
    if world.spec.task == "binary_classification":
        outcome.expect(all(0 <= score <= 1 for score in scores), "a score is not a probability")
    return scores, elapsed


def jsonable(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in row.items()}


def show(outcome: Outcome, settings: Settings, console: Console) -> None:
    table = Table(title="what happened", show_header=False, title_justify="left")
    for what, value in outcome.rows:
        table.add_row(what, value)
    table.add_section()
    table.add_row("data", str(settings.home))
    table.add_row("look around", f"make dev, then {settings.dagster_url} and {settings.mlflow_url}")
    console.print(table)
    for failure in dict.fromkeys(outcome.failures):
        console.print(f"NOT TRUE: {failure}", style="red", markup=False)
    console.print("all of it is true" if not outcome.failures else "not all of it is true", style="bold")
