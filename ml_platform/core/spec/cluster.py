"""The Kubernetes cluster, as far as model files would otherwise repeat it."""

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from ml_platform.core.spec.base import Spec
from ml_platform.core.spec.resources import LabelKey, LabelValue, PodSpec, ResourcesSpec, TolerationSpec

ProfileName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*$", max_length=60)]


class SpotSpec(Spec):
    """How pods get onto nodes that can go away at any moment."""

    tolerations: tuple[TolerationSpec, ...] = Field(
        default=(TolerationSpec(key="ml-platform/spot"),), description="taints of such nodes"
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, description="labels of such nodes; default: pods with `spot` may run on any node"
    )


class PricesSpec(Spec):
    """What an hour costs of whatever a pod asks for, in one currency. Steps are paid for by what they request."""

    currency: str = Field(default="EUR", min_length=1, max_length=12, description="as it is shown")
    cpu: float = Field(default=0.0, ge=0, description="of a processor")
    memory: float = Field(default=0.0, ge=0, description="of a GiB of memory")
    gpu: float = Field(default=0.0, ge=0, description="of a device for which `gpu_types` says nothing")
    gpu_types: dict[LabelValue, float] = Field(
        default_factory=dict,
        description="of a device, by `gpu_type`; of several that a step may get, the dearest counts",
    )
    spot: float = Field(default=1.0, gt=0, le=1, description="the part that is paid on nodes that can go away")
    model_server: float = Field(
        default=0.0, ge=0, description="of the whole model server, all replicas; models share it by their answers"
    )


class ClusterSpec(Spec):
    gpu_resource: LabelKey = Field(
        default="nvidia.com/gpu", description="what nodes with GPUs advertise, and are tainted with"
    )
    gpu_type_label: LabelKey = Field(
        default="ml-platform/gpu-type",
        description="the nodes' label that `gpu_type` is a value of, such as nvidia.com/gpu.product",
    )
    spot: SpotSpec = Field(default=SpotSpec(), description="what tells nodes that can go away at any moment")
    steps: PodSpec = Field(
        default=PodSpec(cpu="250m"),
        description="what a step gets for which nothing is said: no profiles, they are for those",
    )
    prices: PricesSpec | None = Field(
        default=None, description="for `ml-platform cost` and the metrics of what is spent"
    )
    profiles: dict[ProfileName, ResourcesSpec] = Field(
        default_factory=dict, description="resources by name, for `profiles` of sources, feature views and models"
    )
    priority_classes: dict[LabelKey, int] = Field(
        default_factory=dict,
        description="Kubernetes PriorityClass -> the priority of a run from which its pods are of this class; default: none",
    )

    @model_validator(mode="after")
    def _steps_stand_alone(self) -> "ClusterSpec":
        if self.steps.profiles:
            raise ValueError("steps: it has no profiles")
        return self

    @model_validator(mode="after")
    def _profiles_stand_alone(self) -> "ClusterSpec":
        for name, profile in self.profiles.items():
            if given := {"profiles", "sizes"} & profile.model_fields_set:
                raise ValueError(f"profiles.{name}: a profile has no {min(given)}")
        return self
