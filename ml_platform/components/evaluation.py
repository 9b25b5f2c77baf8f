"""`<model>/evaluation`: what a candidate is worth; the gates are its checks."""

import math
from collections.abc import Mapping
from datetime import date

import dagster as dg

from ml_platform.components.graph import RETRIES, asset_key, dependency, model_attributes, pod, training_date_of
from ml_platform.components.reporting import CheckOutcome, markdown_table, png_metadata
from ml_platform.components.tracking import Tracking, log_files
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import PlatformError
from ml_platform.core.spec import ModelSpec
from ml_platform.evaluation.gates import GateResult, judge
from ml_platform.evaluation.report import Champion, Evaluation, Report, evaluate
from ml_platform.evaluation.soundness import Finding, cold_start
from ml_platform.registry import bundle
from ml_platform.registry.conformity import schema_differences
from ml_platform.resources.lake import Lake
from ml_platform.resources.registry import Registry
from ml_platform.resources.verdict import REPORT
from ml_platform.training.training_set import part_of

# The curve that says most about a metric.
CURVE_OF = {
    "average_precision": "precision_recall",
    "precision": "precision_recall",
    "recall": "precision_recall",
    "f1": "precision_recall",
    "roc_auc": "roc",
    "log_loss": "calibration",
    "brier": "calibration",
}


def evaluation_asset(spec: ModelSpec, catalog: Catalog) -> dg.AssetsDefinition:
    key = keys.evaluation(spec.name)
    common = model_attributes(spec, catalog, "evaluation", "scikitlearn")

    @dg.asset(
        key=asset_key(key),
        deps=[dependency(keys.candidate(spec.name)), dependency(keys.training_set(spec.name))],
        # Not blocking: a candidate that is not good enough is a normal day, and the run stays green.
        check_specs=[
            dg.AssetCheckSpec(
                gate.name, asset=asset_key(key), partitions_def=common["partitions_def"], description=gate.sentence
            )
            for gate in spec.gates
        ],
        retry_policy=RETRIES,
        **pod(spec.batch_resources, catalog),
        description="What the candidate, and the champion on the same rows, are worth. The gates are its checks.",
        **common,
    )
    def evaluation(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
        tracking: dg.ResourceParam[Tracking],
    ) -> dg.MaterializeResult:
        with tracking.step(spec.name) as mlflow:
            report, curves = make_report(spec, catalog, training_date_of(context), lake, registry)
            context.add_asset_metadata(tracking.metadata(mlflow))
            log_files(mlflow, {f"{name}.png": png for name, png in curves.items()}, "plots")
            mlflow.log_metrics({f"validation_{name}": value for name, value in report.metrics.items()})
            return _evaluation_result(spec, report, judge(spec.gates, report), curves)

    return evaluation  # type: ignore[return-value]  # the overload is lost behind **common


def make_report(
    spec: ModelSpec, catalog: Catalog, day: date, lake: Lake, registry: Registry
) -> tuple[Report, dict[str, bytes]]:
    """Load the candidate's bundle and its validation rows, measure it and the champion, and write report and curves."""
    from ml_platform.evaluation.plots import pictures

    made = measured(spec, catalog, day, lake, registry)
    title = f"{spec.name} as of {day}"
    curves = pictures(spec.task, made.labels, made.scores, made.champion_scores, title)
    inputs = [
        lake.require(keys.candidate(spec.name), day).as_input(keys.candidate(spec.name), day),
        lake.require(keys.training_set(spec.name), day).as_input(keys.training_set(spec.name), day),
    ]
    files = {REPORT: made.report.to_json(), **{f"{name}.png": png for name, png in curves.items()}}
    lake.write_files(keys.evaluation(spec.name), day, files, inputs)
    return made.report, curves


def measured(spec: ModelSpec, catalog: Catalog, day: date, lake: Lake, registry: Registry) -> Evaluation:
    subject = keys.partition(keys.candidate(spec.name), day)
    files = lake.read_files(keys.candidate(spec.name), day)
    candidate = bundle.unpack(files, subject, catalog.plugins)
    table = lake.read_table(keys.training_set(spec.name), [day])
    source = catalog.sources[spec.entity_rows]
    rows = part_of(table, "validation")
    differences = schema_differences(candidate.schema, source, catalog.daily_views(spec), table.schema)
    more = {"input_schema_matches": Finding(len(differences), "; ".join(differences))}
    if candidate.schema.views and spec.task == "binary_classification":
        more["cold_start_is_sane"] = cold_start(
            candidate.score, rows, candidate.schema.defaults, [view.name for view in candidate.schema.views]
        )
    return evaluate(
        spec,
        day.isoformat(),
        candidate.digest,
        candidate.score,
        lambda: bundle.unpack({**files, **candidate.saved()}, subject, catalog.plugins).score,
        more,
        rows,
        champion_of(spec, catalog, registry),
    )


def champion_of(spec: ModelSpec, catalog: Catalog, registry: Registry) -> Champion | None:
    """The deployed model; None if there never was one; with the problem if it cannot be had."""
    number = ""
    try:
        champion = registry.aliases(spec.name).champion
        if champion is None:
            return None
        number = champion.number
        return Champion(number, bundle.unpack(registry.download(champion), champion.label, catalog.plugins).score)
    except PlatformError as error:
        return Champion(number, None, str(error))


def _gate_outcome(gate: GateResult, curve: bytes | None) -> CheckOutcome:
    figures = {"value": gate.value, "limit": gate.limit, **gate.details}
    shown = _finite({name: value for name, value in figures.items() if value is not None})
    tables = {"segments": markdown_table([dict(line) for line in gate.segments])} if gate.segments else {}
    curves = {"curve": png_metadata(curve)} if curve else {}
    return CheckOutcome(gate.name, gate.passed, gate.reason, {**shown, **tables, **curves})


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    """Without what has no value: Dagster's API cannot say NaN."""
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def _evaluation_result(
    spec: ModelSpec, report: Report, gates: tuple[GateResult, ...], curves: Mapping[str, bytes]
) -> dg.MaterializeResult:
    champion = report.champion.version if report.champion else "none yet"
    return dg.MaterializeResult(
        metadata={
            **_finite(report.metrics),
            "rows": report.rows,
            **({"rows_per_class": ", ".join(f"{rows:,}" for rows in report.class_rows)} if report.class_rows else {}),
            "passed": all(gate.passed for gate in gates),
            "gates": markdown_table(
                [{"gate": g.name, "passed": "yes" if g.passed else "NO", "why": g.reason} for g in gates]
            ),
            "champion": champion,
            "bundle_digest": report.bundle_digest,
            **{name: png_metadata(png) for name, png in curves.items()},
        },
        check_results=[
            _gate_outcome(result, curves.get(CURVE_OF.get(gate.metric or "", ""))).result()
            for gate, result in zip(spec.gates, gates, strict=True)
        ],
    )
