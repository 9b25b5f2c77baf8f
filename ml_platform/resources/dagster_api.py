"""Dagster from the outside: what a person would click in its UI, through the webserver's GraphQL."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import httpx

from ml_platform.core.days import day_range
from ml_platform.core.errors import StackError
from ml_platform.core.settings import Settings

TIMEOUT = 60.0  # seconds; a webserver that has just started loads the definitions first
PAUSES = (0.5, 1.5)  # seconds before it is asked again
OVER = ("COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED")  # of a backfill
ENDED = ("SUCCESS", "FAILURE", "CANCELED")  # of a run

_LAUNCH = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on Error { message } } }"""
_BACKFILL = """query($id: String!) { partitionBackfillOrError(backfillId: $id) { __typename
    ... on PartitionBackfill { id status error { message } runs(limit: 1000) { runId status assetSelection { path } } }
    ... on Error { message } } }"""
_HOME = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
    repository { name location { name } } } } }"""
_RUN = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
    ... on LaunchRunSuccess { run { runId } } ... on RunConfigValidationInvalid { errors { message } }
    ... on Error { message } } }"""
_WIPE = """mutation($ranges: [PartitionsByAssetSelector!]!) { wipeAssets(assetPartitionRanges: $ranges) {
    __typename ... on Error { message } } }"""

_DAYS = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
    assetPartitionStatuses { ... on TimePartitionStatuses { ranges { startKey endKey status } } } } } }"""


@dataclass(frozen=True)
class Run:
    """One run of a backfill, and the keys of the assets that it makes."""

    id: str
    status: str
    assets: tuple[str, ...]


@dataclass(frozen=True)
class Backfill:
    """How far a backfill is; `error` is why Dagster itself gave up."""

    id: str
    status: str
    runs: tuple[Run, ...]
    error: str = ""

    def is_over(self, assets: Iterable[str]) -> bool:
        """Whether nothing more will happen: Dagster says so, or each asset's one run has ended.

        Dagster looks after its backfills every 30 seconds only, and is not always right about failed runs.
        """
        made = {asset for run in self.runs for asset in run.assets}
        return self.status in OVER or (made.issuperset(assets) and all(run.status in ENDED for run in self.runs))

    @property
    def succeeded(self) -> bool:
        return not self.error and bool(self.runs) and all(run.status == "SUCCESS" for run in self.runs)


class DagsterApi:
    def __init__(self, url: str) -> None:
        self.url = url

    @classmethod
    def at(cls, settings: Settings) -> "DagsterApi":
        return cls(settings.dagster_url)

    def query(self, query: str, **variables: Any) -> dict[str, Any]:
        """What Dagster answers.

        Raises:
            StackError: if nobody answers at the URL, or the answer is an error.
        """
        try:
            answer = self._answer({"query": query, "variables": variables}, is_safe=not query.startswith("mutation"))
            content = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise StackError(
                "dagster", f"no Dagster answers at {self.url}: {error}", "make dev, or set ML_PLATFORM_DAGSTER"
            ) from error
        if content.get("errors") or "data" not in content:
            message = (content.get("errors") or [{"message": f"status {answer.status_code}"}])[0]["message"]
            raise self._refusal(message)
        return content["data"]

    def _answer(self, body: dict[str, Any], is_safe: bool) -> httpx.Response:
        """Asked again if nobody was there for a moment; what `is_safe` to be done twice also if the answer was lost."""
        for pause in (*PAUSES, None):
            try:
                return httpx.post(f"{self.url}/graphql", json=body, timeout=TIMEOUT)
            except httpx.TransportError as error:
                if pause is None or not (is_safe or isinstance(error, httpx.ConnectError)):
                    raise
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def launch_backfill(self, days: Mapping[str, tuple[date, date]]) -> str:
        """Ask for the days, first and last, of each asset to be made; returns the backfill's id."""
        chosen = [_range(key, first, last) for key, (first, last) in days.items()]
        launched = self.query(_LAUNCH, params={"partitionsByAssets": chosen})["launchPartitionBackfill"]
        if launched["__typename"] != "LaunchBackfillSuccess":
            raise self._refusal(launched.get("message", launched["__typename"]))
        return launched["backfillId"]

    def backfill(self, backfill_id: str) -> Backfill:
        found = self.query(_BACKFILL, id=backfill_id)["partitionBackfillOrError"]
        if found["__typename"] != "PartitionBackfill":
            raise self._refusal(found.get("message", found["__typename"]))
        runs = tuple(
            Run(run["runId"], run["status"], tuple("/".join(key["path"]) for key in run["assetSelection"] or ()))
            for run in found["runs"]
        )
        return Backfill(found["id"], found["status"], runs, (found["error"] or {}).get("message", ""))

    def make(
        self,
        days: Mapping[str, tuple[date, date]],
        on_look: Callable[[Backfill], None] = lambda _: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Backfill:
        """Launch a backfill, and look every second until it is over, well or not."""
        launched = self.launch_backfill(days)
        while True:
            found = self.backfill(launched)
            on_look(found)
            if found.is_over(days):
                return found
            sleep(1.0)

    def launch_run(
        self, assets: Sequence[str], day: date, tags: Mapping[str, str], run_config: Mapping[str, Any]
    ) -> str:
        """Ask for one run that makes a day of these assets; returns the run's id.

        Raises:
            StackError: also if Dagster does not know the first of them, or its steps do not take the config.
        """
        found = self.query(_HOME, key={"path": assets[0].split("/")})["assetNodeOrError"].get("repository")
        if not found:
            raise self._refusal(f"it does not know {assets[0]}; maybe the code location is not loaded")
        params = {
            "selector": {
                "repositoryLocationName": found["location"]["name"],
                "repositoryName": found["name"],
                "pipelineName": "__ASSET_JOB",
                "assetSelection": [{"path": key.split("/")} for key in assets],
            },
            "runConfigData": run_config,
            "executionMetadata": {
                "tags": [{"key": k, "value": v} for k, v in {"dagster/partition": day.isoformat(), **tags}.items()]
            },
        }
        launched = self.query(_RUN, params=params)["launchRun"]
        if launched["__typename"] != "LaunchRunSuccess":
            problems = [one["message"] for one in launched.get("errors", ())]
            raise self._refusal("; ".join(problems) or launched.get("message", launched["__typename"]))
        return launched["run"]["runId"]

    def materialized_days(self, key: str) -> set[date]:
        """The days of an asset that Dagster knows as made.

        Raises:
            StackError: also if it does not know the asset, as while the code location is not loaded.
        """
        node = self.query(_DAYS, key={"path": key.split("/")})["assetNodeOrError"]
        if "assetPartitionStatuses" not in node:
            raise self._refusal(f"it does not know {key}; maybe the code location is not loaded")
        ranges = (node.get("assetPartitionStatuses") or {}).get("ranges", ())
        made = [one for one in ranges if one["status"] == "MATERIALIZED"]
        spans = [(date.fromisoformat(one["startKey"]), date.fromisoformat(one["endKey"])) for one in made]
        return {day for first, last in spans for day in day_range(first, last)}

    def wipe_partitions(self, ranges: Iterable[tuple[str, date, date]]) -> bool:
        """Make Dagster forget these days of assets; False if its storage cannot forget single partitions.

        Of Dagster's own storages only that of Dagster+ can.
        """
        chosen = [_range(*one) for one in ranges]
        wiped = self.query(_WIPE, ranges=chosen)["wipeAssets"]
        if wiped["__typename"] == "AssetWipeSuccess":
            return True
        if wiped["__typename"] == "UnsupportedOperationError":
            return False
        raise self._refusal(wiped.get("message", wiped["__typename"]))

    def _refusal(self, message: str) -> StackError:
        return StackError("dagster", f"{self.url} refused: {message}", f"look at {self.url}")


def _range(key: str, first: date, last: date) -> dict[str, Any]:
    """A PartitionsByAssetSelector."""
    days = {"range": {"start": first.isoformat(), "end": last.isoformat()}}
    return {"assetKey": {"path": key.split("/")}, "partitions": days}
