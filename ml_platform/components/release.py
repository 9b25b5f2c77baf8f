"""The second half of a training: `<model>/model_version` and `<model>/deployment`, both skipped if a gate says no."""

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import dagster as dg

from ml_platform.components.graph import RETRIES, asset_key, dependency, model_attributes, training_date_of
from ml_platform.components.parity import MATCHES, serving_matches_training
from ml_platform.components.reporting import CheckOutcome, mistakes_are_final
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import DeploymentError
from ml_platform.core.spec import ModelSpec
from ml_platform.evaluation.gates import GateResult
from ml_platform.evaluation.report import Report
from ml_platform.features.engine import Engine
from ml_platform.registry.card import lineage_tags, version_card
from ml_platform.registry.versions import Version
from ml_platform.resources.lake import Lake
from ml_platform.resources.model_server import ModelServer
from ml_platform.resources.registry import Registry
from ml_platform.resources.release import Begun, deploy
from ml_platform.resources.verdict import verdict
from ml_platform.rollout.plan import Hold
from ml_platform.rollout.state import Rollout


def model_version_asset(spec: ModelSpec, catalog: Catalog) -> dg.AssetsDefinition:
    key = keys.model_version(spec.name)
    version_spec = dg.AssetSpec(
        asset_key(key),
        deps=[dependency(keys.candidate(spec.name)), dependency(keys.evaluation(spec.name))],
        description="The candidate as a version in the MLflow registry. Skipped if a gate says no.",
        skippable=True,
        **model_attributes(spec, catalog, "registry", "mlflow"),
    )

    @dg.multi_asset(name=key.replace("/", "__"), specs=[version_spec], retry_policy=RETRIES)
    def model_version(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], registry: dg.ResourceParam[Registry]
    ) -> Iterator[dg.MaterializeResult]:
        day = training_date_of(context)
        report, gates = verdict(spec, day, lake)
        if failed := [gate for gate in gates if not gate.passed]:
            context.log.warning(f"not registered: {'; '.join(f'{gate.name}: {gate.reason}' for gate in failed)}")
            return
        version = register(spec, day, report, gates, lake, registry)
        yield dg.MaterializeResult(
            metadata={
                "version": version.number,
                "bundle_digest": version.digest,
                "mlflow_run_id": version.run_id,
                **report.metrics,
            }
        )

    return model_version


def register(
    spec: ModelSpec, day: date, report: Report, gates: Sequence[GateResult], lake: Lake, registry: Registry
) -> Version:
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
    plots = {n: c for n, c in lake.read_files(keys.evaluation(spec.name), day).items() if n.endswith(".png")}
    mlflow_run = candidate.tags["mlflow_run_id"]
    links = {name: registry.plot_link(mlflow_run, name) for name in plots}
    tags = {
        "training_date": day.isoformat(),
        "training_set": training_set.content_hash,
        "dagster_run_id": training_set.tags.get("dagster_run_id", ""),
        **lineage_tags(files),
        **{name: f"{value:.4f}" for name, value in report.metrics.items()},
    }
    return registry.register(spec.name, files, mlflow_run, tags, version_card(files, gates, links), plots)


def step_metadata(rollout: Rollout) -> dict[str, Any]:
    """A step of a rollout: where it stands, what was observed before, and why it went on."""
    event, stage = rollout.last, rollout.stage
    return {
        "version": rollout.version,
        "champion": rollout.champion or "none",
        "rollout": rollout.phase,
        "event": event.what,
        "reason": event.reason,
        "by": event.by,
        **({"step": rollout.step + 1, "of_steps": len(rollout.spec.stages), "gets": str(stage)} if stage else {}),
        **event.figures,
    }


def deployment_asset(spec: ModelSpec, catalog: Catalog) -> dg.AssetsDefinition:
    key = keys.deployment(spec.name)
    common = model_attributes(spec, catalog, "deployment", "fastapi")
    deployment_spec = dg.AssetSpec(
        asset_key(key),
        deps=[dependency(keys.model_version(spec.name)), dependency(keys.evaluation(spec.name))],
        description="The version as the model server serves it, read back, or a step on its way there. The gates are judged again.",
        skippable=True,
        **common,
    )
    check_spec = dg.AssetCheckSpec(
        MATCHES,
        asset=asset_key(key),
        blocking=True,
        partitions_def=common["partitions_def"],
        description="What the server answers over HTTP is what batch scoring of the same rows gives, to 1e-6.",
    )

    # can_subset: a check has no result where nothing is deployed.
    @dg.multi_asset(
        name=key.replace("/", "__"),
        specs=[deployment_spec],
        check_specs=[check_spec],
        can_subset=True,
        retry_policy=RETRIES,
    )
    def deployment(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        engine: dg.ResourceParam[Engine],
        registry: dg.ResourceParam[Registry],
        server: dg.ResourceParam[ModelServer],
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        day = training_date_of(context)

        def prove(version: Version) -> CheckOutcome:
            return serving_matches_training(spec, day, catalog, lake, engine, server, version.number)

        with mistakes_are_final():  # it has waited long enough for the server already
            outcome = deploy(spec, day, lake, registry, server, prove, f"run {context.run.run_id}")
        if isinstance(outcome, Hold):
            context.log.warning(f"not deployed: {outcome.reason}")
            return
        if isinstance(outcome, Begun):
            yield dg.MaterializeResult(metadata=step_metadata(outcome.rollout))
            return
        if not outcome.check.passed:
            yield outcome.check.result()
            subject = keys.partition(key, day)
            raise dg.Failure(f"{subject}: {outcome.check.description}; taken back", allow_retries=False)
        yield dg.MaterializeResult(
            metadata={
                "version": outcome.served["version"],
                "served_digest": outcome.served["digest"],
                "served_by": dg.MetadataValue.url(f"{server.url}/models/{spec.name}"),
            },
            check_results=[outcome.check.result()],
        )

    return deployment
