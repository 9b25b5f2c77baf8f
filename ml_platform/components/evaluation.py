"""`<model>/evaluation`: what a candidate is worth; the gates are its checks."""

from datetime import date
from typing import Any

import dagster as dg

from ml_platform.components.graph import (
    RETRIES,
    CheckOutcome,
    asset_key,
    dependency,
    markdown_table,
    model_attributes,
    png_metadata,
    training_date_of,
)
from ml_platform.components.resources import Tracking
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import PlatformError
from ml_platform.core.spec import ModelSpec
from ml_platform.evaluation.gates import GateResult, judge
from ml_platform.evaluation.report import ChampionReport, Report, Score, evaluate, measure_champion
from ml_platform.registry import bundle
from ml_platform.resources.lake import Lake
from ml_platform.resources.registry import Registry
from ml_platform.resources.verdict import REPORT
from ml_platform.training.training_set import LABEL, part_of

CURVES = "curves.png"


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
            report, png = make_report(spec, training_date_of(context), lake, registry)
            mlflow.log_metrics({f"validation_{name}": value for name, value in report.metrics.items()})
            return _evaluation_result(report, judge(spec.gates, report), png)

    return evaluation  # type: ignore[return-value]  # the overload is lost behind **common


def make_report(spec: ModelSpec, day: date, lake: Lake, registry: Registry) -> tuple[Report, bytes]:
    """Load the candidate's bundle and its validation rows, measure it and the champion, and write the report."""
    from ml_platform.evaluation.plots import picture

    files = lake.read_files(keys.candidate(spec.name), day)
    candidate = bundle.unpack(files, keys.partition(keys.candidate(spec.name), day))
    table = lake.read_table(keys.training_set(spec.name), [day])
    rows = part_of(table, "validation")
    champion = champion_report(spec, registry, rows)
    report, scores = evaluate(spec.name, spec.task, day.isoformat(), candidate.digest, candidate.score, rows, champion)
    png = picture(spec.task, rows[LABEL], scores, f"{spec.name} as of {day}")
    inputs = [
        lake.require(keys.candidate(spec.name), day).as_input(keys.candidate(spec.name), day),
        lake.require(keys.training_set(spec.name), day).as_input(keys.training_set(spec.name), day),
    ]
    lake.write_files(keys.evaluation(spec.name), day, {REPORT: report.to_json(), CURVES: png}, inputs)
    return report, png


def champion_report(spec: ModelSpec, registry: Registry, rows: Any) -> ChampionReport | None:
    """The champion on these rows; None if the model has none; with the problem if it cannot be measured."""
    number = ""
    try:
        champion = registry.aliases(spec.name).champion
        if champion is None:
            return None
        number = champion.number
        score: Score = bundle.unpack(registry.download(champion), champion.label).score
        return measure_champion(number, spec.task, score, rows)
    except PlatformError as error:
        return ChampionReport(number, None, str(error))


def _gate_outcome(gate: GateResult) -> CheckOutcome:
    figures = {name: value for name, value in (("value", gate.value), ("limit", gate.limit)) if value is not None}
    return CheckOutcome(gate.name, gate.passed, gate.reason, figures)


def _evaluation_result(report: Report, gates: tuple[GateResult, ...], png: bytes) -> dg.MaterializeResult:
    champion = report.champion.version if report.champion else "none yet"
    return dg.MaterializeResult(
        metadata={
            **report.metrics,
            "rows": report.rows,
            **({"rows_per_class": ", ".join(f"{rows:,}" for rows in report.class_rows)} if report.class_rows else {}),
            "passed": all(gate.passed for gate in gates),
            "gates": markdown_table(
                [{"gate": g.name, "passed": "yes" if g.passed else "NO", "why": g.reason} for g in gates]
            ),
            "champion": champion,
            "bundle_digest": report.bundle_digest,
            "curves": png_metadata(png),
        },
        check_results=[_gate_outcome(gate).result() for gate in gates],
    )
