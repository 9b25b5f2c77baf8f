"""Source: `<name>/landed`, what was handed over, and `<name>/raw`, the rows that honour the contract."""

import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from ml_platform.components.graph import (
    FOLLOWS_INPUTS,
    RETRIES,
    SpecComponent,
    asset_key,
    badge,
    daily,
    days_back,
    dependency,
    pod,
)
from ml_platform.components.reporting import CheckOutcome, DayOutcome, make_days, markdown_table
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.spec import SEGMENT, SourceSpec
from ml_platform.data.across import repeated_keys
from ml_platform.data.contract import CHECKS, arrow_schema
from ml_platform.data.findings import Finding, Rules
from ml_platform.data.ingest import Ingested, LandedFile, ingest
from ml_platform.data.landing import LandedObject, Origin, fingerprint, strays_of, why_unread
from ml_platform.data.staging import Stage
from ml_platform.resources.lake import Lake
from ml_platform.resources.ledger import QUALITY, decision_on, look_back, record
from ml_platform.resources.origins import Origins

FETCHES = 8
UNIQUE = "keys_are_unique"
KINDS = {"objects": "s3", "sql": "sql"}  # by type of origin; any other is a class of somebody's own


class Source(SpecComponent):
    """A daily feed of files and the contract that it has to honour."""

    spec_class = SourceSpec

    def definitions(self, catalog: Catalog) -> dg.Definitions:
        source = catalog.sources[self.spec.name]
        assets = [make for feed in catalog.feeds_of(source) for make in (landed_asset(feed), raw_asset(feed, catalog))]
        return dg.Definitions(assets=[*assets, united_asset(source, catalog)] if source.segments else assets)


def landed_asset(spec: SourceSpec) -> dg.AssetSpec:
    return dg.AssetSpec(
        asset_key(keys.landed(spec.name)),
        partitions_def=daily(spec.start_date),
        group_name=spec.name.split("/")[0],
        kinds={KINDS.get(spec.origin.type, "python")},
        tags={"stage": "landing"},
        owners=list(spec.owners),
        description=f"Files as the producer put them. {spec.description} Reported by the arrival sensor.",
    )


def raw_attributes(spec: SourceSpec, catalog: Catalog, checks: Iterable[str]) -> dict[str, Any]:
    """What all assets of raw rows have in common."""
    partitions, key = daily(spec.start_date), asset_key(keys.raw(spec.name))
    return {
        "partitions_def": partitions,
        "check_specs": [
            dg.AssetCheckSpec(name, asset=key, description=CHECKS[name], blocking=True, partitions_def=partitions)
            for name in checks
        ],
        "backfill_policy": dg.BackfillPolicy.single_run(),
        "retry_policy": RETRIES,
        "group_name": spec.name.split("/")[0],
        "tags": {"stage": "raw"},
        "owners": list(spec.owners),
        **badge(spec.deadline),
        **pod(spec.resources, catalog),
    }


def raw_asset(spec: SourceSpec, catalog: Catalog) -> dg.AssetsDefinition:
    key = keys.raw(spec.name)
    references = {reference.source: reference.window_days for reference in spec.references.values()}

    @dg.asset(
        key=asset_key(key),
        **raw_attributes(spec, catalog, Rules(spec).checks),
        deps=[
            dependency(keys.landed(spec.name)),
            *(dependency(keys.raw(other), days_back(days - 1, 0)) for other, days in references.items()),
        ],
        kinds={"parquet", "pyarrow"},
        description=f"Rows that honour the contract. {spec.description}",
    )
    def raw(
        context: dg.AssetExecutionContext, origins: dg.ResourceParam[Origins], lake: dg.ResourceParam[Lake]
    ) -> Iterable[dg.AssetCheckResult | dg.MaterializeResult]:
        yield from make_days(context, key, lambda day: ingest_day(spec, day, catalog, origins, lake), spec.resources)

    return raw  # type: ignore[return-value]  # the overload is lost behind **raw_attributes


def ingest_day(spec: SourceSpec, day: date, catalog: Catalog, origins: Origins, lake: Lake) -> DayOutcome:
    """Fetch one day's objects, hold them against the contract, and write down what became of them."""
    origin = origins.of(spec)
    with tempfile.TemporaryDirectory(prefix="ml_platform-") as folder:
        objects = origin.of_day(spec, day)
        read = [found for found in objects if not why_unread(spec.name, found.key)]
        files = fetch_all(origin, spec, read, Path(folder))
        decision = decision_on(lake, spec.name, day, fingerprint(objects))
        back, judged_by = look_back(lake, catalog, spec, day)
        before = lake.manifest(keys.raw(spec.name), day)
        strays = strays_of(origin, spec, objects)
        ingested = ingest(spec, day, files, back, Path(folder), decision, strays)
        manifest = record(lake, spec, day, objects, files, origin.url, ingested, judged_by)
    checks = tuple(map(_outcome, ingested.findings))
    if manifest is None:
        return DayOutcome(day, None, checks)
    return DayOutcome.written(day, manifest, before, checks, **_metadata(ingested))


def fetch_all(origin: Origin, spec: SourceSpec, objects: Sequence[LandedObject], folder: Path) -> list[LandedFile]:
    """The objects as local files; several at a time, since a day may have thousands of small ones."""
    files = [LandedFile(found, folder / f"landed-{number}") for number, found in enumerate(objects)]
    with ThreadPoolExecutor(FETCHES) as pool:
        list(pool.map(lambda file: origin.fetch(spec, file.object, file.path), files))
    return files


# --- segments ---------------------------------------------------------------------------------------------------------


def united_asset(source: SourceSpec, catalog: Catalog) -> dg.AssetsDefinition:
    """`<source>/raw` of a source with segments: the rows of all of them, once all are there."""
    key = keys.raw(source.name)

    @dg.asset(
        key=asset_key(key),
        **raw_attributes(source, catalog, [UNIQUE]),
        deps=[dependency(keys.raw(feed.name)) for feed in catalog.feeds_of(source)],
        automation_condition=FOLLOWS_INPUTS,
        kinds={"parquet"},
        description=f"All segments: {', '.join(source.segments)}. {source.description}",
    )
    def united(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]
    ) -> Iterable[dg.AssetCheckResult | dg.MaterializeResult]:
        yield from make_days(context, key, lambda day: unite(source, day, catalog, lake), source.resources)

    return united  # type: ignore[return-value]  # the overload is lost behind **raw_attributes


def unite(source: SourceSpec, day: date, catalog: Catalog, lake: Lake) -> DayOutcome:
    """Write the rows of all segments of a day as one partition, unless two segments have the same key."""
    schema, key = arrow_schema(source), keys.raw(source.name)
    parts = {feed.name: lake.require(keys.raw(feed.name), day) for feed in catalog.feeds_of(source)}
    with tempfile.TemporaryDirectory(prefix="ml_platform-") as folder:
        stage = Stage(Path(folder) / "united.parquet", schema)
        for feed in parts:
            for batch in lake.dataset(keys.raw(feed), [day]).to_batches():
                segment = pa.array([feed.rpartition("/")[2]] * batch.num_rows, pa.string())
                stage.write(pa.Table.from_batches([batch]).append_column(SEGMENT, segment))
        staged = stage.finish()
        twice = len(repeated_keys(staged.path, staged.rows, source.key))
        check = CheckOutcome(
            UNIQUE, not twice, f"{twice:,} of {staged.rows:,} rows; the same key twice" if twice else ""
        )
        if twice:
            return DayOutcome(day, None, (check,))
        before = lake.manifest(key, day)
        quality = "good" if all(part.tags[QUALITY] == "good" for part in parts.values()) else "degraded"
        inputs = [part.as_input(keys.raw(feed), day) for feed, part in parts.items()]
        manifest = lake.write_staged(key, day, staged, inputs, {QUALITY: quality})
    segments = markdown_table([{"segment": feed, "rows": part.rows} for feed, part in parts.items()])
    return DayOutcome.written(day, manifest, before, (check,), quality=quality, segments=segments)


# --- how it is reported -----------------------------------------------------------------------------------------------


def _metadata(ingested: Ingested) -> dict[str, Any]:
    accounts = ingested.accounts
    table = [{field: value for field, value in asdict(one).items() if field != "etag"} for one in accounts[:20]]
    return {
        "quality": ingested.quality,
        "objects": len(accounts),
        "bytes": sum(one.bytes for one in accounts),
        "rows_in_quarantine": sum(one.quarantined for one in accounts),
        "accounts": markdown_table(table),
        "undeclared_columns": ", ".join(ingested.undeclared[:50]) or "none",
    }


def _outcome(finding: Finding) -> CheckOutcome:
    severity = dg.AssetCheckSeverity.WARN if finding.outcome == "warning" else dg.AssetCheckSeverity.ERROR
    metadata = {"offending": finding.offending, "sample": markdown_table(list(finding.sample))}
    passed = finding.outcome == "passed"
    return CheckOutcome(finding.check, passed, finding.words, metadata if finding.offending else None, severity)
