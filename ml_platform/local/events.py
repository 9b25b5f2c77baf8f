"""What people who watch a stack care about, a line each: runs that ended, and how."""

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from ml_platform.core.errors import StackError
from ml_platform.core.settings import Settings
from ml_platform.resources.dagster_api import ENDED, DagsterApi

LOOK_EVERY = 5.0  # seconds
_RUNS = """query($after: Float!) { runsOrError(limit: 100, filter: {updatedAfter: $after}) { ... on Runs { results {
    runId status startTime endTime tags { key value } assetSelection { path } } } } }"""


def follow(settings: Settings, tell: Callable[[str], None], is_over: Callable[[], bool]) -> None:
    """Tell of every run that ends, until it is over. While Dagster does not answer, nothing is told."""
    api, told, since = DagsterApi.at(settings), set[str](), time.time()
    while not is_over():
        time.sleep(LOOK_EVERY)
        try:
            found = api.query(_RUNS, after=since - 60)["runsOrError"].get("results", [])
        except StackError:
            continue
        for run in reversed(found):
            if run["status"] in ENDED and run["runId"] not in told and (run["endTime"] or 0) >= since:
                told.add(run["runId"])
                tell(line(run, settings.dagster_url))


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
