"""Specs: what the YAML files may say. Each class is the schema of one component's `attributes`."""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag, model_validator

from ml_platform.core.tasks import METRICS, SELECT_BY, Metric, Task

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti|k|M|G|T)?$")]
Duration = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*[smhd]$")]
ImportPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")]
TrainerName = Annotated[str, StringConstraints(pattern=r"^([a-z][a-z0-9_]*|[A-Za-z_]\w*(\.[A-Za-z_]\w*)+)$")]
ColumnType = Literal["int8", "int16", "int32", "int64", "float32", "float64", "bool", "string", "timestamp"]
FeatureType = Literal["int64", "float64"]


_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def bytes_of(quantity: str) -> int:
    """A quantity such as 20Gi in bytes."""
    number = quantity.rstrip("".join(_UNITS))
    return int(float(number) * _UNITS.get(quantity[len(number) :], 1))


class Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Described(Spec):
    name: Name
    description: str = ""
    owners: tuple[str, ...] = Field(default=(), description="e-mail addresses or team:names")
    keep_days: int | None = Field(
        default=None, ge=1, description="how many of the newest days are kept; default: all (ml-platform retention)"
    )


# --- sources ----------------------------------------------------------------------------------------------------------


class ColumnSpec(Spec):
    type: ColumnType
    nullable: bool = False
    min: float | None = None
    max: float | None = None
    allowed: tuple[Any, ...] | None = Field(default=None, description="the only values that may occur")

    @model_validator(mode="after")
    def _only_numbers_have_ranges(self) -> "ColumnSpec":
        if (self.min is not None or self.max is not None) and self.type in ("bool", "string", "timestamp"):
            raise ValueError(f"min and max are for numbers, not for type {self.type}")
        return self


Check = Literal[
    "objects_are_readable",
    "schema_conforms",
    "values_fit_their_types",
    "required_values_are_present",
    "values_are_allowed",
    "event_times_are_in_partition",
    "keys_are_unique",
    "references_exist",
    "row_count_is_normal",
]
OBJECT_CHECKS: tuple[Check, ...] = ("objects_are_readable", "schema_conforms")
UNTYPED: tuple[Check, ...] = (*OBJECT_CHECKS, "values_fit_their_types")  # what breaks them has no typed rows to write
UNDISCARDABLE: tuple[Check, ...] = ("row_count_is_normal",)  # no single row is to blame


SEGMENT = "segment"
RESERVED = ("file_row_number",)  # DuckDB's own name for where a row lies


class PolicySpec(Spec):
    """What becomes of a day that breaks a check."""

    on_failure: Literal["stop", "quarantine", "warn"] = Field(
        default="stop", description="write nothing; write the day without what offends; write all and warn"
    )
    up_to: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="the largest share of the day's rows (or objects) that quarantine takes; more stops the day",
    )


class RowCountSpec(Spec):
    """How many rows a day may have."""

    min: int = Field(default=1, ge=0)
    max: int | None = Field(default=None, ge=1)
    recent_days: int = Field(default=14, ge=0, description="the days before that make the norm; 0: there is none")
    within: tuple[float, float] = Field(default=(0.33, 3.0), description="of the median of the recent days")


class ReferenceSpec(Spec):
    """A column's values occur in a column of another source."""

    source: Name
    column: Name
    window_days: int = Field(default=1, ge=1, description="the newest days of that source, up to the row's own day")


class ObjectsOrigin(Spec):
    """Files in the landing bucket, `<landing>/<name>/YYYY-MM-DD/<anything>.{parquet,csv,jsonl}[.gz|.zst]`."""

    type: Literal["objects"] = "objects"
    max_bytes: Quantity = Field(default="20Gi", description="the largest size of one object after decompression")


class SqlOrigin(Spec):
    """A table or query of a database: day D is the rows whose event time lies in D."""

    type: Literal["sql"]
    url_variable: str = Field(
        pattern=r"^[A-Z][A-Z0-9_]*$", description="the environment variable that holds the SQLAlchemy URL"
    )
    table: str | None = None
    query: str | None = Field(default=None, description="a SELECT without semicolon; it may be anything but daily")
    changed_at: Name | None = Field(
        default=None, description="a column that grows when a row changes; without it only row counts are compared"
    )

    @model_validator(mode="after")
    def _table_or_query(self) -> "SqlOrigin":
        if (self.table is None) == (self.query is None):
            raise ValueError("an sql origin has either table or query")
        return self


class PluginOrigin(Spec):
    """A class of your own, by import path; see Origin in ml_platform/data/landing.py."""

    type: ImportPath
    options: dict[str, Any] = Field(default_factory=dict)


def _kind_of_origin(value: Any) -> str:
    kind = value.get("type", "objects") if isinstance(value, dict) else getattr(value, "type", "")
    return kind if kind in ("objects", "sql") else "plugin"


OriginSpec = Annotated[
    Annotated[ObjectsOrigin, Tag("objects")]
    | Annotated[SqlOrigin, Tag("sql")]
    | Annotated[PluginOrigin, Tag("plugin")],
    Discriminator(_kind_of_origin),
]


class SourceSpec(Described):
    """A daily feed of rows, known `delay_days` after its day has ended, and the contract that they have to honour."""

    origin: OriginSpec = Field(default=ObjectsOrigin(), description="where the rows come from")
    start_date: date = Field(description="the first day that the source has")
    delay_days: int = Field(
        default=0, ge=0, description="how many days after its day a partition is known; labels are late"
    )
    key: tuple[Name, ...] = Field(min_length=1, description="the columns that identify a row")
    event_time: Name = Field(description="the timestamp column that places a row in its day")
    columns: dict[Name, ColumnSpec] = Field(min_length=1)
    new_columns: Literal["ignore", "adopt"] = Field(
        default="ignore", description="what becomes of columns that are not declared"
    )
    unique_within_days: int = Field(default=1, ge=1, description="the newest days, the day included, that share no key")
    segments: tuple[Name, ...] = Field(
        default=(),
        description="countries or the like: each lands in a folder of its own, is judged by itself, and their rows become "
        "one table with the column `segment`",
    )
    references: dict[Name, ReferenceSpec] = Field(default_factory=dict, description="column -> where its values occur")
    row_count: RowCountSpec = RowCountSpec()
    policies: dict[Check, PolicySpec] = Field(default_factory=dict, description="check -> policy; default: stop")

    def policy(self, check: str) -> PolicySpec:
        """The declared policy; otherwise stop, and warn for the row count."""
        default = PolicySpec(on_failure="warn") if check == "row_count_is_normal" else PolicySpec()
        return self.policies.get(check, default)  # type: ignore[call-overload]  # any other name has the default

    @model_validator(mode="after")
    def _columns_exist(self) -> "SourceSpec":
        for name in (*self.key, self.event_time):
            if name not in self.columns:
                raise ValueError(f"column {name!r} is not among columns: {', '.join(self.columns)}")
        if nullable := [name for name in self.key if self.columns[name].nullable]:
            raise ValueError(f"key column {nullable[0]!r} may not be nullable")
        if reserved := [name for name in RESERVED if name in self.columns]:
            raise ValueError(f"no column may be called {reserved[0]!r}")
        for name in self.references:
            if name not in self.columns:
                raise ValueError(f"references: column {name!r} is not among columns: {', '.join(self.columns)}")
        if self.columns[self.event_time].type != "timestamp":
            raise ValueError(f"event_time column {self.event_time!r} must have type timestamp")
        return self

    @model_validator(mode="after")
    def _segments_are_possible(self) -> "SourceSpec":
        if self.segments and isinstance(self.origin, SqlOrigin):
            raise ValueError("segments are folders of files; an sql origin has none")
        if self.segments and SEGMENT in self.columns:
            raise ValueError(f"column {SEGMENT!r} is what a source with segments gets by itself")
        return self

    @model_validator(mode="after")
    def _policies_are_possible(self) -> "SourceSpec":
        for check, policy in self.policies.items():
            if policy.on_failure == "warn" and check in UNTYPED:
                raise ValueError(f"policies.{check}: what has no typed rows cannot be written with a warning")
            if policy.on_failure == "quarantine" and check in UNDISCARDABLE:
                raise ValueError(f"policies.{check}: no single row is to blame; stop or warn")
        return self


# --- features ---------------------------------------------------------------------------------------------------------


class ViewInputSpec(Spec):
    window_days: int = Field(
        ge=1,
        description="how many days the view reads, the newest known one included; for a rolling view that is its own day, "
        "or as many days before as the source is late",
    )
    quality: Literal["good", "degraded"] = Field(
        default="degraded", description="the least quality of a raw day that the view is computed from"
    )


class FeatureSpec(Spec):
    type: FeatureType = "float64"
    default: float = Field(
        default=0.0, description="the value for an entity without a row, the same offline and online"
    )
    description: str = ""
    min: float | None = None
    max: float | None = None
    max_null_share: float = Field(
        default=1.0, ge=0, le=1, description="the largest share of rows for which the default may stand in"
    )
    expression: str | None = Field(
        default=None, description="request views: how the feature follows from row and other views"
    )


class FeatureViewSpec(Described):
    """Features of one kind.

    A `snapshot` view has one row per entity as of the start of day D, computed by `function` from `inputs`. A `rolling`
    view has one row per event of the source `rows` on day D, whose windows reach up to the event itself. A `request` view is
    computed from the request row and the other views' values by each feature's `expression`.
    """

    kind: Literal["snapshot", "rolling", "request"] = "snapshot"
    entity: Name | None = Field(
        default=None,
        description="the column that identifies what a snapshot row is about; a rolling view that names it sees the past of "
        "the day's entities alone, which saves time",
    )
    rows: Name | None = Field(default=None, description="rolling views: the source whose events get features")
    function: ImportPath | None = Field(default=None, description="module.function: (**view inputs) -> ibis table")
    inputs: dict[Name, ViewInputSpec] = Field(default_factory=dict, description="source name -> how far back")
    features: dict[Name, FeatureSpec] = Field(min_length=1)
    max_psi: float = Field(
        default=0.25, gt=0, description="how far a day's distribution may lie from that of the week before, by PSI"
    )

    @model_validator(mode="after")
    def _complete(self) -> "FeatureViewSpec":
        needed, unwanted = {
            "snapshot": (("entity", "function", "inputs"), ("rows",)),
            "rolling": (("rows", "function", "inputs"), ()),
            "request": ((), ("entity", "rows", "function", "inputs", "keep_days")),
        }[self.kind]
        if missing := [field for field in needed if not getattr(self, field)]:
            raise ValueError(f"a {self.kind} view needs {', '.join(missing)}")
        if given := [field for field in unwanted if getattr(self, field)]:
            raise ValueError(f"a {self.kind} view has no {', '.join(given)}")
        with_expression = [name for name, feature in self.features.items() if feature.expression]
        if self.kind != "request" and with_expression:
            raise ValueError(f"expression belongs to request views only, not to {', '.join(with_expression)}")
        if self.kind == "request" and (without := [name for name in self.features if name not in with_expression]):
            raise ValueError(f"a request view needs an expression for {', '.join(without)}")
        limited = [n for n, f in self.features.items() if {"min", "max", "max_null_share"} & f.model_fields_set]
        if self.kind == "request" and limited:
            raise ValueError(
                f"min, max and max_null_share are for features with a partition, not for {', '.join(limited)}"
            )
        if self.rows and self.rows not in self.inputs:
            raise ValueError(f"inputs has no {self.rows}, whose events get features")
        return self


class OnlineStoreSpec(Spec):
    """The online store has one copy of every snapshot view; it takes no attributes."""


# --- models -----------------------------------------------------------------------------------------------------------


class LabelSpec(Spec):
    source: Name
    column: Name


class TrainingSpec(Spec):
    window_days: int = Field(default=28, ge=1, description="days of rows that the model is fitted on")
    validation_days: int = Field(default=7, ge=1, description="days of rows, after the embargo, that it is judged on")
    embargo_days: int | None = Field(default=None, ge=0, description="gap between the two; default: the label's delay")
    cadence: Literal["daily", "weekly", "monthly"] = "weekly"
    seed: int = Field(default=7, ge=0, lt=2**31)
    select_by: Metric | None = Field(
        default=None,
        description="the metric on the validation rows by which the best candidate is taken; default: average_precision, "
        "log_loss for several classes, rmse for regression",
    )


class CandidateSpec(Spec):
    trainer: TrainerName = Field(description="a built-in trainer's name, or the import path of your own")
    params: dict[str, Any] = Field(default_factory=dict)


class ResourcesSpec(Spec):
    """What the training step gets on a cluster."""

    cpu: Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?m?$")] = "1"
    memory: Quantity = "2Gi"
    gpu: int = Field(default=0, ge=0, le=16)
    gpu_type: tuple[str, ...] = Field(
        default=(), description="any of these values of the node label ml-platform/gpu-type"
    )
    timeout: Duration | None = None

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


BuiltInCheck = Literal["no_null_predictions", "prediction_latency_p99_ms", "min_class_ratio"]


class GateSpec(Spec):
    """One condition that a candidate meets before it is registered: on a metric, or a built-in check."""

    metric: Metric | None = None
    check: BuiltInCheck | None = None
    min: float | None = None
    max: float | None = None
    better_than_champion_by: float | None = Field(default=None, description="the least gain over the deployed model")

    @model_validator(mode="after")
    def _one_condition(self) -> "GateSpec":
        if (self.metric is None) == (self.check is None):
            raise ValueError("a gate has either metric or check")
        limits = [name for name in ("min", "max", "better_than_champion_by") if getattr(self, name) is not None]
        allowed = {
            "no_null_predictions": [],
            "prediction_latency_p99_ms": ["max"],
            "min_class_ratio": ["min"],
        }
        if self.check is not None:
            if limits != allowed[self.check]:
                raise ValueError(f"check {self.check} takes {' and '.join(allowed[self.check]) or 'no limit'}")
        elif len(limits) != 1:
            raise ValueError("a metric gate has exactly one of min, max, better_than_champion_by")
        return self

    @property
    def name(self) -> str:
        """The gate as a sentence that is true when it passed; the name of its asset check."""
        if self.check == "prediction_latency_p99_ms":
            return "prediction_latency_is_within_limit"
        if self.check == "min_class_ratio":
            return "class_ratio_is_above_minimum"
        if self.check is not None:
            return self.check
        if self.better_than_champion_by is not None:
            return f"beats_champion_on_{self.metric}"
        return f"{self.metric}_is_above_minimum" if self.min is not None else f"{self.metric}_is_below_maximum"

    @property
    def sentence(self) -> str:
        """The gate in words, with its limit."""
        if self.check == "no_null_predictions":
            return "Every prediction is a finite number."
        subject = {
            "prediction_latency_p99_ms": "The 99th percentile of a single prediction's latency in ms",
            "min_class_ratio": "The share of the rarest class among the validation rows",
        }.get(self.check or "", f"{self.metric} on the validation rows")
        if self.better_than_champion_by is not None:
            return (
                f"{subject} is at least {self.better_than_champion_by:g} better than the champion's on the same rows."
            )
        return f"{subject} is at {f'least {self.min:g}' if self.min is not None else f'most {self.max:g}'}."


class ModelSpec(Described):
    task: Task = "binary_classification"
    entity_rows: Name = Field(description="the source whose rows are scored: one training row each")
    label: LabelSpec
    features: tuple[Name, ...] = Field(min_length=1, description="names of feature views")
    training: TrainingSpec = TrainingSpec()
    candidates: tuple[CandidateSpec, ...] = Field(
        min_length=1, description="trained side by side on the same rows; the best by training.select_by is taken"
    )
    resources: ResourcesSpec = ResourcesSpec()
    gates: tuple[GateSpec, ...] = Field(
        default=(GateSpec(check="no_null_predictions"),), description="what a candidate passes to be registered"
    )

    @model_validator(mode="after")
    def _gates_differ(self) -> "ModelSpec":
        names = [gate.name for gate in self.gates]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two gates say the same: {', '.join(sorted(twice))}")
        return self

    @model_validator(mode="after")
    def _metrics_are_of_the_task(self) -> "ModelSpec":
        named = {"training.select_by": self.training.select_by}
        named |= {f"gates.{position}.metric": gate.metric for position, gate in enumerate(self.gates)}
        for field, metric in named.items():
            if metric is not None and metric not in METRICS[self.task]:
                raise ValueError(f"{field}: {metric} is no metric of {self.task}; {', '.join(METRICS[self.task])} are")
        if self.task == "regression" and any(gate.check == "min_class_ratio" for gate in self.gates):
            raise ValueError("gates: min_class_ratio is for classes, and regression has none")
        return self

    @property
    def select_by(self) -> Metric:
        """The metric by which the best candidate is taken."""
        return self.training.select_by or SELECT_BY[self.task]


class AutomationSpec(Spec):
    """The sensors that move everything; their pace in seconds."""

    arrival_interval: int = Field(default=10, ge=1)
    lists_per_tick: int = Field(
        default=5,
        ge=1,
        description="LIST calls (or queries) of one look at all sources; more find old overwrites sooner",
    )
    freshness_interval: int = Field(default=10, ge=1)
    retrain_interval: int = Field(default=10, ge=1)
