"""Model: training_set -> candidate -> evaluation [gates] -> model_version -> deployment, one partition per training date."""

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import date
from typing import Any

import dagster as dg

from ml_platform.components.graph import (
    RETRIES,
    CheckOutcome,
    SpecComponent,
    asset_key,
    daily,
    days_back,
    dependency,
    markdown_table,
    read_catalog,
)
from ml_platform.components.resources import Tracking
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import start_of
from ml_platform.core.errors import DeploymentError, PlatformError
from ml_platform.core.spec import ModelSpec
from ml_platform.evaluation.gates import GateResult, judge
from ml_platform.evaluation.report import ChampionReport, Report, Score, evaluate, measure_champion
from ml_platform.registry import bundle
from ml_platform.registry.candidate import train_candidate
from ml_platform.registry.versions import Version
from ml_platform.resources.cluster import pod_config
from ml_platform.resources.lake import Lake
from ml_platform.resources.lineage import current_inputs, inputs_fingerprint, training_needs
from ml_platform.resources.model_server import ModelServer
from ml_platform.resources.registry import Registry
from ml_platform.rollout.plan import Hold, Promote, plan_deployment
from ml_platform.training.training_set import LABEL, SPLIT, assemble, columns_of, leakage
from ml_platform.training.windows import windows

NO_FUTURE = "no_future_information"
ROWS_LABELLED = "every_row_has_a_label"


class Model(SpecComponent):
    """A model: from one YAML file to its part of the graph."""

    spec_class = ModelSpec

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        catalog = read_catalog()
        spec = catalog.models[self.spec.name]
        return dg.Definitions(
            assets=[
                training_set_asset(spec, catalog),
                candidate_asset(spec, catalog),
                evaluation_asset(spec, catalog),
                model_version_asset(spec, catalog),
                deployment_asset(spec, catalog),
            ]
        )


def training_date_of(context: dg.AssetExecutionContext) -> date:
    return date.fromisoformat(context.partition_key)


def _common(spec: ModelSpec, catalog: Catalog, stage: str, *kinds: str) -> dict[str, Any]:
    """What the model's assets have in common."""
    return {
        "partitions_def": daily(catalog.sources[spec.entity_rows].start_date),
        "group_name": spec.name,
        "kinds": set(kinds),
        "tags": {"stage": stage},
        "owners": list(spec.owners),
    }


# --- training set -----------------------------------------------------------------------------------------------------


def training_set_asset(spec: ModelSpec, catalog: Catalog) -> dg.AssetsDefinition:
    key = keys.training_set(spec.name)
    common = _common(spec, catalog, "training_set", "ibis", "duckdb")
    today = date(2000, 1, 1)  # any: the windows lie at fixed distances
    used = windows(spec.training, catalog.label_delay(spec), today)
    look_back = days_back((today - used.train[0]).days, (today - used.validation[1]).days)
    upstream = [keys.raw(spec.entity_rows), keys.raw(spec.label.source)]
    upstream += [keys.feature_view(view.name) for view in catalog.snapshot_views(spec)]

    @dg.asset(
        key=asset_key(key),
        deps=[dependency(name, look_back) for name in dict.fromkeys(upstream)],
        check_specs=[
            dg.AssetCheckSpec(
                NO_FUTURE,
                asset=asset_key(key),
                blocking=True,
                partitions_def=common["partitions_def"],
                description="No feature is newer than its row's event, and no label was unknown on the training date.",
            ),
            dg.AssetCheckSpec(
                ROWS_LABELLED,
                asset=asset_key(key),
                partitions_def=common["partitions_def"],
                description="Every row of the windows has a label; rows without one are left out.",
            ),
        ],
        retry_policy=RETRIES,
        description=f"Rows, labels and point-in-time features that {spec.name} is trained and judged on, as of the partition's date.",
        **common,
    )
    def training_set(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], tracking: dg.ResourceParam[Tracking]
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        with tracking.step(spec.name) as mlflow:
            runs = {"mlflow_run_id": mlflow.active_run().info.run_id, "dagster_run_id": context.run.run_id}
            yield from make_training_set(spec, catalog, training_date_of(context), lake, runs)

    return training_set  # type: ignore[return-value]  # the overload is lost behind **common


def make_training_set(
    spec: ModelSpec, catalog: Catalog, training_date: date, lake: Lake, runs: dict[str, str]
) -> Iterable[dg.AssetCheckResult | dg.MaterializeResult]:
    delay = catalog.label_delay(spec)
    used = windows(spec.training, delay, training_date)
    views = catalog.snapshot_views(spec)
    rows, labels = keys.raw(spec.entity_rows), keys.raw(spec.label.source)
    source = catalog.sources[spec.entity_rows]
    table = assemble(
        lake.dataset(rows, used.days),
        source,
        lake.dataset(labels, used.days),
        catalog.sources[spec.label.source],
        spec.label.column,
        views,
        {view.name: lake.dataset(keys.feature_view(view.name), used.days) for view in views},
        used,
    )
    leaked = leakage(table, source.event_time, views, delay, start_of(training_date))
    words = f"{leaked.features_from_the_future} features from the future, {leaked.labels_not_yet_known} labels not yet known"
    landed = lake.dataset(rows, used.days).count_rows()
    lost = landed - table.num_rows
    lost_words = f"{lost:,} of {landed:,} rows have no label"
    checks = [
        CheckOutcome(NO_FUTURE, not leaked.found, words).result(),
        CheckOutcome(ROWS_LABELLED, lost == 0, lost_words, severity=dg.AssetCheckSeverity.WARN).result(),
    ]
    if leaked.found:
        yield from checks
        raise dg.Failure(f"{keys.partition(keys.training_set(spec.name), training_date)}: {words}", allow_retries=False)

    inputs = current_inputs(lake, training_needs(catalog, spec, training_date)) or []
    tags = {"inputs_fingerprint": inputs_fingerprint(inputs), **runs}
    manifest = lake.write_table(keys.training_set(spec.name), training_date, table, inputs, tags)
    positives = int(columns_of(table.select([LABEL]))[LABEL].sum())
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": manifest.rows,
            "positives": positives,
            "train": f"{used.train[0]} to {used.train[1]}",
            "validation": f"{used.validation[0]} to {used.validation[1]}",
            "input_partitions": len(inputs),
            "content_hash": manifest.content_hash,
        },
        check_results=checks,
    )


# --- candidate --------------------------------------------------------------------------------------------------------


def candidate_asset(spec: ModelSpec, catalog: Catalog) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_key(keys.candidate(spec.name)),
        deps=[dependency(keys.training_set(spec.name))],
        op_tags={"dagster-k8s/config": pod_config(spec.resources)},
        retry_policy=RETRIES,
        description=f"A trained {spec.candidates[0].trainer} as a bundle: weights, fitted transforms, schema, manifest, model card.",
        **_common(spec, catalog, "candidate", "torch"),
    )
    def candidate(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], tracking: dg.ResourceParam[Tracking]
    ) -> dg.MaterializeResult:
        day = training_date_of(context)
        with tracking.step(spec.name) as mlflow:
            mlflow.log_params(
                {"trainer": spec.candidates[0].trainer, "training_date": day, **spec.candidates[0].params}
            )

            def on_epoch(epoch: int, figures: dict[str, float]) -> None:
                mlflow.log_metrics(figures, step=epoch)
                context.log.info(
                    f"epoch {epoch}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
                )

            return train(spec, catalog, day, lake, mlflow.active_run().info.run_id, on_epoch)

    return candidate  # type: ignore[return-value]  # the overload is lost behind **common


def train(
    spec: ModelSpec, catalog: Catalog, day: date, lake: Lake, mlflow_run: str, on_epoch: Any
) -> dg.MaterializeResult:
    training_set = lake.require(keys.training_set(spec.name), day)
    files = train_candidate(
        spec,
        day,
        catalog.sources[spec.entity_rows],
        catalog.snapshot_views(spec),
        catalog.request_views(spec),
        lake.read_table(keys.training_set(spec.name), [day]),
        training_set.content_hash,
        [asdict(one) for one in training_set.inputs],
        on_epoch,
    )
    inputs = [training_set.as_input(keys.training_set(spec.name), day)]
    manifest = lake.write_files(keys.candidate(spec.name), day, files, inputs, {"mlflow_run_id": mlflow_run})
    metrics = json.loads(files[bundle.METRICS])
    return dg.MaterializeResult(
        metadata={
            **metrics,
            "bundle_digest": manifest.content_hash,
            "mlflow_run_id": mlflow_run,
            "files": ", ".join(files),
            "model_card": dg.MetadataValue.md(files[bundle.MODEL_CARD].decode()),
        }
    )


# --- evaluation -------------------------------------------------------------------------------------------------------

REPORT = "report.json"
CURVES = "curves.png"


def evaluation_asset(spec: ModelSpec, catalog: Catalog) -> dg.AssetsDefinition:
    key = keys.evaluation(spec.name)
    common = _common(spec, catalog, "evaluation", "scikitlearn")

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
    from ml_platform.evaluation.plots import curves

    files = lake.read_files(keys.candidate(spec.name), day)
    candidate = bundle.unpack(files, keys.partition(keys.candidate(spec.name), day))
    table = lake.read_table(keys.training_set(spec.name), [day])
    rows = columns_of(table.filter([split == "validation" for split in table[SPLIT].to_pylist()]))
    champion = champion_report(spec.name, registry, rows)
    report, scores = evaluate(spec.name, day.isoformat(), candidate.digest, candidate.score, rows, champion)
    png = curves(rows[LABEL], scores, f"{spec.name} as of {day}")
    inputs = [
        lake.require(keys.candidate(spec.name), day).as_input(keys.candidate(spec.name), day),
        lake.require(keys.training_set(spec.name), day).as_input(keys.training_set(spec.name), day),
    ]
    lake.write_files(keys.evaluation(spec.name), day, {REPORT: report.to_json(), CURVES: png}, inputs)
    return report, png


def champion_report(model: str, registry: Registry, rows: Any) -> ChampionReport | None:
    """The champion on these rows; None if the model has none; with the problem if it cannot be measured."""
    number = ""
    try:
        champion = registry.aliases(model).champion
        if champion is None:
            return None
        number = champion.number
        score: Score = bundle.unpack(registry.download(champion), champion.label).score
        return measure_champion(number, score, rows)
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
            "positives": report.positives,
            "passed": all(gate.passed for gate in gates),
            "gates": markdown_table(
                [{"gate": g.name, "passed": "yes" if g.passed else "NO", "why": g.reason} for g in gates]
            ),
            "champion": champion,
            "bundle_digest": report.bundle_digest,
            "curves": dg.MetadataValue.md(f"![curves](data:image/png;base64,{base64.b64encode(png).decode()})"),
        },
        check_results=[_gate_outcome(gate).result() for gate in gates],
    )


def verdict(spec: ModelSpec, day: date, lake: Lake) -> tuple[Report, tuple[GateResult, ...]]:
    """The report of a training date, judged by the gates as they are now."""
    report = Report.from_json(lake.read_files(keys.evaluation(spec.name), day)[REPORT])
    return report, judge(spec.gates, report)


# --- model version ----------------------------------------------------------------------------------------------------


def model_version_asset(spec: ModelSpec, catalog: Catalog) -> dg.AssetsDefinition:
    key = keys.model_version(spec.name)
    common = _common(spec, catalog, "registry", "mlflow")
    group, partitions = common.pop("group_name"), common.pop("partitions_def")
    spec_ = dg.AssetSpec(
        asset_key(key),
        deps=[dependency(keys.candidate(spec.name)), dependency(keys.evaluation(spec.name))],
        description="The candidate as a version in the MLflow registry. Skipped if a gate says no.",
        group_name=group,
        partitions_def=partitions,
        skippable=True,
        **common,
    )

    @dg.multi_asset(name=key.replace("/", "__"), specs=[spec_], retry_policy=RETRIES)
    def model_version(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], registry: dg.ResourceParam[Registry]
    ) -> Iterator[dg.MaterializeResult]:
        day = training_date_of(context)
        report, gates = verdict(spec, day, lake)
        if failed := [gate for gate in gates if not gate.passed]:
            context.log.warning(f"not registered: {'; '.join(f'{gate.name}: {gate.reason}' for gate in failed)}")
            return
        version = register(spec, day, report, lake, registry)
        yield dg.MaterializeResult(
            metadata={
                "version": version.number,
                "bundle_digest": version.digest,
                "mlflow_run_id": version.run_id,
                **{name: report.metrics[name] for name in ("average_precision", "roc_auc")},
            }
        )

    return model_version


def register(spec: ModelSpec, day: date, report: Report, lake: Lake, registry: Registry) -> Version:
    """Register the candidate that the report is about.

    Raises:
        DeploymentError: if the candidate has been trained anew since it was evaluated.
    """
    candidate = lake.require(keys.candidate(spec.name), day)
    if candidate.content_hash != report.bundle_digest:
        raise DeploymentError(
            keys.partition(keys.model_version(spec.name), day),
            f"the candidate (bundle {candidate.content_hash[:12]}) is not the one that was evaluated ({report.bundle_digest[:12]})",
            f"materialize {keys.evaluation(spec.name)} again",
        )
    files = lake.read_files(keys.candidate(spec.name), day)
    training_set = lake.require(keys.training_set(spec.name), day)
    tags = {
        "training_date": day.isoformat(),
        "training_set": training_set.content_hash,
        "dagster_run_id": training_set.tags.get("dagster_run_id", ""),
        **{name: f"{value:.4f}" for name, value in report.metrics.items()},
    }
    return registry.register(spec.name, files, candidate.tags["mlflow_run_id"], tags)


# --- deployment -------------------------------------------------------------------------------------------------------


def deployment_asset(spec: ModelSpec, catalog: Catalog) -> dg.AssetsDefinition:
    key = keys.deployment(spec.name)
    common = _common(spec, catalog, "deployment", "fastapi")
    group, partitions = common.pop("group_name"), common.pop("partitions_def")
    spec_ = dg.AssetSpec(
        asset_key(key),
        deps=[dependency(keys.model_version(spec.name)), dependency(keys.evaluation(spec.name))],
        description="The version as the model server serves it, read back. The gates are judged again before.",
        group_name=group,
        partitions_def=partitions,
        skippable=True,
        **common,
    )

    @dg.multi_asset(name=key.replace("/", "__"), specs=[spec_], retry_policy=RETRIES)
    def deployment(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
        server: dg.ResourceParam[ModelServer],
    ) -> Iterator[dg.MaterializeResult]:
        outcome = deploy(spec, training_date_of(context), lake, registry, server)
        if isinstance(outcome, Hold):
            context.log.warning(f"not deployed: {outcome.reason}")
            return
        yield dg.MaterializeResult(
            metadata={
                "version": outcome["version"],
                "served_digest": outcome["digest"],
                "served_by": dg.MetadataValue.url(f"{server.url}/models/{spec.name}"),
            }
        )

    return deployment


def deploy(spec: ModelSpec, day: date, lake: Lake, registry: Registry, server: ModelServer) -> Hold | dict[str, Any]:
    """Judge again, move the champion alias, and read back what the server serves.

    If the server does not take the version, the aliases go back to what they were.

    Raises:
        DeploymentError: if there is no such version, or the server does not serve it.
    """
    report, gates = verdict(spec, day, lake)
    version = next((v for v in registry.versions(spec.name) if v.digest == report.bundle_digest), None)
    if version is None:
        subject = keys.partition(keys.deployment(spec.name), day)
        raise DeploymentError(
            subject,
            f"bundle {report.bundle_digest[:12]} is not registered",
            f"materialize {keys.model_version(spec.name)}",
        )
    before = registry.aliases(spec.name)
    action = plan_deployment(version, before, report, gates)
    if isinstance(action, Hold):
        return action
    if isinstance(action, Promote):
        registry.set_aliases(spec.name, action.aliases)
    try:
        return server.wait_until_served(version)
    except DeploymentError:
        registry.set_aliases(spec.name, before)
        raise
