"""`<model>/predictions`: every row of a day, scored by the deployed version through the code path that serving has."""

import tempfile
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa

from ml_platform.components.graph import FOLLOWS_INPUTS, RETRIES, asset_key, dependency, model_attributes, pod
from ml_platform.components.reporting import CheckOutcome, DayOutcome, make_days
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import LakeError
from ml_platform.core.spec import ModelSpec
from ml_platform.data.contract import arrow_schema
from ml_platform.data.staging import StagedTable, stage_all
from ml_platform.features.engine import Engine
from ml_platform.features.point_in_time import join_features
from ml_platform.registry import bundle
from ml_platform.registry.scoring import SCORE, SCORES, schema_of, score_rows
from ml_platform.registry.versions import Version
from ml_platform.resources.lake import Lake
from ml_platform.resources.lineage import current_inputs, required_inputs, scoring_needs
from ml_platform.resources.manifest import Input
from ml_platform.resources.registry import Registry

SCORED = "every_row_has_a_score"


def predictions_asset(spec: ModelSpec, catalog: Catalog) -> dg.AssetsDefinition:
    key = keys.predictions(spec.name)
    common = model_attributes(spec, catalog, "predictions", "ibis")
    deployment = asset_key(keys.deployment(spec.name))
    newest = dg.AutomationCondition.in_latest_time_window(timedelta(days=spec.predictions.automatic_days))
    predictions_spec = dg.AssetSpec(
        asset_key(key),
        deps=[dependency(keys.raw(spec.entity_rows))]
        + [dependency(keys.feature_view(view.name)) for view in catalog.daily_views(spec)]
        + [dependency(keys.deployment(spec.name), dg.LastPartitionMapping())],
        # A new version scores the days that come; it does not score those before again.
        automation_condition=FOLLOWS_INPUTS.ignore(dg.AssetSelection.assets(deployment)) & newest
        if spec.predictions.automatic_days
        else None,
        skippable=True,
        description=f"Every row of `{spec.entity_rows}`, scored by the version that is deployed. Skipped if none is.",
        **common,
    )
    check_spec = dg.AssetCheckSpec(
        SCORED,
        asset=asset_key(key),
        blocking=True,
        partitions_def=common["partitions_def"],
        description="Every row of the day has one finite score.",
    )

    # can_subset: the check has no result where nothing is deployed.
    @dg.multi_asset(
        name=key.replace("/", "__"),
        specs=[predictions_spec],
        check_specs=[check_spec],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=RETRIES,
        **pod(spec.batch_resources, catalog),
    )
    def predictions(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        engine: dg.ResourceParam[Engine],
        registry: dg.ResourceParam[Registry],
    ) -> Iterable[dg.AssetCheckResult | dg.MaterializeResult]:
        champion = registry.aliases(spec.name).champion
        if champion is None:
            context.log.warning(f"{key}: no version of {spec.name} is deployed; nothing is scored")
            return
        model = bundle.unpack(registry.download(champion), champion.label, catalog.plugins)
        yield from make_days(
            context, key, lambda day: score_day(day, champion, model, catalog, lake, engine), spec.batch_resources
        )

    return predictions


def score_day(
    day: date, version: Version, model: bundle.Bundle, catalog: Catalog, lake: Lake, engine: Engine
) -> DayOutcome:
    """Load a day's rows with their features, score them, judge that, write it."""
    key, source = keys.predictions(model.spec.name), catalog.sources[model.spec.entity_rows]
    subject, needs = keys.partition(key, day), list(scoring_needs(catalog, model.spec, day))
    inputs = required_inputs(lake, iter(needs))
    views = catalog.daily_views(model.spec)
    events = engine.table(lake.dataset(keys.raw(source.name), [day], arrow_schema(source)))
    computed = {view.name: engine.table(lake.dataset(keys.feature_view(view.name), [day])) for view in views}
    joined = join_features(events, source, views, computed, engine).order_by([source.event_time, *source.key])
    before = lake.manifest(key, day)
    with tempfile.TemporaryDirectory(prefix="ml_platform-") as folder:
        scored = score_rows(model, source, version.number, engine.batches(joined), subject)
        schema = schema_of(model, source, arrow_schema(source))
        staged = stage_all(schema, scored, Path(folder) / "predictions.parquet")
        check = every_row_is_scored(staged, inputs[0].size or 0)
        if not check.passed:
            return DayOutcome(day, None, (check,))
        if current_inputs(lake.manifest, iter(needs)) != inputs:
            raise LakeError(subject, "its inputs were replaced while it was scored", "it is tried again")
        by = Input(version.label, version.digest)
        manifest = lake.write_staged(key, day, staged, [*inputs, by], {"version": version.number})
    return DayOutcome.written(day, manifest, before, (check,), version=version.number, bundle_digest=version.digest)


def every_row_is_scored(staged: StagedTable, rows: int) -> CheckOutcome:
    """Hold the scores against the rows of the raw day."""
    import pyarrow.compute as pc

    table = staged.dataset()
    name = SCORE if SCORE in table.schema.names else SCORES
    unfinished = 0
    for piece in table.to_batches(columns=[name]):
        values = piece.column(0)
        flat = values.flatten() if pa.types.is_list(values.type) else values
        unfinished += pc.sum(pc.invert(pc.is_finite(flat))).as_py() or 0  # type: ignore[attr-defined]
    words = f"{staged.rows:,} of {rows:,} rows were scored; {unfinished:,} scores are no finite number"
    return CheckOutcome(SCORED, staged.rows == rows and not unfinished, words)
