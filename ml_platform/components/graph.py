"""What all assets share: keys, the daily calendar, how they follow each other, and how they report."""

import base64
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any, ClassVar, Self

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData
from dagster._core.definitions.data_version import DATA_VERSION_TAG, extract_data_version_from_entry
from pydantic import BaseModel

from ml_platform.core.catalog import Catalog, catalog_at
from ml_platform.core.days import ONE_DAY
from ml_platform.core.errors import BundleError, DeploymentError, FeatureError, Interrupted, SpecError, TrainingError
from ml_platform.core.settings import load_settings
from ml_platform.core.spec import Duration, ModelSpec, PodSpec, ResourcesSpec, duration, seconds
from ml_platform.core.threads import cores, limited, share
from ml_platform.resources.cluster import pool, step_tags
from ml_platform.resources.lake import Manifest
from ml_platform.resources.stopping import Stop, stoppable

TOO_MANY_ERRORS = 3  # days of one step; then it is not about the days
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
        return self.definitions()

    def definitions(self) -> dg.Definitions:
        """What the spec makes, beside the rest of the catalog."""
        raise NotImplementedError


def read_catalog() -> Catalog:
    """All specs of the code location, read once."""
    return catalog_at(load_settings())


def asset_key(key: str) -> dg.AssetKey:
    return dg.AssetKey(key.split("/"))


# Another try of a step can change nothing about them.
MISTAKES = (SpecError, FeatureError, TrainingError, BundleError, DeploymentError)


@contextmanager
def mistakes_are_final() -> Iterator[None]:
    """Fail a step without retry where another try can change nothing."""
    try:
        yield
    except MISTAKES as error:
        raise dg.Failure(str(error), allow_retries=False) from error


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


@dataclass(frozen=True)
class CheckOutcome:
    """One check's result for one day, ready to report."""

    name: str
    passed: bool
    description: str = ""
    metadata: Mapping[str, Any] | None = None
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR

    def result(self) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            check_name=self.name,
            passed=self.passed,
            description=self.description or None,
            metadata=dict(self.metadata or {}),
            severity=self.severity,
        )


@dataclass(frozen=True)
class DayOutcome:
    """What became of one day: its metadata if it was written, and its checks.

    The `content_hash` is the partition's data version. An `unchanged` day was written with the content that it had before.
    """

    day: date
    metadata: Mapping[str, Any] | None
    checks: tuple[CheckOutcome, ...] = ()
    content_hash: str = ""
    unchanged: bool = False

    @classmethod
    def written(
        cls, day: date, manifest: Manifest, before: Manifest | None, checks: tuple[CheckOutcome, ...] = (), **more: Any
    ) -> Self:
        """A day that was written in place of what was there `before`; `more` goes into its metadata."""
        metadata = {"dagster/partition_row_count": manifest.rows, "content_hash": manifest.content_hash, **more}
        unchanged = before is not None and before.content_hash == manifest.content_hash
        return cls(day, metadata, checks, manifest.content_hash, unchanged)

    @property
    def broken(self) -> list[CheckOutcome]:
        return [check for check in self.checks if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR]


def make_days(
    context: dg.AssetExecutionContext,
    key: str,
    make: Callable[[date], DayOutcome],
    pod: PodSpec | None = None,
) -> Iterable[dg.AssetCheckResult | dg.MaterializeResult]:
    """Make each day of the step and report it, alike in runs of one day and of a range.

    A broken day does not keep the others from being made: the step fails at the end, naming the broken ones. Asked to stop,
    it ends after the day that it makes. Dagster hears of all days at the end, of a step that fails too, and from the recovery
    sensor where there was none: heard of one by one, each would start what follows it, and again as the range ends.
    """
    outcomes, errors = _make_each(context, key, make, pod)
    made = [outcome for outcome in outcomes if outcome.metadata is not None]
    broken = [outcome for outcome in outcomes if outcome.metadata is None]
    if errors or broken:
        _record_changed(context, key, made)
    if errors:
        raise errors[0]
    if broken:
        yield from _summarized(outcomes)
        _report_each_day(context, key, outcomes)
        reasons = [f"[{o.day}] {check.name}: {check.description}" for o in broken for check in o.broken]
        raise dg.Failure(
            f"{key}: {len(broken)} of {len(outcomes)} days are broken and were not written. " + " | ".join(reasons[:5]),
            allow_retries=False,
        )
    for outcome in made:
        context.add_asset_metadata(dict(outcome.metadata or {}), partition_key=outcome.day.isoformat())
    known = _known_versions(context, key, made)
    version = known.get(made[0].day, made[0].content_hash) if len(made) == 1 else None
    # With the checks inside, they are recorded as checks of this materialization and not of the one before.
    yield dg.MaterializeResult(
        check_results=list(_summarized(outcomes)), data_version=dg.DataVersion(version) if version else None
    )
    if len(made) > 1:  # Dagster gave all days of the range one new data version
        _record(context, key, [outcome for outcome in made if outcome.day in known], known)
    _report_each_day(context, key, outcomes)


def _make_each(
    context: dg.AssetExecutionContext, key: str, make: Callable[[date], DayOutcome], pod: PodSpec | None
) -> tuple[list[DayOutcome], list[Exception]]:
    """What became of each day, and the errors of those that nothing became of."""
    outcomes: list[DayOutcome] = []
    errors: list[Exception] = []
    days = days_of(context)
    limit, threads = (pod or PodSpec()).timeout, share(pod.cpu) if pod else cores()
    with stoppable(Stop(seconds(limit))) as stop, limited(threads):
        for day in days:
            if stop.asked():
                errors.insert(0, _stopped(key, stop, limit, len(outcomes), len(days)))
                break
            try:
                with mistakes_are_final():
                    outcomes.append(make(day))
            except Exception as error:  # noqa: BLE001  # raised later: a day that fails does not keep the others from being made
                context.log.error(f"{key} [{day}]: {error}")
                errors.append(error)
                if len(errors) == TOO_MANY_ERRORS:
                    break
                continue
            made = outcomes[-1].metadata is not None
            context.log.info(f"{key} [{day}]: {'made' if made else 'broken'} ({len(outcomes)} of {len(days)})")
    return outcomes, errors


def _stopped(key: str, stop: Stop, limit: str, made: int, days: int) -> Exception:
    """Why a step ends before it has made all of its days."""
    if stop.reason == "timeout":
        words = f"{key}: {made} of {days} days were made within resources.timeout ({limit}). Next: raise it"
        return dg.Failure(words, {"stopped": "timeout"}, allow_retries=False)
    return Interrupted(key, f"was stopped after {made} of {days} days", "the others are asked for again")


def _known_versions(context: dg.AssetExecutionContext, key: str, made: list[DayOutcome]) -> dict[date, str]:
    """The data versions under which Dagster knows those of the days that did not change."""
    versions = {}
    for outcome in made:
        if outcome.unchanged:
            day = outcome.day.isoformat()
            record = context.instance.get_latest_data_version_record(asset_key(key), partition_key=day)
            version = extract_data_version_from_entry(record.event_log_entry) if record else None
            if version is not None:
                versions[outcome.day] = version.value
    return versions


def _record_changed(context: dg.AssetExecutionContext, key: str, made: list[DayOutcome]) -> None:
    """Record the days that were written by a step that will fail: they are in the lake, so Dagster has to know."""
    known = _known_versions(context, key, made)
    _record(context, key, [outcome for outcome in made if outcome.day not in known], {})


def _record(context: dg.AssetExecutionContext, key: str, made: list[DayOutcome], versions: Mapping[date, str]) -> None:
    for outcome in made:
        context.log_event(
            dg.AssetMaterialization(
                asset_key(key),
                partition=outcome.day.isoformat(),
                metadata=dict(outcome.metadata or {}),
                tags={DATA_VERSION_TAG: versions.get(outcome.day, outcome.content_hash)},
            )
        )


def _report_each_day(context: dg.AssetExecutionContext, key: str, outcomes: list[DayOutcome]) -> None:
    """Record every check per partition, if there are several: Dagster itself records one result for a whole range."""
    if len(outcomes) == 1:
        return
    days = {outcome.day.isoformat() for outcome in outcomes}
    latest = context.instance.get_latest_storage_id_by_partition(
        asset_key(key), dg.DagsterEventType.ASSET_MATERIALIZATION, days
    )
    now = time.time()
    for outcome in outcomes:
        day = outcome.day.isoformat()
        # A result counts only as long as it is about the partition's latest materialization.
        target = (
            AssetCheckEvaluationTargetMaterializationData(
                storage_id=latest[day], run_id=context.run.run_id, timestamp=now
            )
            if day in latest
            else None
        )
        for check in outcome.checks:
            context.log_event(
                dg.AssetCheckEvaluation(  # type: ignore[arg-type]  # Dagster stores it like any other event
                    asset_key=asset_key(key),
                    check_name=check.name,
                    passed=check.passed,
                    metadata=dict(check.metadata or {}),
                    severity=check.severity,
                    description=check.description or None,
                    blocking=check.severity == dg.AssetCheckSeverity.ERROR,
                    partition=day,
                    target_materialization_data=target,
                )
            )


def _summarized(outcomes: list[DayOutcome]) -> Iterable[dg.AssetCheckResult]:
    """One result per check for the step: the day's own, or how many of the days passed."""
    for position, check in enumerate(outcomes[0].checks):
        of_days = [outcome.checks[position] for outcome in outcomes]
        if len(outcomes) == 1:
            yield check.result()
            continue
        failed = [(outcome.day, one) for outcome, one in zip(outcomes, of_days, strict=True) if not one.passed]
        words = f"{len(outcomes) - len(failed)} of {len(outcomes)} days passed"
        words += "".join(f"; {day}: {one.description}" for day, one in failed[:3])
        worst = any(one.severity == dg.AssetCheckSeverity.ERROR for _, one in failed)
        severity = dg.AssetCheckSeverity.ERROR if worst or not failed else dg.AssetCheckSeverity.WARN
        yield CheckOutcome(check.name, not failed, words, severity=severity).result()


def markdown_table(rows: list[dict[str, Any]]) -> dg.MarkdownMetadataValue:
    """Rows as a table for metadata."""
    if not rows:
        return dg.MetadataValue.md("")
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(str(value).replace("|", "\\|")[:200] for value in row.values()) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def png_metadata(png: bytes) -> dg.MarkdownMetadataValue:
    """A picture for metadata."""
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")
