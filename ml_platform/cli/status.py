"""`ml-platform status`: where lake and Dagster differ, what runs, what failed, which sensors are in trouble,
what is trained next and why, what is served."""

from collections.abc import Iterator
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from ml_platform.cli.world import world
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import consecutive_ranges
from ml_platform.core.errors import PlatformError
from ml_platform.core.settings import Settings
from ml_platform.monitoring.retrain import AwaitLabels, Held, Train, Wait
from ml_platform.resources.cluster import WAITING
from ml_platform.resources.dagster_api import DagsterApi
from ml_platform.resources.dagster_history import ENDED_TICKS
from ml_platform.resources.lake import Lake
from ml_platform.resources.lineage import training_decision
from ml_platform.resources.model_server import ModelServer
from ml_platform.resources.registry import Registry

_DECISIONS = {Train: "train", Held: "held", AwaitLabels: "waits for labels", Wait: "nothing is due"}
SHOWN = 3  # ranges of days in one cell
_TICKS = (
    """{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { ... on RepositoryLocation {
    repositories { sensors { name sensorState { status ticks(limit: 1, """
    + ENDED_TICKS
    + """) { status skipReason error { message } } } } } } } } } } }"""
)
_RUNS = """{ doing: runsOrError(filter: {statuses: [QUEUED, STARTING, STARTED, CANCELING]}, limit: 20) { ...found }
    failed: runsOrError(filter: {statuses: [FAILURE]}, limit: 5) { ...found } }
    fragment found on Runs { results { runId status assetSelection { path } tags { key value } } }"""


def status() -> None:
    """One screen: exits 1 if lake and Dagster differ, a sensor's tick failed, or a server serves something else than the registry says."""
    settings, catalog, lake = world()
    api, console = DagsterApi.at(settings), Console(soft_wrap=True, highlight=False)
    differing = list(_differing(catalog, lake, api))
    _show(console, "lake and Dagster", ("table", "only in the lake", "only in Dagster"), differing)
    runs = api.query(_RUNS)
    for title, found in (("runs under way", runs["doing"]), ("runs that failed last", runs["failed"])):
        rows = [
            (
                _what(run),
                run["status"].lower(),
                _tags(run).get(WAITING, ""),
                f"{settings.dagster_url}/runs/{run['runId']}",
            )
            for run in found["results"]
        ]
        _show(console, title, ("assets", "status", "waits for", "run"), rows)
    sensors = list(_sensors(api))
    _show(console, "sensors", ("sensor", "last tick", ""), sensors)
    _show(console, "trainings", ("model", "decision", "why"), list(_trainings(catalog, lake)))
    serving = list(_serving(settings, catalog))
    _show(console, "models", ("model", "champion", "served", ""), serving)
    if differing or any(row[1] in ("FAILURE", "STOPPED") for row in sensors) or any(row[3] for row in serving):
        raise typer.Exit(1)


def _differing(catalog: Catalog, lake: Lake, api: DagsterApi) -> Iterator[tuple[str, str, str]]:
    models = [noun(name) for name in catalog.models for noun in (keys.training_set, keys.candidate, keys.evaluation)]
    views = [keys.feature_view(view.name) for view in catalog.daily_views()]
    for key in [*(keys.raw(name) for name in catalog.ingested), *views, *models]:
        there, known = set(lake.days(key)), api.materialized_days(key)
        if there != known:
            yield key, _days(there - known), _days(known - there)


def _days(days: Any) -> str:
    ranges = consecutive_ranges(days)
    said = [f"{first}" if first == last else f"{first} to {last}" for first, last in ranges[:SHOWN]]
    return ", ".join(said) + (f" and {len(ranges) - SHOWN} more" if len(ranges) > SHOWN else "")


def _what(run: dict[str, Any]) -> str:
    tags = _tags(run)
    day = tags.get("dagster/partition") or tags.get("dagster/asset_partition_range_start", "")
    return ", ".join("/".join(key["path"]) for key in run["assetSelection"] or ()) + (f" [{day}]" if day else "")


def _tags(run: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["tags"]}


def _sensors(api: DagsterApi) -> Iterator[tuple[str, str, str]]:
    for entry in api.query(_TICKS)["workspaceOrError"]["locationEntries"]:
        for repository in (entry["locationOrLoadError"] or {}).get("repositories", ()):
            for sensor in repository["sensors"]:
                state = sensor["sensorState"]
                tick = next(iter(state["ticks"]), None) or {"status": "none yet", "skipReason": "", "error": None}
                how = tick["status"] if state["status"] == "RUNNING" else state["status"]
                yield sensor["name"], how, (tick["error"] or {}).get("message", "").strip() or tick["skipReason"] or ""


def _trainings(catalog: Catalog, lake: Lake) -> Iterator[tuple[str, str, str]]:
    """What the retrain sensor decides of each model, and why."""
    for name, spec in catalog.models.items():
        try:
            decision = training_decision(lake, catalog, spec)
        except PlatformError as error:
            yield name, "?", str(error)
            continue
        yield name, _DECISIONS[type(decision)], decision.reason


def _serving(settings: Settings, catalog: Catalog) -> Iterator[tuple[str, str, str, str]]:
    registry, server = Registry.at(settings), ModelServer.at(settings)
    for model in catalog.models:
        try:
            champion = registry.aliases(model).champion
            answer = server.status(model) or {}
        except PlatformError as error:
            yield model, "?", "?", str(error)
            continue
        said, served = (champion.number if champion else "none"), str(answer.get("version") or "none")
        yield model, said, served, "" if said == served else "the server does not serve the champion"


def _show(console: Console, title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table if rows else f"{title}: nothing")
