"""What people who watch a stack care about, a line each: runs that ended, and how; and code servers that are gone."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from ml_platform.core.errors import StackError
from ml_platform.core.settings import Settings
from ml_platform.resources.dagster_api import ENDED, DagsterApi

LOOK_EVERY = 5.0  # seconds
GONE_FOR = 3  # looks in a row at which a code server cannot be reached, until it is started again
_LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries { name
    locationOrLoadError { ... on PythonError { className } } } } } }"""
_RELOAD = """mutation($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"""
UNREACHABLE = "DagsterUserCodeUnreachableError"
_RUNS = """query($after: Float!) { runsOrError(limit: 100, filter: {updatedAfter: $after}) { ... on Runs { results {
    runId status startTime endTime tags { key value } assetSelection { path } } } } }"""


def follow(settings: Settings, tell: Callable[[str], None], is_over: Callable[[], bool]) -> None:
    """Tell of every run that ends, until it is over. While Dagster does not answer, nothing is told."""
    api, told, since, gone = DagsterApi.at(settings), set[str](), time.time(), Counter[str]()
    while not is_over():
        time.sleep(LOOK_EVERY)
        try:
            gone = reload_what_is_gone(api, gone, tell)
            found = api.query(_RUNS, after=since - 60)["runsOrError"].get("results", [])
        except StackError:
            continue
        for run in reversed(found):
            if run["status"] in ENDED and run["runId"] not in told and (run["endTime"] or 0) >= since:
                told.add(run["runId"])
                tell(line(run, settings.dagster_url))


def reload_what_is_gone(api: DagsterApi, gone: Counter[str], tell: Callable[[str], None]) -> Counter[str]:
    """Have code servers started again that died, which Dagster alone would leave dead; returns for how many looks each is gone.

    A mistake in a file is none of this: such a server answers, and says so.
    """
    entries = api.query(_LOCATIONS)["workspaceOrError"].get("locationEntries", [])
    now = [e["name"] for e in entries if (e["locationOrLoadError"] or {}).get("className") == UNREACHABLE]
    counted = Counter({name: gone[name] + 1 for name in now})
    for name in [name for name, looks in counted.items() if looks >= GONE_FOR]:
        tell(f"the code server of {name} is gone, and is started again")
        api.query(_RELOAD, name=name)
        del counted[name]
    return counted


def line(run: Mapping[str, Any], url: str) -> str:
    """One run in words: when, what, how long, and where to read on if it did not succeed."""
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    first = tags.get("dagster/partition") or tags.get("dagster/asset_partition_range_start", "")
    last = tags.get("dagster/asset_partition_range_end", first)
    days = f" [{first}{'' if first == last else f' to {last}'}]" if first else ""
    what = ", ".join("/".join(key["path"]) for key in run["assetSelection"] or ()) or "a run"
    took = f"{run['endTime'] - (run['startTime'] or run['endTime']):.0f} s"
    how = {"SUCCESS": f"made in {took}", "CANCELED": "cancelled"}.get(run["status"])
    how = how or f"FAILED after {took}: {url}/runs/{run['runId']}"
    return f"{datetime.fromtimestamp(run['endTime']):%H:%M:%S} {what}{days} {how}"
