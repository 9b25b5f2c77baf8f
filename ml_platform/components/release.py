"""The second half of a training: `<model>/model_version` and `<model>/deployment`, both skipped if a gate says no."""

from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg

from ml_platform.components.graph import (
    RETRIES,
    asset_key,
    dependency,
    mistakes_are_final,
    model_attributes,
    training_date_of,
)
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import DeploymentError
from ml_platform.core.spec import ModelSpec
from ml_platform.evaluation.report import Report
from ml_platform.registry.versions import Version
from ml_platform.resources.lake import Lake
from ml_platform.resources.model_server import ModelServer
from ml_platform.resources.registry import Registry
from ml_platform.resources.verdict import verdict
from ml_platform.rollout.plan import Hold, Promote, plan_deployment


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


def deployment_asset(spec: ModelSpec, catalog: Catalog) -> dg.AssetsDefinition:
    key = keys.deployment(spec.name)
    deployment_spec = dg.AssetSpec(
        asset_key(key),
        deps=[dependency(keys.model_version(spec.name)), dependency(keys.evaluation(spec.name))],
        description="The version as the model server serves it, read back. The gates are judged again before.",
        skippable=True,
        **model_attributes(spec, catalog, "deployment", "fastapi"),
    )

    @dg.multi_asset(name=key.replace("/", "__"), specs=[deployment_spec], retry_policy=RETRIES)
    def deployment(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
        server: dg.ResourceParam[ModelServer],
    ) -> Iterator[dg.MaterializeResult]:
        with mistakes_are_final():  # it has waited long enough for the server already
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
    except BaseException:  # also when the run is terminated: nothing that was not read back stays champion
        if registry.aliases(spec.name).champion == version:  # unless another deployment has gone on from here
            registry.set_aliases(spec.name, before)
        raise
