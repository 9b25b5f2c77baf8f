"""The pace of the sensors."""

from pydantic import Field

from ml_platform.core.spec.base import Spec


class AutomationSpec(Spec):
    """The sensors that move everything; their pace in seconds."""

    arrival_interval: int = Field(default=10, ge=1, description="seconds between looks at what has landed")
    lists_per_tick: int = Field(
        default=5,
        ge=1,
        description="LIST calls (or queries) of one look at all sources; more find old overwrites sooner",
    )
    freshness_interval: int = Field(default=10, ge=1, description="seconds between looks at what follows its inputs")
    retrain_interval: int = Field(default=10, ge=1, description="seconds between looks at what is due to be trained")
    kafka_interval: int = Field(default=10, ge=1, description="seconds between looks at topics that ask for trainings")
    rollout_interval: int = Field(default=15, ge=1, description="seconds between looks at rollouts")
    recovery_interval: int = Field(default=15, ge=1, description="looks for what runs should have made and did not")
