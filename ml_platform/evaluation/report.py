"""The evaluation report: what was measured of one candidate, and of the champion on the same rows."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from ml_platform.evaluation.metrics import binary_metrics, single_row_latency_ms
from ml_platform.training.training_set import LABEL


@dataclass(frozen=True)
class ChampionReport:
    """The champion on the candidate's rows. `problem` says why it could not be measured."""

    version: str = ""
    metrics: Mapping[str, float] | None = None
    problem: str = ""


@dataclass(frozen=True)
class Report:
    """`champion` is None if the model has never had one."""

    model: str
    training_date: str
    bundle_digest: str
    rows: int
    positives: int
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
        return cls(**content, champion=champion)


Score = Callable[[Mapping[str, np.ndarray]], np.ndarray]


def evaluate(
    model: str,
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
        positives=int(labels.sum()),
        null_predictions=int((~np.isfinite(scores)).sum()),
        latency_p99_ms=single_row_latency_ms(score, rows),
        metrics=binary_metrics(labels, scores),
        champion=champion,
    )
    return report, scores


def measure_champion(version: str, score: Score, rows: Mapping[str, np.ndarray]) -> ChampionReport:
    """The champion's figures on the same rows."""
    return ChampionReport(version, binary_metrics(rows[LABEL], score(rows)))
