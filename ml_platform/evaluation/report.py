"""The evaluation report: what was measured of one candidate, and of the champion on the same rows."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from ml_platform.core.tasks import Task
from ml_platform.evaluation.metrics import measure, single_row_latency_ms
from ml_platform.training.training_set import LABEL


@dataclass(frozen=True)
class ChampionReport:
    """The champion on the candidate's rows. `problem` says why it could not be measured."""

    version: str = ""
    metrics: Mapping[str, float] | None = None
    problem: str = ""


@dataclass(frozen=True)
class Report:
    """`class_rows`: how many rows have the label 0, 1, ...; empty for regression. `champion`: None if there never was one."""

    model: str
    training_date: str
    bundle_digest: str
    rows: int
    class_rows: tuple[int, ...]
    null_predictions: int
    latency_p99_ms: float
    metrics: Mapping[str, float]
    champion: ChampionReport | None

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Report":
        content = json.loads(text)
        champion = ChampionReport(**content.pop("champion")) if content["champion"] else content.pop("champion")
        content["class_rows"] = tuple(content["class_rows"])
        return cls(**content, champion=champion)


Score = Callable[[Mapping[str, np.ndarray]], np.ndarray]


def evaluate(
    model: str,
    task: Task,
    training_date: str,
    bundle_digest: str,
    score: Score,
    rows: Mapping[str, np.ndarray],
    champion: ChampionReport | None,
) -> tuple[Report, np.ndarray]:
    """Measure a candidate's `score` on rows with labels; returns the report and the scores."""
    labels = rows[LABEL]
    scores = score(rows)
    report = Report(
        model=model,
        training_date=training_date,
        bundle_digest=bundle_digest,
        rows=len(labels),
        class_rows=class_rows(task, labels),
        null_predictions=int((~finite_rows(scores)).sum()),
        latency_p99_ms=single_row_latency_ms(score, rows),
        metrics=measure(task, labels, scores),
        champion=champion,
    )
    return report, scores


def measure_champion(version: str, task: Task, score: Score, rows: Mapping[str, np.ndarray]) -> ChampionReport:
    """The champion's figures on the same rows."""
    return ChampionReport(version, measure(task, rows[LABEL], score(rows)))


def class_rows(task: Task, labels: np.ndarray) -> tuple[int, ...]:
    """How many rows each class has; empty for regression."""
    if task == "regression":
        return ()
    return tuple(np.bincount(labels.astype(np.int64), minlength=2).tolist())


def finite_rows(scores: np.ndarray) -> np.ndarray:
    """Bool [rows]: whether all scores of the row are finite numbers."""
    return np.all(np.isfinite(scores).reshape(len(scores), -1), axis=1)
