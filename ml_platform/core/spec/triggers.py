"""What asks for a training from outside, and what a message may say."""

from datetime import date
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from ml_platform.core.spec.base import Duration, Name, Spec

Topic = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,248}$")]  # as Kafka has them
OneLine = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=500)]


class TriggersSpec(Spec):
    """What asks for trainings beside what is due."""

    topic: Topic | None = Field(default=None, description="a Kafka topic whose messages ask for trainings")
    max_wait: Duration = Field(
        default="1h",
        description="how long after it was sent a message waits for its data to be ingested; then it is set aside",
    )


class TrainingMessage(Spec):
    """What a message may say, as JSON; `{}` asks for a training as of the newest date."""

    model: Name | None = Field(default=None, description="which one, where several have the topic")
    as_of: date | None = Field(default=None, description="the training date; default: the newest")
    data: OneLine | None = Field(
        default=None, description="a landed object or folder, <source>/YYYY-MM-DD[/...], that is waited for"
    )
    priority: int = Field(default=0, ge=-1_000, le=1_000, description="runs of a higher one start first")
    overrides: dict[str, Any] = Field(default_factory=dict, description="otherwise for this run, by field")
    reason: OneLine = Field(default="", description="why; it is kept with the run")
