"""What a step reports: each day that it made, its checks, tables and pictures."""

import base64
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any, Self

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData
from dagster._core.definitions.data_version import DATA_VERSION_TAG, extract_data_version_from_entry

from ml_platform.components.graph import asset_key, days_of
from ml_platform.core.errors import BundleError, DeploymentError, FeatureError, Interrupted, SpecError, TrainingError
from ml_platform.core.spec import PodSpec, seconds
from ml_platform.core.threads import cores, limited, share
from ml_platform.resources.manifest import Manifest
from ml_platform.resources.stopping import Stop, stoppable

# Another try of a step can change nothing about them.
MISTAKES = (SpecError, FeatureError, TrainingError, BundleError, DeploymentError)


@contextmanager
def mistakes_are_final() -> Iterator[None]:
    """Fail a step without retry where another try can change nothing."""
    try:
        yield
    except MISTAKES as error:
        raise dg.Failure(str(error), allow_retries=False) from error


TOO_MANY_ERRORS = 3  # days of one step; then it is not about the days


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
    """Record every check per partition in a range run, if only of one day: Dagster itself records one result for the range."""
    if context.has_partition_key:
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
