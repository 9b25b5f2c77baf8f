"""From the body of a request to the content of its answer, and nothing of HTTP."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from ml_platform.core.errors import RequestError
from ml_platform.rollout.traffic import Arm
from ml_platform.serving.answer import Answer, Asked, Desk
from ml_platform.serving.invocations import rows_of_invocation
from ml_platform.serving.models import Serving
from ml_platform.serving.requests import rows_of

Form = Literal["predict", "invocations"]


@dataclass(frozen=True)
class Question:
    """What is asked of a model beside the rows: in which form they come, who shall answer, if anyone, and since when it waits."""

    form: Form
    request_id: str
    began: float  # on the clock of `time.perf_counter`
    arm: Arm | None = None

    async def answered(self, desk: Desk, serving: Serving, content: dict[str, Any]) -> dict[str, Any]:
        """The content of the answer.

        Raises:
            RequestError: if the content is not what the model needs.
            FeatureError: if features cannot be looked up.
        """
        if self.form == "invocations":
            rows, by_id = rows_of_invocation(content, serving.champion.checker.order), None
        else:
            if len(content) != 1 or (kind := next(iter(content))) not in ("entities", "rows"):
                raise RequestError(
                    "request body", "must have either `entities` or `rows`, and nothing else", "see /docs"
                )
            rows, by_id = rows_of(content[kind], kind), kind == "entities"
        answer = await desk.answer(serving, Asked(rows, by_id, self.request_id, self.arm, self.began))
        if self.form == "invocations":
            return {"predictions": answer.scores, **_by(answer), **_looked_up(answer)}
        model = serving.champion.version.model
        return {"model": model, **_by(answer), "scores": answer.scores, **_looked_up(answer)}


def _looked_up(answer: Answer) -> dict[str, Any]:
    """From when the features are that were looked up, how old that is in seconds, and by row the views that knew the entity."""
    if not answer.as_of:
        return {"as_of": None, "age_seconds": None, "known": None}
    now = datetime.now(UTC)
    ages = {view: round((now - as_of).total_seconds(), 3) for view, as_of in answer.as_of.items()}
    return {"as_of": answer.as_of, "age_seconds": ages, "known": answer.known}


def _by(answer: Answer) -> dict[str, Any]:
    """Who answered: version and arm of all rows, or of every row where they differ."""
    if len(set(answer.arms)) == 1:
        return {"version": answer.by[0].version.number, "arm": answer.arms[0]}
    each = [{"version": by.version.number, "arm": arm} for by, arm in zip(answer.by, answer.arms, strict=True)]
    return {"version": None, "arm": None, "answered_by": each}
