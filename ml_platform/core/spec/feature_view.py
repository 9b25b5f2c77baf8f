"""Feature views."""

from typing import Literal

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from ml_platform.core.spec.base import Described, Duration, FeatureType, ImportPath, Name, Spec
from ml_platform.core.spec.expression import read_by
from ml_platform.core.spec.resources import PodSpec


class ViewInputSpec(Spec):
    window_days: int = Field(
        ge=1,
        description="how many days the view reads, the newest known one included; for a rolling view that is its own day, "
        "or as many days before as the source is late",
    )
    quality: Literal["good", "degraded"] = Field(
        default="degraded", description="the least quality of a raw day that the view is computed from"
    )


MOST_CATEGORIES = 1_000_000  # a code is a float32 in the model's input, exact up to 16 times as many


class FeatureSpec(Spec):
    type: FeatureType = Field(default="float64", description="type of its values")
    default: float = Field(
        default=0.0,
        description="the value for an entity without a row, the same offline and online; of an expression, where it follows "
        "from a null",
    )
    description: str = Field(default="", description="what it says")
    min: float | None = Field(default=None, description="the smallest value that a day may have")
    max: float | None = Field(default=None, description="the largest value that a day may have")
    max_null_share: float = Field(
        default=1.0, ge=0, le=1, description="the largest share of rows for which the default may stand in"
    )
    expression: str | None = Field(
        default=None, description="request views: how the feature follows from row and other views"
    )
    categories: int | None = Field(
        default=None,
        ge=1,
        le=MOST_CATEGORIES,
        description="the value is a name (a number or a string that only tells apart): so many of the training rows' most "
        "frequent ones are told apart, all others are one",
    )
    length: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="a vector, such as one value for each of the last events: it has the columns <name>_1 (the newest) to "
        "<name>_<length>, each a feature like any other; not for request views",
    )
    _vector: str = PrivateAttr(default="")

    @property
    def vector(self) -> str:
        """The vector that this feature is a column of; empty if it is none."""
        return self._vector

    @model_validator(mode="after")
    def _possible(self) -> "FeatureSpec":
        if self.expression:
            read_by(self.expression)
        if self.categories and self.length:
            raise ValueError("a feature has categories or a length, not both")
        if self.categories and not self.expression and self.type != "int64":
            raise ValueError("a feature with categories that is no expression has type int64")
        return self


IS_KNOWN = FeatureSpec(description="1 where a snapshot has the entity, 0 where defaults stand in")


class FeatureViewSpec(Described):
    """Features of one kind.

    A `snapshot` view has one row per entity as of the start of day D, computed by `function` from `inputs`. A `rolling`
    view has one row per event of the source `rows` on day D, whose windows reach up to the event itself. A `request` view is
    computed from the request row and the other views' values by each feature's `expression`.
    """

    kind: Literal["snapshot", "rolling", "request"] = Field(
        default="snapshot",
        description="snapshot: a row per entity and day; rolling: a row per event; request: expressions over a request",
    )
    entity: Name | None = Field(
        default=None,
        description="the column that identifies what a snapshot row is about; a rolling view that names it sees the past of "
        "the day's entities alone, which saves time",
    )
    rows: Name | None = Field(default=None, description="rolling views: the source whose events get features")
    function: ImportPath | None = Field(default=None, description="module.function: (**view inputs) -> ibis table")
    inputs: dict[Name, ViewInputSpec] = Field(default_factory=dict, description="source name -> how far back")
    is_known: bool = Field(
        default=False,
        description="snapshot views: one feature more, <name>_is_known: 1 for entities with a row, 0 for others",
    )
    features: dict[Name, FeatureSpec] = Field(min_length=1, description="what it has, by name")
    max_psi: float = Field(
        default=0.25, gt=0, description="how far a day's distribution may lie from that of the week before, by PSI"
    )
    deadline: Duration | None = Field(
        default=None,
        description="how long a day may take to be there, from its start (snapshot) or its end (rolling); then it is late "
        "(Alerts)",
    )
    resources: PodSpec | None = Field(default=None, description="of the step that computes; default: that of all steps")

    @field_validator("features")
    @classmethod
    def _one_by_one(cls, declared: dict[str, FeatureSpec], info: ValidationInfo) -> dict[str, FeatureSpec]:
        """Vectors as their columns, and `is_known`: features in the lake, in training sets and online stores alike."""
        features: dict[str, FeatureSpec] = {}
        for name, feature in declared.items():
            if feature.length and info.data.get("kind") == "request":
                raise ValueError(f"{name}: a request view has no vectors")
            columns = [f"{name}_{n}" for n in range(1, feature.length + 1)] if feature.length else [name]
            if twice := [column for column in columns if column in features or (feature.length and column in declared)]:
                raise ValueError(f"{twice[0]} is there twice: as a column of {name} too")
            for column in columns:
                features[column] = feature.model_copy(update={"length": None})
                features[column]._vector = name if feature.length else ""
        known = f"{info.data.get('name')}_is_known"
        if info.data.get("is_known") and features.setdefault(known, IS_KNOWN) != IS_KNOWN:
            raise ValueError(f"{known} is there twice: as what is_known adds too")
        return features

    @model_validator(mode="after")
    def _complete(self) -> "FeatureViewSpec":
        needed, unwanted = {
            "snapshot": (("entity", "function", "inputs"), ("rows",)),
            "rolling": (("rows", "function", "inputs"), ("is_known",)),
            "request": ((), ("entity", "rows", "function", "inputs", "is_known", "keep_days", "deadline", "resources")),
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

    @property
    def known_feature(self) -> str | None:
        """The feature that `is_known` adds."""
        return f"{self.name}_is_known" if self.is_known else None


class OnlineStoreSpec(Spec):
    """The online store has one copy of every snapshot view; it takes no attributes."""
