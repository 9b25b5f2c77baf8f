"""What a model is trained on, and by whom."""

from typing import Any, Literal, get_args

from pydantic import Field

from ml_platform.core.spec.base import Cron, Name, Spec, TimeZone, TrainerName
from ml_platform.core.spec.search import SearchSpec
from ml_platform.core.tasks import Metric


class LabelSpec(Spec):
    source: Name = Field(description="the source that has it")
    column: Name = Field(description="its column there")


Overridable = Literal[
    "training.window_days",
    "training.validation_days",
    "training.embargo_days",
    "training.seed",
    "training.cold_start_share",
    "candidates",
]


class OverridesSpec(Spec):
    """What a single run may say otherwise than the file, and what becomes of its version."""

    allowed: tuple[Overridable, ...] = Field(
        default=get_args(Overridable), description="fields that a single run may change; `candidates`: their params"
    )
    promoted: bool = Field(
        default=False, description="whether a version whose run changed something becomes champion without a hand"
    )


class TrainingSpec(Spec):
    window_days: int = Field(default=28, ge=1, description="days of rows that the model is fitted on")
    validation_days: int = Field(default=7, ge=1, description="days of rows, after the embargo, that it is judged on")
    embargo_days: int | None = Field(default=None, ge=0, description="gap between the two; default: the label's delay")
    cadence: Literal["daily", "weekly", "monthly"] = Field(
        default="weekly", description="how often it is trained at most"
    )
    schedule: Cron | None = Field(
        default=None, description="in place of cadence: when it is trained as of the newest day, as five fields of cron"
    )
    time_zone: TimeZone = Field(default="UTC", description="of the schedule, such as Europe/Berlin")
    new_days: int | None = Field(
        default=None, ge=1, description="it is trained as soon as there are so many new days since the last training"
    )
    seed: int = Field(default=7, ge=0, lt=2**31, description="of everything that is drawn")
    cold_start_share: float = Field(
        default=0.02,
        ge=0,
        lt=1,
        description="of the rows to fit on, those that are shown with the defaults of some or all snapshot views, as if their "
        "entities were unknown, so that the model learns what defaults mean; drawn by the seed",
    )
    select_by: Metric | None = Field(
        default=None,
        description="the metric on the validation rows by which the best candidate is taken; default: average_precision, "
        "log_loss for several classes, rmse for regression",
    )
    overrides: OverridesSpec = Field(default=OverridesSpec(), description="what a single run may change of this file")

    def embargo(self, label_delay: int) -> int:
        """Days between the rows to fit on and those to judge by."""
        return label_delay if self.embargo_days is None else self.embargo_days

    def span_days(self, label_delay: int) -> int:
        """Days from the first of the window to the last of the validation."""
        return self.window_days + self.embargo(label_delay) + self.validation_days


class CandidateSpec(Spec):
    trainer: TrainerName = Field(description="a built-in trainer's name, or the import path of your own")
    params: dict[str, Any] = Field(
        default_factory=dict, description="of the trainer; docs/training.md has those of the built-in ones"
    )
    search: SearchSpec | None = Field(default=None, description="params that are found by trials; see docs/training.md")

    @property
    def trainers(self) -> list[str]:
        """Every trainer that it names: its own, and those of an ensemble's members."""
        members = self.params.get("members", ()) if self.trainer == "ensemble" else ()
        return [self.trainer, *(str(member["trainer"]) for member in members)]
