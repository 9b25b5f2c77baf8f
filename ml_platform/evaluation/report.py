"""The evaluation report: what was measured of one candidate, and of the champion on the same rows.

It holds all that the gates need, the bootstrap's draws included, so that they can be judged again, with other limits too.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from ml_platform.core.records import read
from ml_platform.core.spec import ModelSpec
from ml_platform.core.tasks import Task
from ml_platform.evaluation.figures import Figure, figures
from ml_platform.evaluation.metrics import measure, single_row_latency_ms
from ml_platform.evaluation.soundness import Finding, Score, findings
from ml_platform.training.training_set import LABEL


@dataclass(frozen=True)
class ChampionReport:
    """The champion on the candidate's rows. `problem` says why it could not be measured."""

    version: str = ""
    metrics: Mapping[str, float] | None = None
    problem: str = ""


@dataclass(frozen=True)
class Report:
    """`class_rows`: how many rows have the label 0, 1, ...; empty for regression. `champion`: None if there never was one.

    `figures` are by `GateSpec.figure`, `findings` by the name of the check.
    """

    model: str
    training_date: str
    bundle_digest: str
    rows: int
    class_rows: tuple[int, ...]
    null_predictions: int
    latency_p99_ms: float
    metrics: Mapping[str, float]
    champion: ChampionReport | None
    figures: Mapping[str, Figure] = field(default_factory=dict)
    findings: Mapping[str, Finding] = field(default_factory=dict)

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Report":
        return read(cls, text)


@dataclass(frozen=True)
class Champion:
    """The deployed model as the candidate meets it; `problem` says why it cannot score."""

    version: str = ""
    score: Score | None = None
    problem: str = ""


@dataclass(frozen=True)
class Evaluation:
    """The report, and the scores for whoever wants to look at them."""

    report: Report
    labels: np.ndarray
    scores: np.ndarray
    champion_scores: np.ndarray | None


def evaluate(
    spec: ModelSpec,
    training_date: str,
    bundle_digest: str,
    score: Score,
    reloaded: Callable[[], Score],
    more: Mapping[str, Finding],
    rows: Mapping[str, np.ndarray],
    champion: Champion | None,
) -> Evaluation:
    """Measure a candidate on rows with labels, and the champion on the same rows.

    Args:
        reloaded: saves and loads the candidate, and gives its `score`.
        more: what was found that takes more than scores of these rows, by the name of the check.
        champion: None if there never was one.
    """
    labels = rows[LABEL]
    scores = score(rows) if len(labels) else np.zeros(0)
    theirs, their_scores = _measured(champion, spec.task, rows) if champion else (None, None)
    report = Report(
        model=spec.name,
        training_date=training_date,
        bundle_digest=bundle_digest,
        rows=len(labels),
        class_rows=class_rows(spec.task, labels),
        null_predictions=int((~finite_rows(scores)).sum()),
        latency_p99_ms=single_row_latency_ms(score, rows) if len(labels) else float("nan"),
        metrics=measure(spec.task, labels, scores),
        champion=theirs,
        figures=figures(spec.gates, spec.task, rows, scores, their_scores, spec.training.seed),
        findings={**(findings(score, reloaded, rows) if len(labels) else {}), **more},
    )
    return Evaluation(report, labels, scores, their_scores)


def _measured(
    champion: Champion, task: Task, rows: Mapping[str, np.ndarray]
) -> tuple[ChampionReport, np.ndarray | None]:
    """The champion's figures and scores on the same rows; with the problem if it cannot score them."""
    if champion.score is None:
        return ChampionReport(champion.version, None, champion.problem), None
    try:
        scores = champion.score(rows)
        return ChampionReport(champion.version, measure(task, rows[LABEL], scores)), scores
    except Exception as error:  # noqa: BLE001  # rows that it does not know: the gates say no, and this is why
        return ChampionReport(champion.version, None, f"it cannot score: {type(error).__name__}: {error}"), None


def class_rows(task: Task, labels: np.ndarray) -> tuple[int, ...]:
    """How many rows each class has; empty for regression."""
    if task == "regression":
        return ()
    return tuple(np.bincount(labels.astype(np.int64), minlength=2).tolist())


def finite_rows(scores: np.ndarray) -> np.ndarray:
    """Bool [rows]: whether all scores of the row are finite numbers."""
    of_row = int(np.prod(scores.shape[1:]))  # reshape finds no -1 where there are no rows
    return np.all(np.isfinite(scores.reshape(len(scores), of_row)), axis=1)
