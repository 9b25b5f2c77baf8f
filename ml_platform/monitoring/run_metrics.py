"""Counters of runs and steps: a fold over runs that have ended, so that they are the same whoever counts and how often it restarts."""

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ml_platform.core.records import read

BUCKETS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0)  # seconds
NAMES = 500  # values of one label; all others are counted together
OTHER = "other"
OVERLAP = 600.0  # seconds: what is written late is still counted, and once
RETRIED = ("dagster/parent_run_id", "ml_platform/try")  # tags of a run that is another try


@dataclass(frozen=True)
class Step:
    """A step of a run; `tries` are the seconds of each try, the last of which decided its status."""

    name: str
    status: str
    seconds: float | None
    tries: tuple[float, ...] = ()

    @property
    def attempts(self) -> int:
        return max(1, len(self.tries))


@dataclass(frozen=True)
class Ended:
    """A run that has ended; times are epoch seconds. `about` is the source, view or model that it is of."""

    id: str
    about: str
    status: str
    created: float
    started: float | None
    ended: float | None
    updated: float
    tags: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


@dataclass
class Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += max(0.0, seconds)

    def cumulative(self) -> list[tuple[str, float]]:
        """Upper bound -> how many, as Prometheus has them."""
        bounds, seen, found = [*map(str, BUCKETS), "+Inf"], 0, []
        for bound, count in zip(bounds, self.counts, strict=True):
            seen += count
            found.append((bound, float(seen)))
        return found


@dataclass
class RunTotals:
    """All that was ever counted. Keys of several labels are joined by a blank."""

    until: float = 0.0
    recent: dict[str, float] = field(default_factory=dict)  # runs that were counted, and may be met again
    runs: dict[str, int] = field(default_factory=dict)  # about, status
    retries: dict[str, int] = field(default_factory=dict)  # about
    seconds: dict[str, Histogram] = field(default_factory=dict)  # about
    queued: Histogram = field(default_factory=Histogram)
    steps: dict[str, int] = field(default_factory=dict)  # step, status
    step_retries: dict[str, int] = field(default_factory=dict)  # step
    step_seconds: dict[str, Histogram] = field(default_factory=dict)  # step

    @property
    def since(self) -> float:
        """Runs that were updated after this moment are to be given to `add`."""
        return max(0.0, self.until - OVERLAP)

    def add(self, runs: Iterable[Ended]) -> None:
        """Count runs, each once however often it is given."""
        for run in runs:
            if run.id not in self.recent and run.updated > self.since:
                self._count(run)
            self.recent[run.id] = run.updated
        self.until = max([self.until, *self.recent.values()])
        self.recent = {id_: at for id_, at in self.recent.items() if at > self.since}

    def _count(self, run: Ended) -> None:
        about = _bounded(run.about, self.seconds)
        _more(self.runs, f"{about} {run.status}", 1)
        _more(self.retries, about, int(any(tag in run.tags for tag in RETRIED)))
        timed = self.seconds.setdefault(about, Histogram())
        if run.started is not None:
            self.queued.add(run.started - run.created)
            if run.ended is not None:
                timed.add(run.ended - run.started)
        for step in run.steps:
            name = _bounded(step.name, self.step_seconds)
            _more(self.steps, f"{name} {step.status}", 1)
            _more(self.step_retries, name, step.attempts - 1)
            timed = self.step_seconds.setdefault(name, Histogram())
            if step.seconds is not None:
                timed.add(step.seconds)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "RunTotals":
        """Raises ValueError if it is none."""
        return read(cls, text)


def _bounded(name: str, known: Mapping[str, Any]) -> str:
    return name if name in known or len(known) < NAMES else OTHER


def _more(counts: dict[str, int], key: str, by: int) -> None:
    counts[key] = counts.get(key, 0) + by
