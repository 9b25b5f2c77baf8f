"""The evaluation report: what was measured of one candidate, and of the champion on the same rows."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from ml_platform.evaluation.metrics import binary_metrics, single_row_latency_ms
from ml_platform.registry.bundle import Bundle
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


def evaluate(
    candidate: Bundle, rows: Mapping[str, np.ndarray], champion: ChampionReport | None, training_date: str
) -> tuple[Report, np.ndarray]:
    """Measure the candidate on rows with labels; returns the report and the scores."""
    labels = rows[LABEL]
    scores = candidate.score(rows)
    report = Report(
        model=candidate.spec.name,
        training_date=training_date,
        bundle_digest=candidate.digest,
        rows=len(labels),
        positives=int(labels.sum()),
        null_predictions=int((~np.isfinite(scores)).sum()),
        latency_p99_ms=single_row_latency_ms(candidate.score, rows),
        metrics=binary_metrics(labels, scores),
        champion=champion,
    )
    return report, scores


def measure_champion(champion: Bundle, version: str, rows: Mapping[str, np.ndarray]) -> ChampionReport:
    """The champion's figures on the same rows."""
    return ChampionReport(version, binary_metrics(rows[LABEL], champion.score(rows)))
