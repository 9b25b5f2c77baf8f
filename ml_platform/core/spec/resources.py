"""What a step's pod gets, and how long and how often it may try."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from ml_platform.core.spec.base import Cpu, Duration, Quantity, Spec, bytes_of

# Names of Kubernetes objects, of labels and taints, and of environment variables.
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
LabelKey = Annotated[str, StringConstraints(pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")]
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
MountPath = Annotated[str, StringConstraints(pattern=r"^/[^:]+$")]

SPOT_RETRIES = 10  # of a step on nodes that may go away at any moment
SHM_OF_SEVERAL_GPUS = "1Gi"  # through /dev/shm GPUs of one node talk; containers have 64 MiB


class TolerationSpec(Spec):
    """A taint of nodes that a pod may run on all the same."""

    key: LabelKey
    value: LabelValue | None = Field(default=None, description="of the taint; default: any")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="default: any"
    )


class VolumeSpec(Spec):
    """A folder of the step's pod that is not its own: exactly one of `claim`, `config_map` and `scratch`."""

    mount: MountPath = Field(description="where the step finds it")
    claim: ObjectName | None = Field(default=None, description="a PersistentVolumeClaim")
    config_map: ObjectName | None = None
    scratch: Quantity | None = Field(default=None, description="an empty folder of at most this size")
    read_only: bool | None = Field(default=None, description="default: yes, except for scratch")
    sub_path: str | None = Field(default=None, description="the folder within the volume; default: all of it")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [name for name in ("claim", "config_map", "scratch") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError("a volume is exactly one of claim, config_map, scratch")
        return self

    @property
    def is_read_only(self) -> bool:
        return self.scratch is None if self.read_only is None else self.read_only


class SecretSpec(Spec):
    """A Kubernetes secret, as files below `mount`, or as environment variables: all of its keys, or those in `env`."""

    name: ObjectName
    mount: MountPath | None = Field(default=None, description="a folder with one file for each key")
    env: dict[Variable, str] = Field(default_factory=dict, description="variable -> key of the secret")

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _files_or_variables(self) -> Self:
        if self.mount and self.env:
            raise ValueError("a secret comes as files (mount) or as variables (env), not both; name it twice for both")
        return self


class PodSpec(Spec):
    """A pod of a step. What `profiles` of the cluster say holds unless it is said here."""

    is_whole: ClassVar[bool] = True  # and not the part of another that differs

    profiles: tuple[str, ...] = Field(
        default=(),
        description="named resources of the cluster (ml_platform.components.Cluster); of two the later counts",
    )
    cpu: Cpu = "1"
    memory: Quantity = "2Gi"
    gpu: int = Field(default=0, ge=0, le=16)
    gpu_type: tuple[LabelValue, ...] = Field(
        default=(), description="any of these values of the nodes' label for it (`gpu_type_label` of the cluster)"
    )
    shm: Quantity | None = Field(
        default=None,
        description="size of /dev/shm, of the memory; default: 1Gi with several GPUs, else the container's",
    )
    spot: bool = Field(
        default=False, description="may run on nodes that can go away at any moment (`spot` of the cluster)"
    )
    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    tolerations: tuple[TolerationSpec, ...] = ()
    volumes: tuple[VolumeSpec, ...] = ()
    secrets: tuple[SecretSpec, ...] = ()
    env: dict[Variable, str] = Field(default_factory=dict)
    image: str | None = Field(default=None, min_length=1, description="default: that of the code location")
    image_pull_secrets: tuple[ObjectName, ...] = ()
    service_account: ObjectName | None = Field(default=None, description="default: that of all runs")
    timeout: Duration = Field(
        default="24h", description="how long one try may take; a training keeps its checkpoint, a range its days"
    )
    start_timeout: Duration = Field(
        default="1h",
        description="how long its pods may wait for a node, for quota or for their image; then the try fails",
    )

    @model_validator(mode="before")
    @classmethod
    def _numbers_as_quantities(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for field in ("cpu", "memory"):
                if isinstance(values.get(field), int | float) and not isinstance(values[field], bool):
                    values = {**values, field: str(values[field])}
        return values

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.profiles or not self.is_whole:
            return self  # others say the rest; looked at again when that is in place
        if self.gpu_type and not self.gpu:
            raise ValueError("gpu_type is given but gpu is 0")
        if self.shm and bytes_of(self.shm) > bytes_of(self.memory):
            raise ValueError(f"shm ({self.shm}) is part of the memory, and more than all of it ({self.memory})")
        mounts = [one.mount for one in (*self.volumes, *self.secrets) if one.mount]
        if twice := [mount for mount in mounts if mounts.count(mount) > 1]:
            raise ValueError(f"{twice[0]} is mounted twice")
        return self

    @property
    def shm_size(self) -> str | None:
        return self.shm or (SHM_OF_SEVERAL_GPUS if self.gpu > 1 else None)

    def given(self) -> dict[str, Any]:
        """What was written down, and no defaults."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    def resolved(self, profiles: "Mapping[str, PodSpec]") -> Self:
        """With what the profiles say in place of their names.

        Raises:
            pydantic.ValidationError: if together it is impossible.
        """
        layers = [profiles[name].given() for name in self.profiles]
        merged = _merged([*layers, self.given() | {"profiles": ()}])
        return type(self).model_validate({name: merged[name] for name in merged if name in type(self).model_fields})


class RetriesSpec(Spec):
    """How often a step is tried again after trouble outside of it: after `delay`, then twice as long each time, with jitter."""

    max: int = Field(default=3, ge=0, le=20)
    delay: Duration = "2s"


class FitSpec(PodSpec):
    """The pods that fit a model."""

    processes: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="processes of each pod that fit a network together; default: one per GPU if there are several, "
        "else the step fits by itself",
    )
    nodes: int = Field(
        default=1, ge=1, le=64, description="pods that fit a network together, each with all of the above"
    )

    @property
    def launched_processes(self) -> int:
        """The processes to start beside the step; 0 if it fits by itself."""
        return self.processes or (self.gpu if self.gpu > 1 else 0)


class SizeSpec(FitSpec):
    """What a training gets whose training set has at most `up_to` bytes. What is not said here is as in `resources`."""

    is_whole: ClassVar[bool] = False

    up_to: Quantity | None = Field(default=None, description="bytes of the training set; none: however many")


class ResourcesSpec(FitSpec):
    """What a training gets, and how long and how often it may try."""

    sizes: tuple[SizeSpec, ...] = Field(
        default=(), description="by the training set's bytes: the first that is large enough; the last one has no up_to"
    )
    launcher: Literal["step", "job", "pytorchjob"] | None = Field(
        default=None,
        description="who fits: the step's own pod, or, on Kubernetes, pods of a Job or of a PyTorchJob that it starts and "
        "watches; default: job where there are sizes or several nodes, else step",
    )
    retries: RetriesSpec = RetriesSpec()
    ttl: Duration | None = Field(
        default=None, description="how long pods that have ended are kept; default: as the instance says"
    )

    @model_validator(mode="after")
    def _sizes_grow(self) -> Self:
        limits = [bytes_of(size.up_to) if size.up_to else None for size in self.sizes]
        if limits and limits[-1] is not None:
            raise ValueError("the last of sizes has no up_to: it is for whatever is larger")
        known = [limit for limit in limits[:-1] if limit is not None]
        if len(known) < len(limits) - 1 or known != sorted(set(known)):
            raise ValueError("sizes are in order of up_to, and only the last has none")
        return self

    @model_validator(mode="after")
    def _one_pod_is_no_more(self) -> Self:
        if self.launcher == "step" and (self.sizes or self.nodes > 1):
            raise ValueError("a step is one pod of one size: sizes and nodes need launcher job or pytorchjob")
        return self

    @property
    def launched_by(self) -> Literal["step", "job", "pytorchjob"]:
        several = any(size.nodes > 1 for size in (self, *self.sizes))
        return self.launcher or ("job" if self.sizes or several else "step")

    @property
    def with_gpu(self) -> bool:
        """Whether a training may get a GPU."""
        return any(size.gpu for size in (self, *self.sizes))

    @property
    def retried(self) -> RetriesSpec:
        """How often a step is really tried again."""
        if self.spot and "retries" not in self.model_fields_set:
            return RetriesSpec(max=SPOT_RETRIES)
        return self.retries

    def of_size(self, size: int) -> "ResourcesSpec":
        """With what the size at this place says; there are no sizes any more, but who fits is the same for all of them."""
        merged = _merged([self.given(), self.sizes[size].given() | {"sizes": (), "launcher": self.launched_by}])
        return ResourcesSpec.model_validate({name: merged[name] for name in merged if name != "up_to"})

    def size_for(self, training_set_bytes: int) -> int | None:
        """The place of the first size that is large enough; None if there are no sizes."""
        fitting = (
            n for n, size in enumerate(self.sizes) if not size.up_to or training_set_bytes <= bytes_of(size.up_to)
        )
        return next(fitting, None)

    def resolved(self, profiles: Mapping[str, PodSpec]) -> Self:
        whole = super().resolved(profiles)
        sizes = tuple(size.resolved(profiles) for size in whole.sizes)
        resolved = whole.model_copy(update={"sizes": sizes})
        for size in range(len(sizes)):
            resolved.of_size(size)  # it is possible
        return resolved


def _merged(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The later of two layers counts."""
    return {name: value for layer in layers for name, value in layer.items()}
