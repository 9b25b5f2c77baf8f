"""How a deployed model is watched, and what of it asks for a new training."""

from typing import Literal

from pydantic import Field

from ml_platform.core.spec.base import Duration, Name, Spec
from ml_platform.core.tasks import Metric

Trigger = Literal["drift", "estimated_performance", "realised_performance"]


class MonitoringSpec(Spec):
    """Drift, coverage, traffic and performance of each day, held to these limits."""

    automatic_days: int = Field(
        default=3,
        ge=0,
        description="the newest days, today included, that are monitored by themselves once they are scored; 0: none",
    )
    metric: Metric | None = Field(
        default=None, description="by which performance is judged; default: that of training.select_by"
    )
    slices: tuple[Name, ...] = Field(
        default=(),
        max_length=10,
        description="columns of the rows, or features, by whose values performance is judged too",
    )
    performance_days: int = Field(
        default=7, ge=1, description="days whose rows performance is judged on together, up to the newest"
    )
    min_rows: int = Field(default=200, ge=10, description="below so many rows nothing is judged")
    min_positives: int = Field(
        default=30, ge=1, description="below so many rows of the rarest class performance is not judged"
    )
    false_discovery_rate: float = Field(
        default=0.01,
        gt=0,
        lt=1,
        description="of false alarms among the alarms of a day's columns; where nothing drifts, share of days with one",
    )
    drift_psi: float = Field(
        default=0.2, ge=0, description="population stability index beyond chance that is an alarm, if it is certain"
    )
    share_change: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="difference of a view's share of known entities, or of a column's nulls, that is an alarm, if certain",
    )
    traffic_factor: float = Field(
        default=2.0,
        gt=1,
        description="times more or fewer rows than on the usual day, or times a class is more or less frequent, that are an alarm",
    )
    performance_drop: float = Field(
        default=0.1,
        gt=0,
        description="part of the metric's value on the validation rows whose loss is an alarm, if it is certain",
    )
    retrain_on: tuple[Trigger, ...] = Field(
        default=("drift", "estimated_performance", "realised_performance"),
        description="alarms that ask for a new training before it is due by cadence or schedule",
    )
    min_labelled_rows: int = Field(
        default=1_000,
        ge=1,
        description="labelled rows since an alarm began, among those to fit on, before a training can learn from it",
    )
    cooldown: Duration = Field(
        default="1d", description="time since the last training, by whatever reason, before an alarm asks for one"
    )
    max_retrains_per_week: int = Field(
        default=3, ge=0, description="trainings within seven days, by whatever reason, after which alarms ask for none"
    )
