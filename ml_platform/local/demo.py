"""The demo: land files, watch the sensors do the rest, ask the deployed model, and say whether all of it came true.

Nothing here materializes anything: it plays producer and client, and looks at what the platform made of it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from typing import Any

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog, catalog_at
from ml_platform.core.days import ONE_DAY
from ml_platform.core.errors import PlatformError, SettingsError, StackError
from ml_platform.core.settings import Settings
from ml_platform.core.spec import ModelSpec
from ml_platform.data.landing import fingerprint
from ml_platform.local import stack
from ml_platform.local.producer import DailyFile, land
from ml_platform.local.watch import Patience, display, doing, failed_runs, stuck
from ml_platform.monitoring.retrain import Train
from ml_platform.registry.versions import Version
from ml_platform.resources.dagster_api import DagsterApi
from ml_platform.resources.lake import Lake
from ml_platform.resources.ledger import ARRIVAL
from ml_platform.resources.lineage import training_decision, view_is_current
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


def tell(settings: Settings, model: str, files: Sequence[DailyFile], console: Console) -> bool:
    """Run the demo; True if everything that it promises came true."""
    began = time.monotonic()
    outcome, world = Outcome(), World.at(settings, model)
    with running_stack(settings, console):
        try:
            arrived = watch_until_deployed(world, files, outcome, console)
            if arrived:
                ask(world, files, outcome)
        except PlatformError as error:
            outcome.failures.append(str(error))
    outcome.say("took", f"{time.monotonic() - began:.0f} s")
    show(outcome, settings, console)
    return not outcome.failures


# --- the stack --------------------------------------------------------------------------------------------------------


@contextmanager
def running_stack(settings: Settings, console: Console) -> Iterator[None]:
    """The stack: the one that is already running, or one that is started for the demo and stopped after it."""
    wanted = stack.parts(settings)
    if all(stack.is_healthy(part) for part in wanted):
        console.print("using the stack that is already running")
        yield
        return
    stack.check_ports(wanted)
    settings.home.mkdir(parents=True, exist_ok=True)
    log = settings.home / "logs" / "stack.log"
    log.parent.mkdir(exist_ok=True)
    environment = {**os.environ, **stack.variables(settings)}
    with log.open("w") as output, console.status(f"starting the stack (its log: {log})"):
        process = subprocess.Popen(
            [sys.executable, "-m", "ml_platform.cli", "dev"], stdout=output, stderr=output, env=environment
        )
        late = stack.wait_until_healthy(wanted, stack.START_TIMEOUT, give_up=lambda: process.poll() is not None)
    try:
        if late:
            last = log.read_text().strip().splitlines()[-1:] or ["it said nothing"]
            raise StackError(f"stack/{', '.join(late)}", f"did not become healthy: {last[0]}", f"read {log}")
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait()  # it ends what it started, each part within its grace


# --- watching ---------------------------------------------------------------------------------------------------------


def watch_until_deployed(world: World, files: Sequence[DailyFile], outcome: Outcome, console: Console) -> bool:
    """Land the files and wait for the platform to have made of them what it can; False if it stopped getting on."""
    failed_before = {*failed_runs(world.settings)}
    with display(console) as shown:
        days: dict[str, set[date]] = {}
        for number, (source, day, _) in enumerate(land(files, world.landing), 1):
            days.setdefault(source, set()).add(day)
            shown.show({"files landed": (number, len(files))})
        for source, landed_days in days.items():
            outcome.say(f"{source} landed", f"{len(landed_days)} days")

        landed, patience = landed_contents(world, files), Patience()
        while True:
            looked = time.monotonic()
            seen = stages(world, landed)
            shown.show(seen)
            if all(done >= total for done, total in seen.values()):
                describe(world, files, outcome)
                return True
            runs = doing(world.settings)
            if patience.is_over(seen, runs):
                failed = [run for run in failed_runs(world.settings) if run not in failed_before]
                outcome.failures.append(stuck(seen, runs, failed, world.settings))
                return False
            # A look reads hundreds of manifests: it must not take the machine from those who make them.
            time.sleep(max(1.0, 4 * (time.monotonic() - looked)))


def landed_contents(world: World, files: Sequence[DailyFile]) -> dict[str, dict[date, str]]:
    """What lies in the landing bucket for the days of the files: fingerprints by source and day."""
    return {
        source: {
            day: fingerprint(world.landing.of_day(world.catalog.feeds[source], day))
            for name, day, _ in files
            if name == source
        }
        for source in world.catalog.feeds
    }


def stages(world: World, landed: dict[str, dict[date, str]]) -> dict[str, tuple[int, int]]:
    """How far the platform is: per stage of the graph, how many partitions of how many are up to date."""
    progress: dict[str, tuple[int, int]] = {}
    for source, contents in landed.items():
        made = world.lake.manifests(keys.raw(source), contents)
        current = sum(made[day].tags.get(ARRIVAL) == content for day, content in contents.items() if day in made)
        progress[keys.raw(source)] = current, len(contents)
    snapshot_days = sorted(day + ONE_DAY for day in landed[world.spec.entity_rows])
    read = cache(world.lake.manifest)
    raw_done = all(done == total for done, total in progress.values())
    for view in world.catalog.snapshot_views(world.spec):
        current = sum(view_is_current(read, world.catalog, view, day) for day in snapshot_days) if raw_done else 0
        progress[keys.feature_view(view.name)] = current, len(snapshot_days)
    ready = all(done == total for done, total in progress.values())
    date_ = settled_training_date(world) if ready else None
    for key in (keys.training_set(world.model), keys.candidate(world.model), keys.evaluation(world.model)):
        progress[key] = int(date_ is not None and made_in_turn(world, key, date_)), 1
    progress[keys.deployment(world.model)] = int(date_ is not None and is_decided(world, date_)), 1
    return progress


def settled_training_date(world: World) -> date | None:
    """The last training date, once no other training is due."""
    if isinstance(training_decision(world.lake, world.catalog, world.spec), Train):
        return None
    return max(world.lake.days(keys.training_set(world.model)), default=None)


def made_in_turn(world: World, key: str, day: date) -> bool:
    """Whether the partition was made after, and from, what comes before it."""
    manifest = world.lake.manifest(key, day)
    if manifest is None:
        return False
    own = {keys.partition(name(world.model), day): name(world.model) for name in (keys.training_set, keys.candidate)}
    sources = [(one, own[one.name]) for one in manifest.inputs if one.name in own]
    return all(
        (current := world.lake.manifest(source, day)) is not None and current.content_hash == one.version
        for one, source in sources
    )


def is_decided(world: World, day: date) -> bool:
    """Whether the evaluated candidate is served, or was refused by a gate."""
    if not made_in_turn(world, keys.evaluation(world.model), day) or not made_in_turn(
        world, keys.candidate(world.model), day
    ):
        return False
    report, gates = verdict(world.spec, day, world.lake)
    if not all(gate.passed for gate in gates):
        return True
    status = world.server.status(world.model)
    return bool(status and status.get("digest") == report.bundle_digest)


# --- telling ----------------------------------------------------------------------------------------------------------


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
