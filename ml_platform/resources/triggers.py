"""A training that somebody asks for, by hand or by a message: held against spec and lake, and as what Dagster is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import ONE_DAY
from ml_platform.core.errors import SpecError, TrainingError
from ml_platform.core.mistakes import nearest
from ml_platform.core.spec import ClusterSpec, ModelSpec
from ml_platform.resources.cluster import priority_tags
from ml_platform.resources.lake import Lake
from ml_platform.resources.lineage import training_fingerprint
from ml_platform.training.overrides import changes, overridden

MODEL, TRIGGER, REASON = "ml_platform/model", "ml_platform/trigger", "ml_platform/reason"  # tags of a training's run


@dataclass(frozen=True)
class Request:
    """A training as of a date; runs of a higher `priority` start first."""

    model: str
    as_of: date
    trigger: Literal["hand", "message"]
    reason: str
    priority: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def tags(self, cluster: ClusterSpec) -> dict[str, str]:
        """Of the run, beside its partition."""
        return {**tags_of(self.model, self.trigger, self.reason), **priority_tags(self.priority, cluster)}


def tags_of(model: str, trigger: str, reason: str) -> dict[str, str]:
    return {MODEL: model, TRIGGER: trigger, REASON: reason}


def training_assets(spec: ModelSpec) -> list[str]:
    """The keys of what one training makes, in order."""
    found = [keys.trials] if spec.searched else []
    nouns = (keys.training_set, *found, keys.candidate, keys.evaluation, keys.model_version, keys.deployment)
    return [noun(spec.name) for noun in nouns]


def model_named(catalog: Catalog, name: str) -> ModelSpec:
    """Raises SpecError, with the nearest name, if there is no such model."""
    if name not in catalog.models:
        known = ", ".join(catalog.models) or "there is no model"
        raise SpecError(f"model {name}", f"is not declared{nearest(name, catalog.models)}", f"one of {known}")
    return catalog.models[name]


def checked(catalog: Catalog, lake: Lake, request: Request) -> Request:
    """The request with those overrides that are some.

    Raises:
        SpecError: if a run may not say that, naming the field.
        TrainingError: if inputs of such a training are missing or out of date.
    """
    spec = model_named(catalog, request.model)
    run = overridden(spec, request.overrides)
    delay, begins = catalog.label_delay(spec), catalog.sources[spec.entity_rows].start_date
    days = run.training.span_days(delay) + delay
    if request.as_of.toordinal() - days < begins.toordinal():
        problem = f"needs {days:,} days before it, and {spec.entity_rows} begins on {begins}"
        subject = keys.partition(keys.training_set(spec.name), request.as_of)
        raise SpecError(subject, problem, "choose a later date or a smaller training.window_days")
    if training_fingerprint(lake, catalog, run, request.as_of) is None:
        raise TrainingError(
            keys.partition(keys.training_set(spec.name), request.as_of),
            f"inputs of its {run.training.span_days(delay)} days are missing or out of date",
            "ml-platform status, or another date",
        )
    return Request(spec.name, request.as_of, request.trigger, request.reason, request.priority, changes(spec, run))


def newest_date(lake: Lake, spec: ModelSpec) -> date:
    """The date as of which all that has landed of the model's rows is known.

    Raises:
        TrainingError: if nothing has.
    """
    newest = max(lake.days(keys.raw(spec.entity_rows)), default=None)
    if newest is None:
        raise TrainingError(
            keys.training_set(spec.name), f"there is nothing of {spec.entity_rows} yet", "ml-platform land, or status"
        )
    return newest + ONE_DAY
