"""`<model>/monitoring`: what is found of a day that was scored; each finding is a check."""

import math
from collections.abc import Iterable
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from ml_platform.components.graph import (
    FOLLOWS_INPUTS,
    RETRIES,
    asset_key,
    days_back,
    dependency,
    model_attributes,
    pod,
)
from ml_platform.components.reporting import CheckOutcome, DayOutcome, make_days, markdown_table, png_metadata
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import RegistryError
from ml_platform.core.spec import ModelSpec
from ml_platform.features.engine import Engine
from ml_platform.monitoring.checks import CHECKS
from ml_platform.monitoring.retrain import to_json
from ml_platform.resources.lake import Lake
from ml_platform.resources.lineage import ALARMS
from ml_platform.resources.registry import Registry

if TYPE_CHECKING:
    from ml_platform.monitoring.report import MonitoringReport, Scored
    from ml_platform.resources.monitored import Monitored

NOTHING = "not_enough_data", "there are no such rows"
SHOWN = 12  # columns in a picture, and rows in a table


def monitoring_asset(spec: ModelSpec, catalog: Catalog) -> dg.AssetsDefinition:
    key = keys.monitoring(spec.name)
    common = model_attributes(spec, catalog, "monitoring", "scikitlearn")
    labels, delay = keys.raw(spec.label.source), catalog.label_delay(spec)
    newest = dg.AutomationCondition.in_latest_time_window(timedelta(days=spec.monitoring.automatic_days))
    asset_spec = dg.AssetSpec(
        asset_key(key),
        deps=[
            dependency(keys.predictions(spec.name)),
            dependency(labels, days_back(delay + spec.monitoring.performance_days - 1, delay)),
        ],
        # Labels may be late: what can be said without them is said in time.
        automation_condition=FOLLOWS_INPUTS.ignore(dg.AssetSelection.assets(asset_key(labels))) & newest
        if spec.monitoring.automatic_days
        else None,
        skippable=True,
        description="Drift, coverage, traffic and performance of the rows that were scored, against those that the version was "
        "judged on. What there is not enough data for is a warning, never passed. Skipped if the day is not scored.",
        **common,
    )

    # can_subset: the checks have no result where nothing is scored.
    @dg.multi_asset(
        name=key.replace("/", "__"),
        specs=[asset_spec],
        check_specs=[
            dg.AssetCheckSpec(
                name, asset=asset_key(key), partitions_def=common["partitions_def"], description=CHECKS[name]
            )
            for name in checks_of(spec)
        ],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=RETRIES,
        **pod(spec.batch_resources, catalog),
    )
    def monitoring(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        engine: dg.ResourceParam[Engine],
        registry: dg.ResourceParam[Registry],
    ) -> Iterable[dg.AssetCheckResult | dg.MaterializeResult]:
        from ml_platform.resources.monitored import Monitored

        if registry.aliases(spec.name).champion is None:
            context.log.warning(f"{key}: no version of {spec.name} is deployed; nothing is watched")
            return
        rows = Monitored(spec, catalog, lake, engine, registry)

        def watch(day: date) -> DayOutcome:
            outcome, figures = watch_day(day, rows)
            try:
                registry.log_figures(rows.version(day), figures, day)
            except RegistryError as error:  # the lake has them
                context.log.warning(f"{key} [{day}]: MLflow was not told: {error}")
            return outcome

        yield from make_days(context, key, watch, spec.batch_resources)

    return monitoring


def watch_day(day: date, rows: "Monitored") -> tuple[DayOutcome, dict[str, float]]:
    """Read a day's rows and those that it is held against, judge it, write what was found; and its figures by name."""
    from ml_platform.monitoring.report import monitored
    from ml_platform.resources.monitored import PLOT, REPORT

    spec, lake, key = rows.spec, rows.lake, keys.monitoring(rows.spec.name)
    version = rows.version(day)
    reference, watched = rows.judged_on(version)
    recent, mature = rows.recent(day), rows.mature(day)
    report = monitored(spec, day, (version.number, version.training_date), watched, reference, recent, mature)
    picture = _drawn(report, reference, recent, day)
    before = lake.manifest(key, day)
    files = {REPORT: report.to_json(), PLOT: picture}
    tags = {"version": version.number, ALARMS: to_json(report.alarms)}
    manifest = lake.write_files(key, day, files, rows.inputs(day, version), tags)
    unchanged = before is not None and before.content_hash == manifest.content_hash
    figures = _figures(report)
    outcome = DayOutcome(
        day, _metadata(report, figures, picture), _outcomes(report, checks_of(spec)), manifest.content_hash, unchanged
    )
    return outcome, figures


def checks_of(spec: ModelSpec) -> list[str]:
    """The names of a model's checks."""
    left_out = set() if spec.monitoring.slices else {"no_slice_performs_worse"}
    left_out |= {"labels_are_as_frequent"} if spec.task == "regression" else set()
    return [name for name in CHECKS if name not in left_out]


def _outcomes(report: "MonitoringReport", names: list[str]) -> tuple[CheckOutcome, ...]:
    """An alarm is red; what could not be judged is a warning."""
    found = report.checks
    return tuple(
        CheckOutcome(
            name,
            outcome == "ok",
            f"not enough data: {words}" if outcome == "not_enough_data" else words,
            severity=dg.AssetCheckSeverity.WARN if outcome == "not_enough_data" else dg.AssetCheckSeverity.ERROR,
        )
        for name, (outcome, words) in ((name, found.get(name, NOTHING)) for name in names)
    )


def _figures(report: "MonitoringReport") -> dict[str, float]:
    """Numbers that are worth a line over the days."""
    found: dict[str, float | None] = {
        "largest_drift_psi": max((one.psi for one in report.drifts if one.psi is not None), default=None),
        "score_drift_psi": max((one.psi for one in report.scores if one.psi is not None), default=None),
    }
    for name, performance in (("estimated", report.estimated), ("realised", report.realised)):
        whole = performance[0]
        found |= {f"{name}_{whole.metric}{end}": getattr(whole, f) for end, f in _ENDS.items()}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


_ENDS = {"": "value", "_low": "low", "_high": "high"}


def _metadata(report: "MonitoringReport", figures: dict[str, float], picture: bytes) -> dict[str, Any]:
    columns = [
        {"column": one.column, "outcome": one.outcome, "why": one.words}
        for one in (*report.scores, *report.drifts[:SHOWN])
    ]
    performance = [
        {"": kind, "rows of": one.rows_of or "all", "outcome": one.outcome, "why": one.words}
        for kind, found in (("realised", report.realised), ("estimated", report.estimated))
        for one in found[: SHOWN + 1]
    ]
    shares = [{"share": one.name, "outcome": one.outcome, "why": one.words} for one in (*report.shares, *report.labels)]
    return {
        "rows": report.rows,
        "version": report.version,
        **figures,
        "drift": markdown_table(columns),
        "coverage": markdown_table(shares),
        "performance": markdown_table(performance),
        "plot": png_metadata(picture),
    }


def _drawn(report: "MonitoringReport", reference: "Scored", recent: "Scored", day: date) -> bytes:
    """The score and the columns that have drifted most, now and where the version was judged."""
    from ml_platform.features.health import shift
    from ml_platform.features.plots import distributions

    now = recent.of(recent.days == day.toordinal())
    columns = [("score", reference.scores, now.scores)] if reference.scores.ndim == 1 else []
    names = [one.column for one in report.drifts if reference.columns[one.column].dtype.kind in "biuf"]
    columns += [(name, reference.columns[name], now.columns[name]) for name in names[: SHOWN - 1]]
    shifts = [shift(name, norm, values) for name, norm, values in columns if len(norm) and len(values)]
    return distributions(shifts, f"{report.model} [{report.day}]", "the validation rows")
