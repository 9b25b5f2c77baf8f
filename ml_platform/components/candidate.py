"""The first half of a training: `<model>/training_set` and `<model>/candidate`."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from ml_platform.components.graph import (
    RETRIES,
    asset_key,
    days_back,
    dependency,
    limits,
    model_attributes,
    pod,
    training_date_of,
)
from ml_platform.components.launching import launcher_of, sized
from ml_platform.components.overriding import config_schema, wanted
from ml_platform.components.progress import Progress
from ml_platform.components.reporting import CheckOutcome, markdown_table, mistakes_are_final, png_metadata
from ml_platform.components.stopping import is_last_try, within_limits
from ml_platform.components.tracking import Tracking, log_dataset, log_files
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import start_of
from ml_platform.core.errors import LakeError, WorkloadError
from ml_platform.core.spec import ModelSpec
from ml_platform.core.tasks import METRICS
from ml_platform.features.engine import Engine
from ml_platform.registry import bundle
from ml_platform.registry.candidate import Trained, train_candidate
from ml_platform.registry.leaderboard import Entry, labels_of
from ml_platform.resources.assembly import assembled
from ml_platform.resources.checkpoints import LakeCheckpoints
from ml_platform.resources.cluster import BYTES, training_tags
from ml_platform.resources.lake import Lake
from ml_platform.resources.launcher import clear_job, fitting
from ml_platform.resources.lineage import (
    as_trained,
    current_inputs,
    inputs_fingerprint,
    override_tags,
    required_inputs,
    training_needs,
)
from ml_platform.resources.trials import with_winners
from ml_platform.training.curves import learning_curves
from ml_platform.training.manifest import describe
from ml_platform.training.overrides import OVERRIDES, changes
from ml_platform.training.profile import frame_of, profile, shown
from ml_platform.training.training_set import LABEL, Assembled, Leakage, columns_of, leakage
from ml_platform.training.windows import windows

if TYPE_CHECKING:
    import pandas as pd

DESCRIBED = "described"  # tag of a training set: what the manifest of a model says of it
NO_FUTURE = "no_future_information"
ROWS_LABELLED = "every_row_has_a_label"
ROWS_ONCE = "each_row_is_there_once"
# Dagster's names of the libraries that trainers use.
KINDS = {
    "mlp": "torch",
    "sequence": "torch",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "linear": "scikitlearn",
    "forest": "scikitlearn",
}


def training_set_asset(spec: ModelSpec, catalog: Catalog) -> dg.AssetsDefinition:
    key = keys.training_set(spec.name)
    common = model_attributes(spec, catalog, "training_set", "ibis")
    today = date(2000, 1, 1)  # any: the windows lie at fixed distances
    used = windows(spec.training, catalog.label_delay(spec), today)
    look_back = days_back((today - used.train[0]).days, (today - used.validation[1]).days)
    upstream = [keys.raw(spec.entity_rows), keys.raw(spec.label.source)]
    upstream += [keys.feature_view(view.name) for view in catalog.daily_views(spec)]

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
                ROWS_ONCE,
                asset=asset_key(key),
                blocking=True,
                partitions_def=common["partitions_def"],
                description="Each row of the windows that has a label is in the set once: no join multiplies or loses one.",
            ),
            dg.AssetCheckSpec(
                ROWS_LABELLED,
                asset=asset_key(key),
                partitions_def=common["partitions_def"],
                description="Every row of the windows has a label; rows without one are left out.",
            ),
        ],
        retry_policy=RETRIES,
        config_schema=config_schema(spec),
        **pod(spec.batch_resources, catalog),
        description=f"Rows, labels and point-in-time features that {spec.name} is trained and judged on, as of the partition's date.",
        **common,
    )
    def training_set(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        engine: dg.ResourceParam[Engine],
        tracking: dg.ResourceParam[Tracking],
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        with mistakes_are_final():
            run = wanted(spec, context.op_execution_context.op_config)
        with tracking.step(spec.name) as mlflow:
            context.add_asset_metadata(tracking.metadata(mlflow))
            runs = {"mlflow_run_id": mlflow.active_run().info.run_id, "dagster_run_id": context.run.run_id}

            def told(frame: "pd.DataFrame", version: str) -> None:
                log_dataset(mlflow, frame, keys.training_set(spec.name), version, LABEL)

            day = training_date_of(context)
            kept = override_tags(changes(spec, run), lake.manifest(key, day))
            yield from make_training_set(run, catalog, day, lake, engine, runs | kept, told)

    return training_set  # type: ignore[return-value]  # the overload is lost behind **common


def make_training_set(
    spec: ModelSpec,
    catalog: Catalog,
    training_date: date,
    lake: Lake,
    engine: Engine,
    tags: dict[str, str],
    told: "Callable[[pd.DataFrame, str], None]" = lambda frame, version: None,
) -> Iterable[dg.AssetCheckResult | dg.MaterializeResult]:
    """Join, check and write the training set. `tags` say which runs made it, and what they said otherwise than the model file."""
    delay = catalog.label_delay(spec)
    used = windows(spec.training, delay, training_date)
    views, source = catalog.daily_views(spec), catalog.sources[spec.entity_rows]
    inputs = required_inputs(lake, training_needs(catalog, spec, training_date))
    made = assembled(lake, engine, catalog, spec, training_date)
    table = made.table
    leaked = leakage(table, source.event_time, views, delay, start_of(training_date))
    checks, wrong = _judged(made, leaked)
    if wrong:
        yield from checks
        raise dg.Failure(f"{keys.partition(keys.training_set(spec.name), training_date)}: {wrong}", allow_retries=False)

    if current_inputs(lake.manifest, training_needs(catalog, spec, training_date)) != inputs:
        subject = keys.partition(keys.training_set(spec.name), training_date)
        raise LakeError(subject, "its inputs were replaced while it was read", "it is tried again")
    overrides = json.loads(tags.get(OVERRIDES, "{}"))
    described = describe(spec, delay, training_date, views, table) | ({OVERRIDES: overrides} if overrides else {})
    tags = tags | {
        "inputs_fingerprint": inputs_fingerprint(inputs, overrides),
        DESCRIBED: json.dumps(described),
        BYTES: str(table.nbytes),
    }
    manifest = lake.write_table(keys.training_set(spec.name), training_date, table, inputs, tags)
    frame = frame_of(table)
    told(frame, manifest.content_hash)
    binary = spec.task == "binary_classification"
    positives = {"positives": int(columns_of(table.select([LABEL]))[LABEL].sum())} if binary else {}
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": manifest.rows,
            **positives,
            "train": f"{used.train[0]} to {used.train[1]}",
            "validation": f"{used.validation[0]} to {used.validation[1]}",
            "bytes": table.nbytes,
            **sized(spec, manifest)[1],
            "input_partitions": len(inputs),
            "content_hash": manifest.content_hash,
            **({"overrides": dg.MetadataValue.json(overrides)} if overrides else {}),
            "columns": markdown_table(profile(frame).map(shown).to_dict("records")),
        },
        check_results=checks,
    )


def _judged(made: Assembled, leaked: Leakage) -> tuple[list[dg.AssetCheckResult], str]:
    """The checks of a training set, and in words what keeps it from being written."""
    future = f"{leaked.features_from_the_future} features from the future, {leaked.labels_not_yet_known} labels not yet known"
    lost, kept = made.counted.unlabelled, made.counted.labelled
    lost_words = f"{lost:,} of {lost + kept:,} rows have no label; joined by {made.match.words}"
    once_words = f"{kept:,} rows have a label, and the set has {made.table.num_rows:,}"
    checks = [
        CheckOutcome(NO_FUTURE, not leaked.found, future).result(),
        CheckOutcome(ROWS_ONCE, made.has_each_row_once, once_words).result(),
        CheckOutcome(ROWS_LABELLED, lost == 0, lost_words, severity=dg.AssetCheckSeverity.WARN).result(),
    ]
    multiplied = "" if made.has_each_row_once else f"{once_words}: some join has multiplied or lost rows"
    return checks, future if leaked.found else multiplied


def candidate_asset(spec: ModelSpec, catalog: Catalog) -> dg.AssetsDefinition:
    names = list(dict.fromkeys(one.trainer for one in spec.candidates))
    kinds = list(dict.fromkeys(KINDS[name] for name in names if name in KINDS))
    several = len(spec.candidates) > 1
    trainers = f"The best by {spec.select_by} of {', '.join(names)}" if several else f"A trained {names[0]}"
    searched = [dependency(keys.trials(spec.name))] if spec.searched else []

    @dg.asset(
        key=asset_key(keys.candidate(spec.name)),
        deps=[dependency(keys.training_set(spec.name)), *searched],
        op_tags=training_tags(spec.resources, catalog.cluster),
        **limits(spec.resources),
        description=f"{trainers}, as a bundle: model, fitted transforms, schema, manifest, model card.",
        **model_attributes(spec, catalog, "candidate", *kinds[:3]),  # Dagster takes three at most
    )
    def candidate(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], tracking: dg.ResourceParam[Tracking]
    ) -> dg.MaterializeResult:
        day = training_date_of(context)
        subject = keys.partition(keys.candidate(spec.name), day)
        stopping = within_limits(context, subject, spec.resources)
        with stopping as stop, mistakes_are_final(), tracking.step(spec.name) as mlflow:
            found = with_winners(as_trained(spec, lake, day), lake, day)
            mlflow.log_params({"training_date": day, **tracked_params(found)})
            progress, run_id = Progress(context, mlflow), mlflow.active_run().info.run_id
            resources, said = sized(spec, lake.require(keys.training_set(spec.name), day))
            context.add_asset_metadata(said)
            fit = fitting(launcher_of(context, catalog, resources), lake, spec.name, day, context.log.info)

            def may_pass(error: Exception) -> bool:
                return isinstance(error, WorkloadError | LakeError) and not is_last_try(context, spec.resources)

            result, trained = train(found, catalog, day, lake, run_id, progress, stop.asked, fit, may_pass)
            progress.figures.finish()
            leaderboard = trained.leaderboard
            for entry in leaderboard:
                if entry.note:
                    context.log.warning(f"{entry.candidate}: {entry.note}")
            if len(leaderboard) > 1:
                mlflow.log_metrics({f"{e.candidate}_{n}": v for e in leaderboard for n, v in e.metrics.items()})
            log_files(mlflow, trained.files, "bundle")
            context.add_asset_metadata(tracking.metadata(mlflow))
            if curves := learning_curves(progress.history, f"{spec.name} as of {day}"):
                log_files(mlflow, {"learning_curves.png": curves}, "plots")
                context.add_asset_metadata({"learning_curves": png_metadata(curves)})
        forget(spec, day, lake)
        return result

    return candidate  # type: ignore[return-value]  # the overload is lost behind **common


def tracked_params(spec: ModelSpec) -> dict[str, Any]:
    """Trainer and params of each candidate for MLflow; with several, each name begins with the candidate's."""
    several = len(spec.candidates) > 1
    return {
        f"{label}_{name}" if several else name: value
        for label, one in zip(labels_of(spec.candidates), spec.candidates, strict=True)
        for name, value in {"trainer": one.trainer, **one.params}.items()
    }


def train(
    spec: ModelSpec,
    catalog: Catalog,
    day: date,
    lake: Lake,
    mlflow_run: str,
    on_epoch: Any,
    interrupted: Callable[[], bool] = lambda: False,
    fit: Any = None,
    may_pass: Callable[[Exception], bool] = lambda error: False,
) -> tuple[dg.MaterializeResult, Trained]:
    training_set = lake.require(keys.training_set(spec.name), day)
    trained = train_candidate(
        spec,
        day,
        catalog.sources[spec.entity_rows],
        catalog.daily_views(spec),
        catalog.request_views(spec),
        lake.read_table(keys.training_set(spec.name), [day]),
        training_set.content_hash,
        [asdict(one) for one in training_set.inputs],
        on_epoch,
        lambda position: LakeCheckpoints(
            lake, keys.checkpoint(spec.name, position), day
        ),  # the next try goes on from there
        interrupted,
        fit,
        described=json.loads(training_set.tags.get(DESCRIBED, "{}")),
        may_pass=may_pass,
    )
    files = trained.files
    inputs = [training_set.as_input(keys.training_set(spec.name), day)]
    if spec.searched:
        inputs.append(lake.require(keys.trials(spec.name), day).as_input(keys.trials(spec.name), day))
    manifest = lake.write_files(keys.candidate(spec.name), day, files, inputs, {"mlflow_run_id": mlflow_run})
    metrics = json.loads(files[bundle.METRICS])
    result = dg.MaterializeResult(
        metadata={
            **metrics,
            "bundle_digest": manifest.content_hash,
            "files": ", ".join(files),
            "leaderboard": markdown_table([_row(entry, spec) for entry in trained.leaderboard]),
            "model_card": dg.MetadataValue.md(files[bundle.MODEL_CARD].decode()),
        }
    )
    return result, trained


def forget(spec: ModelSpec, day: date, lake: Lake) -> None:
    """Remove what another try of a training would have gone on from."""
    for position in range(1, len(spec.candidates) + 1):
        LakeCheckpoints(lake, keys.checkpoint(spec.name, position), day).clear()
        clear_job(lake, spec.name, day, position)


def _row(entry: Entry, spec: ModelSpec) -> dict[str, Any]:
    """An entry of the leaderboard as people read it."""
    figures = {name: f"{entry.metrics[name]:.4f}" if name in entry.metrics else "" for name in METRICS[spec.task]}
    return {
        "candidate": entry.candidate,
        "params": json.dumps(entry.params),
        **figures,
        "seconds": f"{entry.seconds:.1f}",
        "status": entry.status,
        "error": entry.error.replace("\n", " "),
        "note": entry.note,
    }
