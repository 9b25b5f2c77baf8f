"""Sources: where daily rows come from, and the contract that they honour."""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from ml_platform.core.spec.base import PAIR, Described, Duration, ImportPath, Name, Quantity, Spec
from ml_platform.core.spec.resources import PodSpec
from ml_platform.core.values import FLOATS, INTEGERS, ColumnType, Value, of_json, of_text


class ColumnSpec(Spec):
    type: ColumnType = Field(description="what its values become")
    nullable: bool = Field(default=False, description="whether a value may be missing")
    min: int | float | None = Field(default=None, description="the smallest value, of the column's type")
    max: int | float | None = Field(default=None, description="the largest value, of the column's type")
    allowed: tuple[Value, ...] | None = Field(default=None, description="the only values that may occur")

    @field_validator("min", "max", mode="before")
    @classmethod
    def _limits_are_of_the_type(cls, limit: Any, info: ValidationInfo) -> Any:
        type_ = info.data.get("type")
        if limit is None or type_ is None:
            return limit
        if type_ not in INTEGERS and type_ not in FLOATS:
            raise ValueError(f"min and max are for numbers, not for type {type_}")
        return _of_yaml(type_, limit)

    @field_validator("allowed", mode="before")
    @classmethod
    def _allowed_are_of_the_type(cls, allowed: Any, info: ValidationInfo) -> Any:
        type_ = info.data.get("type")
        if not isinstance(allowed, list | tuple) or type_ is None:
            return allowed
        return tuple(_of_yaml(type_, value) for value in allowed)


def _of_yaml(type_: ColumnType, value: Any) -> Value:
    """A value of a YAML file as one of a column's type, exactly."""
    try:
        if isinstance(value, str) and (
            type_ in INTEGERS or type_ in FLOATS
        ):  # such as 1e9, which YAML takes for a text
            found = of_json(type_, of_text("float64", value)) if "e" in value.lower() else of_text(type_, value)
        else:
            found = of_json(type_, value)
    except ValueError as error:
        hint = (
            f"; quote it: '{'no' if value is False else 'yes'}'"
            if type_ == "string" and isinstance(value, bool)
            else ""
        )
        raise ValueError(f"{value!r}: {error}{hint}") from None
    if found is None or found in (float("inf"), float("-inf")):
        raise ValueError(f"{value!r} is no limit" + "; say `nullable: true`" * (value is None))
    return found


Check = Literal[
    "everything_is_recognised",
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
UNDISCARDABLE: tuple[Check, ...] = (
    "row_count_is_normal",
    "everything_is_recognised",
)  # no row that was read is to blame


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

    min: int = Field(default=1, ge=0, description="the fewest rows of a day")
    max: int | None = Field(default=None, ge=1, description="the most rows of a day")
    recent_days: int = Field(default=14, ge=0, description="the days before that make the norm; 0: there is none")
    within: Annotated[tuple[float, float], PAIR] = Field(
        default=(0.33, 3.0), description="of the median of the recent days"
    )


class ReferenceSpec(Spec):
    """A column's values occur in a column of another source."""

    source: Name = Field(description="where the values occur")
    column: Name = Field(description="in which of its columns")
    window_days: int = Field(default=1, ge=1, description="the newest days of that source, up to the row's own day")


class ObjectsOrigin(Spec):
    """Files in the landing bucket, `<landing>/<name>/YYYY-MM-DD/<anything>.{parquet,csv,jsonl}[.gz|.zst]`."""

    type: Literal["objects"] = Field(default="objects", description="files in the landing bucket")
    max_bytes: Quantity = Field(default="20Gi", description="the largest size of one object after decompression")


class SqlOrigin(Spec):
    """A table or query of a database: day D is the rows whose event time lies in D."""

    type: Literal["sql"] = Field(description="a table of a database")
    url_variable: str = Field(
        pattern=r"^[A-Z][A-Z0-9_]*$", description="the environment variable that holds the SQLAlchemy URL"
    )
    table: str | None = Field(default=None, description="the table or view, with its schema where it has one")
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

    type: ImportPath = Field(description="import path of a class of your own, such as my_team.origins.Queue")
    options: dict[str, Any] = Field(default_factory=dict, description="the only argument that the class is made with")


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
    deadline: Duration | None = Field(
        default=None,
        description="how long after its day (and delay_days) a raw partition may take to be there; then it is late (Alerts)",
    )
    key: tuple[Name, ...] = Field(min_length=1, description="the columns that identify a row")
    event_time: Name = Field(description="the timestamp column that places a row in its day")
    columns: dict[Name, ColumnSpec] = Field(min_length=1, description="what a row has, by name")
    new_columns: Literal["ignore", "adopt"] = Field(
        default="ignore", description="what becomes of columns that are not declared"
    )
    unique_within_days: int = Field(default=1, ge=1, description="the newest days, the day included, that share no key")
    corrections: Literal["none", "latest"] = Field(
        default="none",
        description="of labels: whether a row of a later day takes the place of an earlier one with the same key",
    )
    segments: tuple[Name, ...] = Field(
        default=(),
        description="countries or the like: each lands in a folder of its own, is judged by itself, and their rows become "
        "one table with the column `segment`",
    )
    references: dict[Name, ReferenceSpec] = Field(default_factory=dict, description="column -> where its values occur")
    row_count: RowCountSpec = Field(default=RowCountSpec(), description="how many rows a day may have")
    policies: dict[Check, PolicySpec] = Field(default_factory=dict, description="check -> policy; default: stop")
    resources: PodSpec | None = Field(default=None, description="of the step that ingests; default: that of all steps")

    @property
    def horizon(self) -> int:
        """Within how many days a key is that of one row. Segments are held against each other within a day only."""
        return 1 if self.segments else self.unique_within_days

    def policy(self, check: str) -> PolicySpec:
        """The declared policy; otherwise stop, and warn where no row that was read is to blame."""
        default = PolicySpec(on_failure="warn") if check in UNDISCARDABLE else PolicySpec()
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
                raise ValueError(f"policies.{check}: no row that was read is to blame; stop or warn")
        return self
