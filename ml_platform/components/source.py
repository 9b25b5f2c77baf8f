"""Source: `<name>/landed`, what lies in the landing bucket, and `<name>/raw`, the rows that honour the contract."""

from collections.abc import Iterable
from datetime import date

import dagster as dg

from ml_platform.components.graph import (
    RETRIES,
    CheckOutcome,
    DayOutcome,
    SpecComponent,
    asset_key,
    daily,
    dependency,
    make_days,
    markdown_table,
    read_catalog,
)
from ml_platform.core import keys
from ml_platform.core.spec import SourceSpec
from ml_platform.data.contract import CHECKS, Finding, inspect
from ml_platform.data.landing import day_of, day_prefix
from ml_platform.resources.lake import Input, Lake
from ml_platform.resources.object_store import ObjectStore


class Source(SpecComponent):
    """A daily feed of files and the contract that it has to honour."""

    spec_class = SourceSpec

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        spec = read_catalog().sources[self.spec.name]
        return dg.Definitions(assets=[landed_asset(spec), raw_asset(spec)])


def landed_asset(spec: SourceSpec) -> dg.AssetSpec:
    return dg.AssetSpec(
        asset_key(keys.landed(spec.name)),
        partitions_def=daily(spec.start_date),
        group_name=spec.name,
        kinds={"s3", "parquet"},
        tags={"stage": "landing"},
        owners=list(spec.owners),
        description=f"Files as the producer put them. {spec.description} Reported by the arrival sensor.",
    )


def raw_asset(spec: SourceSpec) -> dg.AssetsDefinition:
    partitions, key = daily(spec.start_date), keys.raw(spec.name)

    @dg.asset(
        key=asset_key(key),
        deps=[dependency(keys.landed(spec.name))],
        partitions_def=partitions,
        check_specs=[
            dg.AssetCheckSpec(
                name, asset=asset_key(key), description=sentence, blocking=True, partitions_def=partitions
            )
            for name, sentence in CHECKS.items()
        ],
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=RETRIES,
        group_name=spec.name,
        kinds={"parquet", "pandas"},
        tags={"stage": "raw"},
        owners=list(spec.owners),
        description=f"Rows that honour the contract. {spec.description}",
    )
    def raw(
        context: dg.AssetExecutionContext, landing: dg.ResourceParam[ObjectStore], lake: dg.ResourceParam[Lake]
    ) -> Iterable[dg.AssetCheckResult | dg.MaterializeResult]:
        yield from make_days(context, key, lambda day: ingest(spec, day, landing, lake))

    return raw


def ingest(spec: SourceSpec, day: date, landing: ObjectStore, lake: Lake) -> DayOutcome:
    """Load one day's objects, hold them against the contract, and write the partition if they honour it."""
    objects = [o for o in landing.objects(day_prefix(spec.name, day)) if day_of(spec.name, o.key)]
    inspection = inspect(spec, day, [(o.key, landing.read(o.key)) for o in objects])
    checks = tuple(_outcome(finding) for finding in inspection.findings)
    if inspection.table is None:
        return DayOutcome(day, None, checks)
    inputs = [Input(landing.url(o.key), o.etag, o.size) for o in objects]
    manifest = lake.write_table(keys.raw(spec.name), day, inspection.table, inputs)
    return DayOutcome(
        day,
        {
            "dagster/partition_row_count": manifest.rows,
            "content_hash": manifest.content_hash,
            "objects": len(objects),
            "bytes": sum(o.size for o in objects),
            "undeclared_columns": ", ".join(inspection.undeclared_columns) or "none",
        },
        checks,
    )


def _outcome(finding: Finding) -> CheckOutcome:
    metadata = {"offending": finding.offending, "sample": markdown_table(list(finding.sample))}
    return CheckOutcome(finding.check, finding.passed, finding.problem, metadata if finding.offending else None)
