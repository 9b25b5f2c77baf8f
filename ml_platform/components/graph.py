"""What all assets share: keys, the daily calendar, and how they follow each other."""

from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any, ClassVar, Self

import dagster as dg
from pydantic import BaseModel

from ml_platform.core.catalog import Catalog, catalog_at
from ml_platform.core.days import ONE_DAY
from ml_platform.core.settings import load_settings
from ml_platform.core.spec import Duration, ModelSpec, PodSpec, ResourcesSpec, duration, seconds
from ml_platform.resources.cluster import pool, step_tags

# Trouble with the outside passes: S3, MLflow, the model server. Broken data does not, and raises without retry.
RETRIES = dg.RetryPolicy(max_retries=3, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)

# What was there before the sensor first looked counts as well; Dagster's own since_last_handled() forgets it.
HANDLED = dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()
# An input that is made again with the content that it had starts nothing.
_ANY_INPUT_CHANGED = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed())
_MISSING_FROM_THE_START = dg.AutomationCondition.missing() & dg.AutomationCondition.initial_evaluation()

# A day follows its inputs as soon as all of them are there and settled. Backlogs become one backfill (see automation.py).
# A partition whose blocking checks failed was never materialized, so that `missing` covers it.
FOLLOWS_INPUTS = (
    (_ANY_INPUT_CHANGED | _MISSING_FROM_THE_START).since(HANDLED)
    & ~dg.AutomationCondition.any_deps_missing()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("inputs have changed and are complete")


@dataclass
class SpecComponent(dg.Component):
    """A component whose attributes are one spec; a subclass names the spec and builds definitions from it."""

    spec: Any
    spec_class: ClassVar[type[BaseModel]]

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return cls.spec_class

    @classmethod
    def load(cls, attributes: Any, context: dg.ComponentLoadContext) -> Self:
        return cls(attributes if attributes is not None else cls.spec_class())

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return self.definitions(read_catalog())

    def definitions(self, catalog: Catalog) -> dg.Definitions:
        """What the spec makes, beside the rest of the catalog."""
        raise NotImplementedError


def read_catalog() -> Catalog:
    """All specs of the code location, read once."""
    return catalog_at(load_settings())


def asset_key(key: str) -> dg.AssetKey:
    return dg.AssetKey(key.split("/"))


@cache
def daily(first_day: date) -> dg.DailyPartitionsDefinition:
    """Days from `first_day` up to and including today: what is known at the start of today exists as of today."""
    return dg.DailyPartitionsDefinition(start_date=first_day.isoformat(), end_offset=1)


def days_back(first: int, last: int) -> dg.TimeWindowPartitionMapping:
    """Day D depends on days D-first .. D-last; days before the upstream's first one do not count as missing."""
    return dg.TimeWindowPartitionMapping(
        start_offset=-first, end_offset=-last, allow_nonexistent_upstream_partitions=True
    )


def dependency(key: str, mapping: dg.PartitionMapping | None = None) -> dg.AssetDep:
    return dg.AssetDep(asset_key(key), partition_mapping=mapping)


def days_of(context: dg.AssetExecutionContext) -> list[date]:
    """The days that this step is to make, in time order; a range run has many."""
    return sorted(date.fromisoformat(key) for key in context.partition_keys)


def training_date_of(context: dg.AssetExecutionContext) -> date:
    return date.fromisoformat(context.partition_key)


def model_attributes(spec: ModelSpec, catalog: Catalog, stage: str, *kinds: str) -> dict[str, Any]:
    """What all assets of a model have in common."""
    return {
        "partitions_def": daily(catalog.sources[spec.entity_rows].start_date),
        "group_name": spec.name,
        "kinds": set(kinds),
        "tags": {"stage": stage},
        "owners": list(spec.owners),
    }


def badge(deadline: Duration | None) -> dict[str, Any]:
    """Dagster's own mark of a daily asset with a deadline: an argument of `@dg.asset`. It goes by the last materialization
    alone, so that alerts do not rest on it."""
    if deadline is None:
        return {}
    return {"freshness_policy": dg.FreshnessPolicy.time_window(fail_window=ONE_DAY + duration(deadline))}


def pod(resources: PodSpec | None, catalog: Catalog) -> dict[str, Any]:
    """The pod of a step that does not train: arguments of `@dg.asset`."""
    return {"op_tags": step_tags(resources, catalog.cluster)} if resources else {}


def limits(resources: ResourcesSpec) -> dict[str, Any]:
    """How many such steps run at once, and how often one is tried: arguments of `@dg.asset` and `@dg.op`."""
    retries = dg.RetryPolicy(
        max_retries=resources.retried.max,
        delay=seconds(resources.retried.delay),
        backoff=dg.Backoff.EXPONENTIAL,
        jitter=dg.Jitter.PLUS_MINUS,
    )
    return {"pool": pool(resources), "retry_policy": retries}
