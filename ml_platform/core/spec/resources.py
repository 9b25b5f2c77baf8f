"""What the training step gets, and how long."""

from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from ml_platform.core.spec.base import Duration, Quantity, Spec


class RetriesSpec(Spec):
    """How often a step is tried again after trouble outside of it: after `delay`, then twice as long each time, with jitter."""

    max: int = Field(default=3, ge=0, le=20)
    delay: Duration = "2s"


class ResourcesSpec(Spec):
    """What the training step gets, and how long."""

    cpu: Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?m?$")] = "1"
    memory: Quantity = "2Gi"
    gpu: int = Field(default=0, ge=0, le=16)
    gpu_type: tuple[str, ...] = Field(
        default=(), description="any of these values of the node label ml-platform/gpu-type"
    )
    processes: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="processes that fit a network together, beside the step; default: one per GPU if there are several, "
        "else the step fits by itself",
    )
    timeout: Duration | None = Field(default=None, description="how long one try may train; it keeps its checkpoint")
    retries: RetriesSpec = RetriesSpec()

    @model_validator(mode="before")
    @classmethod
    def _numbers_as_quantities(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for field in ("cpu", "memory"):
                if isinstance(values.get(field), int | float) and not isinstance(values[field], bool):
                    values = {**values, field: str(values[field])}
        return values

    @model_validator(mode="after")
    def _gpu_type_needs_gpu(self) -> "ResourcesSpec":
        if self.gpu_type and not self.gpu:
            raise ValueError("gpu_type is given but gpu is 0")
        return self

    @property
    def launched_processes(self) -> int:
        """The processes to start beside the step; 0 if it fits by itself."""
        return self.processes or (self.gpu if self.gpu > 1 else 0)
