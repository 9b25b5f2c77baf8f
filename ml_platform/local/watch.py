"""Watching the platform get on: how far each stage is, what Dagster is doing meanwhile, and when to give up."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ml_platform.core.settings import Settings
from ml_platform.resources.dagster_api import DagsterApi

IDLE, BUSY = (
    240.0,
    1800.0,
)  # seconds without any progress after which to give up: while nothing runs, while something does
LINES_EVERY = 5.0  # seconds between lines about one stage, where there is no terminal
_DOING = """{ runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]}, limit: 50) { ... on Runs {
    results { runId status assetSelection { path } stats { ... on RunStatsSnapshot { stepsSucceeded materializations } } } } } }"""
_FAILED = "{ runsOrError(filter: {statuses: [FAILURE]}, limit: 20) { ... on Runs { results { runId } } } }"

Stages = Mapping[str, tuple[int, int]]  # how many of how many


@dataclass(frozen=True)
class Doing:
    """A run that has not ended. `done` grows while it gets on."""

    run: str
    status: str
    assets: tuple[str, ...]
    done: int

    def words(self, url: str) -> str:
        return f"{', '.join(self.assets)} is {self.status.lower()}: {url}/runs/{self.run}"


def doing(settings: Settings) -> list[Doing]:
    """Runs that have not ended."""
    found = DagsterApi.at(settings).query(_DOING)["runsOrError"].get("results", [])
    return [_doing(run) for run in found]


def _doing(run: Mapping[str, Any]) -> Doing:
    stats = run["stats"] or {}
    done = (stats.get("stepsSucceeded") or 0) + (stats.get("materializations") or 0)
    return Doing(run["runId"], run["status"], tuple("/".join(key["path"]) for key in run["assetSelection"] or ()), done)


def failed_runs(settings: Settings) -> list[str]:
    """Ids of the latest runs that failed."""
    return [run["runId"] for run in DagsterApi.at(settings).query(_FAILED)["runsOrError"].get("results", [])]


class Patience:
    """How long to wait on. Progress is what changes: stages, and runs that begin, get on and end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: object = None
        self._changed = clock()

    def is_over(self, seen: Stages, runs: list[Doing]) -> bool:
        now = (dict(seen), runs)
        if now != self._seen:
            self._seen, self._changed = now, self._clock()
        return self._clock() - self._changed > self.limit(runs)

    @staticmethod
    def limit(runs: list[Doing]) -> float:
        return BUSY if any(run.status != "QUEUED" for run in runs) else IDLE


def stuck(seen: Stages, runs: list[Doing], failed: list[str], settings: Settings) -> str:
    """Why nothing can be hoped for any more, and where to read on."""
    stage, (done, total) = next((name, far) for name, far in seen.items() if far[0] < far[1])
    said = [f"nothing has happened for {Patience.limit(runs):.0f} s; {stage} is at {done} of {total}"]
    said += [run.words(settings.dagster_url) for run in runs] or ["no run is queued or running"]
    said += [f"failed: {settings.dagster_url}/runs/{run}" for run in failed]
    return "; ".join([*said, f"logs: {settings.home / 'logs'}"])


class Display:
    """Shows how far each stage is: bars on a terminal, else a line now and then."""

    def __init__(self, console: Console, progress: Progress | None, clock: Callable[[], float]) -> None:
        self._console, self._progress, self._clock = console, progress, clock
        self._bars: dict[str, TaskID] = {}
        self._said: dict[str, tuple[int, float]] = {}

    def show(self, stages: Stages) -> None:
        for stage, (done, total) in stages.items():
            if self._progress is None:
                self._say(stage, done, total)
                continue
            if stage not in self._bars:
                self._bars[stage] = self._progress.add_task(stage, total=total)
            self._progress.update(self._bars[stage], completed=done, total=total)

    def _say(self, stage: str, done: int, total: int) -> None:
        before, at = self._said.get(stage, (0, -LINES_EVERY))
        now = self._clock()
        if done != before and (done == total or now - at >= LINES_EVERY):
            self._said[stage] = done, now
            self._console.print(
                f"{time.strftime('%H:%M:%S')} {stage}: {done} of {total}", highlight=False, soft_wrap=True
            )


@contextmanager
def display(console: Console, clock: Callable[[], float] = time.monotonic) -> Iterator[Display]:
    if not console.is_terminal:
        yield Display(console, None, clock)
        return
    columns = (TextColumn("{task.description:<38}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        yield Display(console, progress, clock)
