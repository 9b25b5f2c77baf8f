"""What Dagster's webserver tells of runs that have ended, of its daemons and of sensors' ticks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ml_platform.monitoring.heartbeat import FAILED_TICKS
from ml_platform.monitoring.run_metrics import Ended, Step
from ml_platform.resources.dagster_api import DagsterApi

PAGE = 100
SEVERAL, NONE = "several", "none"

# Of a sensor. Asked without statuses, Dagster looks for the ticks of all sensors by the ids that they have in its own process, and finds
# none where the sensors' states were written by a process before. One that is under way says nothing yet.
ENDED_TICKS = "statuses: [SKIPPED, SUCCESS, FAILURE]"
_RUNS = """query($after: Float!, $cursor: String, $limit: Int!) { runsOrError(
    filter: {statuses: [SUCCESS, FAILURE, CANCELED], updatedAfter: $after}, cursor: $cursor, limit: $limit) { __typename
    ... on Error { message } ... on Runs { results { runId status creationTime startTime endTime updateTime
    tags { key value } assetSelection { path } stepStats { stepKey status startTime endTime attempts { startTime endTime } } } } } }"""
_NOW = (
    """query($ticks: Int!) { queued: runsOrError(filter: {statuses: [QUEUED]}) { ... on Runs { count } }
    under_way: runsOrError(filter: {statuses: [STARTING, STARTED, CANCELING]}) { ... on Runs { count } }
    instance { daemonHealth { allDaemonStatuses { daemonType required lastHeartbeatTime } } }
    workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { ... on RepositoryLocation { repositories {
    sensors { name sensorState { status ticks(limit: $ticks, """
    + ENDED_TICKS
    + """) { status timestamp error { message } } } } } } } } } } }"""
)


@dataclass(frozen=True)
class Sensor:
    """`failures` counts failed ticks in a row, up to FAILED_TICKS; `ticked` is the last tick, epoch seconds."""

    name: str
    running: bool
    ticked: float | None
    failures: int
    error: str = ""


@dataclass(frozen=True)
class Present:
    """Runs that wait and run, when each required daemon last gave a sign (epoch seconds), and the sensors."""

    queued: int
    under_way: int
    heartbeats: dict[str, float | None]
    sensors: tuple[Sensor, ...]


def ended_runs(api: DagsterApi, after: float) -> Iterator[Ended]:
    """Runs that ended and were updated after a moment, epoch seconds; a page at a time.

    Raises:
        StackError: if nobody answers.
    """
    cursor = None
    while True:
        found = api.query(_RUNS, after=after, cursor=cursor, limit=PAGE)["runsOrError"]
        results = found.get("results", ())
        yield from map(_ended, results)
        if len(results) < PAGE:
            return
        cursor = results[-1]["runId"]


def present(api: DagsterApi) -> Present:
    """How Dagster is now.

    Raises:
        StackError: if nobody answers.
    """
    found = api.query(_NOW, ticks=FAILED_TICKS)
    daemons = found["instance"]["daemonHealth"]["allDaemonStatuses"]
    locations = found["workspaceOrError"].get("locationEntries", ())
    sensors = tuple(
        _sensor(one)
        for entry in locations
        for repository in (entry["locationOrLoadError"] or {}).get("repositories", ())
        for one in repository["sensors"]
    )
    heartbeats = {one["daemonType"]: one["lastHeartbeatTime"] for one in daemons if one["required"]}
    return Present(found["queued"].get("count", 0), found["under_way"].get("count", 0), heartbeats, sensors)


def _ended(run: dict[str, Any]) -> Ended:
    steps = tuple(_step(one, run["endTime"] or run["updateTime"]) for one in run["stepStats"] or ())
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    times = (run["creationTime"], run["startTime"], run["endTime"], run["updateTime"])
    return Ended(run["runId"], _about(run["assetSelection"] or ()), run["status"], *times, tags, steps)


def _about(selection: Any) -> str:
    """The source, view or model that a run's assets are of."""
    owners = {key["path"][1] if key["path"][0] == "features" else key["path"][0] for key in selection}
    return owners.pop() if len(owners) == 1 else SEVERAL if owners else NONE


def _step(stats: dict[str, Any], run_ended: float) -> Step:
    """A try whose end nobody noted, such as one that was killed, lasted until the next one or the end of all."""
    start, end = stats["startTime"], stats["endTime"]
    seconds = None if start is None or end is None else end - start
    name = stats["stepKey"].split("[")[0]  # of mapped steps, all are one
    tries = [(one["startTime"], one["endTime"]) for one in stats["attempts"] or () if one["startTime"] is not None]
    if not tries and start is not None:
        tries = [(start, end)]
    following = [begin for begin, _ in tries[1:]] + [end or run_ended]
    spans = tuple(max(0.0, (over or next_) - begin) for (begin, over), next_ in zip(tries, following, strict=False))
    return Step(name, stats["status"] or "UNKNOWN", seconds, spans)


def _sensor(found: dict[str, Any]) -> Sensor:
    state, failures = found["sensorState"], 0
    ticks = state["ticks"]
    for tick in ticks:
        if tick["status"] != "FAILURE":
            break
        failures += 1
    last = ticks[0] if ticks else None
    error = ((last or {}).get("error") or {}).get("message", "").strip()
    return Sensor(found["name"], state["status"] == "RUNNING", last["timestamp"] if last else None, failures, error)
