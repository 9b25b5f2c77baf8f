"""How a new version takes over from the champion."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ml_platform.core.spec.base import Duration, Spec, duration
from ml_platform.core.tasks import Task

Strategy = Literal["all_at_once", "shadow", "canary", "ab", "ramp"]
RowMetric = Literal["brier", "log_loss", "accuracy", "mae", "mape"]
Percent = Annotated[float, Field(gt=0, le=100)]

# Metrics that are means over rows: only for those is there a test that may be looked at as often as one likes.
ROW_METRICS: dict[Task, tuple[RowMetric, ...]] = {
    "binary_classification": ("brier", "log_loss", "accuracy"),
    "multiclass_classification": ("log_loss", "accuracy"),
    "regression": ("mae", "mape"),
}
_STEPS: dict[Strategy, tuple[float, ...]] = {
    "all_at_once": (),
    "shadow": (),
    "canary": (1, 10, 50, 100),
    "ab": (50,),
    "ramp": (10, 25, 50, 75, 100),
}


@dataclass(frozen=True)
class Stage:
    """What one step gives to the new version: a share of the entities, or, as a shadow, a copy of all requests."""

    share: float
    shadow: bool = False

    def __str__(self) -> str:
        return "shadow" if self.shadow else f"{100 * self.share:g} %"


class MetricLimitSpec(Spec):
    """A metric of the labelled requests, champion against new version."""

    name: RowMetric = Field(description="a metric that is a mean over rows")
    worse_by: float = Field(default=0.0, ge=0, description="how much worse the new version may certainly be")


class AbortSpec(Spec):
    """What ends a rollout early. Each is judged by a test that may be looked at any number of times."""

    error_rate: float | None = Field(default=None, gt=0, lt=1, description="share of requests that fail")
    latency_p99_ms: float | None = Field(
        default=None, gt=0, description="milliseconds that the 99th percentile of an answer takes at most"
    )
    score_psi: float | None = Field(
        default=None, gt=0, description="shift of the scores against the champion's, by PSI"
    )
    metric: MetricLimitSpec | None = Field(
        default=None, description="a metric on labels that have come, held against the champion's"
    )

    @property
    def limits(self) -> int:
        """How many there are."""
        return sum(getattr(self, name) is not None for name in type(self).model_fields)


class RolloutSpec(Spec):
    """How a version that passed its gates becomes champion: at once, or in steps that are watched."""

    strategy: Strategy = Field(default="all_at_once", description="how a new version takes over")
    steps: tuple[Percent, ...] = Field(
        default=(), description="per cent of the entities, ascending; default: by strategy; after a shadow: none"
    )
    bake: Duration = Field(default="10m", description="how long a step lasts at least")
    max_wait: Duration = Field(
        default="1d", description="how long a step may take; then the rollout is over, and the champion stays"
    )
    min_requests: int = Field(default=200, ge=1, description="of the new version, before a step may end")
    min_labels: int = Field(default=0, ge=0, description="labelled requests of the new version, before a step may end")
    confidence: float = Field(
        default=0.99,
        gt=0.5,
        lt=1,
        description="that a rollout which is ended early had a reason; for A/B, that the better wins",
    )
    abort_if: AbortSpec = Field(default=AbortSpec(), description="what ends a rollout")

    @model_validator(mode="after")
    def _steps_fit_the_strategy(self) -> "RolloutSpec":
        if list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"steps: {list(self.steps)} do not ascend")
        given = [n for n, f in type(self).model_fields.items() if n != "strategy" and getattr(self, n) != f.default]
        if self.strategy == "all_at_once" and given:
            raise ValueError(f"strategy all_at_once takes no {', '.join(given)}; choose shadow, canary, ab or ramp")
        if self.strategy == "ab" and (len(self.shares) != 1 or self.shares[0] == 1):
            raise ValueError("steps: strategy ab has one step, below 100")
        if self.strategy == "ab" and self.abort_if.metric is None:
            raise ValueError("strategy ab is decided by a metric: name it in abort_if.metric")
        if duration(self.max_wait) < duration(self.bake):
            raise ValueError(f"max_wait: {self.max_wait} is shorter than bake, {self.bake}")
        return self

    @property
    def shares(self) -> tuple[float, ...]:
        """Of each step, between 0 and 1."""
        return tuple(percent / 100 for percent in self.steps or _STEPS[self.strategy])

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The steps in order; after the last the version becomes champion. None: it becomes champion at once."""
        watched = (Stage(0.0, shadow=True),) if self.strategy == "shadow" else ()
        return (*watched, *(Stage(share) for share in self.shares))

    @property
    def alpha(self) -> float:
        """The error that each test of each step may make, so that the whole rollout keeps its confidence."""
        return (1 - self.confidence) / max(1, self.abort_if.limits * len(self.stages))
