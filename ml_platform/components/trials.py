"""`<model>/trials`: a search, each trial a step of its own (a process, or a pod), for as many as the model file asks for."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from functools import partial
from typing import Any

import dagster as dg

from ml_platform.components.graph import RETRIES, asset_key, limits, model_attributes
from ml_platform.components.launching import launcher_of, sized
from ml_platform.components.reporting import MISTAKES, markdown_table, mistakes_are_final, png_metadata
from ml_platform.components.resources import Tracking
from ml_platform.components.stopping import is_last_try, within_limits
from ml_platform.components.tracking import Figures, outlived
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import Interrupted
from ml_platform.core.spec import ModelSpec
from ml_platform.registry.candidate import Prepared, prepare
from ml_platform.registry.trial import fit_trial
from ml_platform.resources.checkpoints import LakeCheckpoints
from ml_platform.resources.cluster import training_tags
from ml_platform.resources.lake import Lake
from ml_platform.resources.launcher import clear_job, fitting
from ml_platform.resources.lineage import as_trained
from ml_platform.resources.mlflow_client import SOON, TWO_MINUTES, mlflow_client, patience
from ml_platform.resources.stopping import Stop
from ml_platform.resources.trials import LakeTrials, conclude, fingerprint
from ml_platform.training.training_set import LABEL, SPLIT, search_part, split_columns
from ml_platform.training.trials import Outcome, Record, best_of, propose
from ml_platform.training.windows import Windows, search_windows

PARALLEL = "ml_platform/trials"  # tag of a trial's step, by which the executor limits how many there are at once


def trials_asset(spec: ModelSpec, catalog: Catalog) -> dg.AssetsDefinition:
    @dg.op(
        name=f"{spec.name}__start",
        ins={"training_set": dg.In(dg.Nothing)},
        out=dg.DynamicOut(dg.Nothing),
        retry_policy=RETRIES,
        description="Opens the MLflow run, and gives each trial its name. A trial finds its point itself, once it starts.",
    )
    def start(
        context: dg.OpExecutionContext, lake: dg.ResourceParam[Lake], tracking: dg.ResourceParam[Tracking]
    ) -> Iterator[dg.DynamicOutput[None]]:
        with mistakes_are_final(), tracking.step(spec.name):
            check_rows(as_trained(spec, lake, _day(context)), catalog, _day(context), lake)
        for position, candidate in spec.searched.items():
            for number in range(candidate.search.count if candidate.search else 0):
                yield dg.DynamicOutput(None, mapping_key=keys.trial(position, number))

    @dg.op(
        name=f"{spec.name}__trial",
        ins={"start": dg.In(dg.Nothing)},
        out=dg.Out(dg.Nothing),
        tags={**training_tags(spec.resources, catalog.cluster), PARALLEL: spec.name},
        **limits(spec.resources),
        description="Fits and scores one point. One that fails is noted, and does not stop the others.",
    )
    def trial(
        context: dg.OpExecutionContext, lake: dg.ResourceParam[Lake], tracking: dg.ResourceParam[Tracking]
    ) -> Iterator[dg.Output[None]]:
        subject = f"{keys.partition(keys.trials(spec.name), _day(context))} {context.get_mapping_key()}"
        with within_limits(context, subject, spec.resources) as stop, mistakes_are_final():
            record = run_trial(context, as_trained(spec, lake, _day(context)), catalog, lake, tracking, stop)
        yield dg.Output(None, metadata=_row(record, spec, context.run_id))

    @dg.op(
        name=f"{spec.name}__choose",
        ins={"trials": dg.In(dg.Nothing)},
        out=dg.Out(dg.Nothing),
        retry_policy=RETRIES,
        description="Takes the best trial; fails if more failed than the model file allows.",
    )
    def choose(context: dg.OpExecutionContext, lake: dg.ResourceParam[Lake]) -> Iterator[dg.Output[None]]:
        with mistakes_are_final():
            run = as_trained(spec, lake, _day(context))
            yield dg.Output(None, metadata=choose_winners(run, catalog, _day(context), lake, context.run_id))

    @dg.graph_asset(
        key=asset_key(keys.trials(spec.name)),
        ins={"training_set": dg.AssetIn(asset_key(keys.training_set(spec.name)), dagster_type=dg.Nothing)},
        description="Trials of params, fitted and scored within the training rows; the candidate is trained with the best.",
        **model_attributes(spec, catalog, "trials", "optuna"),
    )
    def trials(training_set: None) -> Any:
        return choose(start(training_set).map(lambda named: trial(named)).collect())

    return trials


def parallel_limits(catalog: Catalog) -> list[dict[str, Any]]:
    """How many trials of each model run at once, as the executor's `tag_concurrency_limits`. The least of its candidates counts."""
    found = []
    for spec in catalog.models.values():
        given = [one.search.parallel for one in spec.candidates if one.search and one.search.parallel]
        if given:
            found.append({"key": PARALLEL, "value": spec.name, "limit": min(given)})
    return found


def check_rows(spec: ModelSpec, catalog: Catalog, day: date, lake: Lake) -> None:
    """Raise TrainingError if there is nothing sound to fit trials on, before each of them finds out."""
    source = catalog.sources[spec.entity_rows]
    table = lake.read_table(keys.training_set(spec.name), [day], [source.event_time, LABEL, SPLIT])
    part = search_part(table, source.event_time, _windows(spec, catalog, day))
    split_columns(part, keys.partition(keys.trials(spec.name), day), spec.task)


def run_trial(
    context: dg.OpExecutionContext, spec: ModelSpec, catalog: Catalog, lake: Lake, tracking: Tracking, stop: Stop
) -> Record:
    """Fit and score the point of the step's trial, unless that was done before; returns what became of it.

    Raises:
        Exception: what went wrong, if that may pass and the step has tries left.
    """
    name, day = context.get_mapping_key() or "", _day(context)
    position, number = map(int, name.removeprefix("c").split("_"))
    candidate = spec.candidates[position - 1]
    assert candidate.search, "only candidates with a search have trials"
    kept = _records(spec, catalog, lake, position, day)
    others = kept.records()
    before = others.pop(name, None)
    if before and before.done:
        context.log.info(f"{name} was {before.status} in run {before.run}: reused")
        return before
    last_try = is_last_try(context, spec.resources)
    if last_try and before and before.run == context.run_id and before.status == "running" and not before.error:
        died = f"its process died in try {context.retry_number}; out of memory? see `resources`"
        kept.write(lost := before.model_copy(update={"status": "failed", "error": died}))
        return lost

    rows = prepared_for_search(spec, catalog, day, lake)
    point = before.params if before else propose(candidate.search, spec.training.seed, number, list(others.values()))
    record = Record(trial=name, params=point, run=context.run_id, tracking_run=before.tracking_run if before else "")
    checkpoints = LakeCheckpoints(lake, keys.checkpoint(spec.name, name), day)
    resources, _ = sized(spec, lake.require(keys.training_set(spec.name), day))
    fit = fitting(launcher_of(context, catalog, resources), lake, spec.name, day, context.log.info)

    def read_others() -> list[Record]:
        return [one for one in kept.records().values() if one.trial != name]

    try:
        with nested_run(tracking, spec.name, record) as nested:
            record = record.model_copy(update={"tracking_run": nested.id})
            kept.write(record)  # so that the next try has the same point, and the others know of it
            context.log.info(f"{name}: {json.dumps(point)}")
            after, problem = fit_trial(
                spec, candidate, record, rows, read_others, nested.figures, checkpoints, stop.asked, partial(fit, name)
            )
            if problem and not isinstance(problem, MISTAKES) and not last_try:
                raise problem
            nested.end(after)
    except Exception as error:
        if isinstance(error, Interrupted) and stop.reason == "timeout":
            late = f"it took longer than {spec.resources.timeout} (resources.timeout)"
            kept.write(lost := record.model_copy(update={"status": "failed", "error": late}))
            return lost
        kept.write(record.model_copy(update={"error": f"{type(error).__name__}: {error}"}))
        raise
    kept.write(after)
    checkpoints.clear()
    clear_job(lake, spec.name, day, name)
    return after


def prepared_for_search(spec: ModelSpec, catalog: Catalog, day: date, lake: Lake) -> Prepared:
    """The rows that trials are fitted and scored on, as trainers take them."""
    table = lake.read_table(keys.training_set(spec.name), [day])
    source = catalog.sources[spec.entity_rows]
    part = search_part(table, source.event_time, _windows(spec, catalog, day))
    subject = keys.partition(keys.trials(spec.name), day)
    return prepare(spec, source, part, catalog.daily_views(spec), catalog.request_views(spec), subject)


class NestedRun:
    """A trial's own MLflow run. Through a client, since MLflow's active run is one for the whole process."""

    def __init__(self, client: Any, id: str, log: dg.DagsterLogManager) -> None:
        self.client = client
        self.id = id
        self.figures = Figures(self._log, log)
        self.status = "FINISHED"

    def end(self, record: Record) -> None:
        """Note what became of the trial."""
        self.figures(0, record.metrics)
        self.figures.finish()
        self.client.set_tag(self.id, "trial_status", record.status)
        self.status = "FAILED" if record.status == "failed" else "FINISHED"

    def _log(self, epoch: int, figures: Mapping[str, float], at: int) -> None:
        from mlflow.entities import Metric

        self.client.log_batch(self.id, [Metric(name, value, at, epoch) for name, value in figures.items()])


@contextmanager
def nested_run(tracking: Tracking, experiment: str, record: Record) -> Iterator[NestedRun]:
    """The MLflow run of a trial, nested in that of the training; a trial that is tried again goes on with its run."""
    from mlflow.entities import Param
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    client = mlflow_client(tracking.tracking_uri)
    with patience(TWO_MINUTES):
        if record.tracking_run:
            run = NestedRun(client, record.tracking_run, tracking.log)
            client.update_run(run.id, "RUNNING")
        else:
            found = client.get_experiment_by_name(experiment)
            assert found, "the first step of the search has made it"
            parent = _parent(client, found.experiment_id, tracking.run)
            tags = {MLFLOW_PARENT_RUN_ID: parent} if parent else {}
            created = client.create_run(found.experiment_id, None, tags, record.trial).info.run_id
            run = NestedRun(client, created, tracking.log)
            client.log_batch(run.id, params=[Param(name, str(value)) for name, value in record.params.items()])
        try:
            yield run
        except BaseException as error:
            with patience(SOON), outlived(tracking.log):
                client.set_terminated(run.id, "KILLED" if isinstance(error, Interrupted) else "FAILED")
            raise
        client.set_terminated(run.id, run.status)


def _parent(client: Any, experiment: str, run: dg.DagsterRun) -> str | None:
    """The MLflow run of this Dagster run, or of the one that it goes on from."""
    for dagster_run in (run.run_id, run.parent_run_id, run.root_run_id):
        if dagster_run and (found := client.search_runs([experiment], f"tags.dagster_run_id = '{dagster_run}'")):
            return found[0].info.run_id
    return None


def choose_winners(spec: ModelSpec, catalog: Catalog, day: date, lake: Lake, run: str) -> dict[str, Any]:
    """Conclude every search of the model; returns metadata.

    Raises:
        TrainingError: if too many trials of one failed.
    """
    from ml_platform.evaluation.plots import values_over_trials

    training_set = lake.require(keys.training_set(spec.name), day)
    used = _windows(spec, catalog, day)
    over: dict[int, Outcome] = {}
    metadata: dict[str, Any] = {
        "fitted_on": f"{used.train[0]} to {used.train[1]}",
        "scored_on": f"{used.validation[0]} to {used.validation[1]}",
    }
    for position, candidate in spec.searched.items():
        assert candidate.search, "that is what was asked for"
        kept = _records(spec, catalog, lake, position, day)
        found, names = kept.records(), [keys.trial(position, n) for n in range(candidate.search.count)]
        lost = {name: Record(trial=name, params={}, status="failed", error="left no record") for name in names}
        records = [found.get(name, lost[name]) for name in names]
        best = best_of(keys.partition(keys.trials(spec.name), day), candidate.search, records)
        over[position] = Outcome(
            fingerprint=kept.fingerprint,
            training_set=training_set.content_hash,
            candidate=candidate.model_dump(mode="json"),
            winner=best.trial,
            records=tuple(found[name] for name in names if name in found),  # of one that is lost there is no point
        )
        values = {n: one.metrics[spec.select_by] for n, one in enumerate(records) if one.status == "complete"}
        pruned = [n for n, one in enumerate(records) if one.status == "pruned"]
        picture = values_over_trials(values, pruned, spec.select_by, f"{candidate.trainer}, {candidate.search.how}")
        ranked = sorted(records, key=lambda one: (one.cost is None, one.cost or 0.0, one.trial))
        reported = {
            f"best_{spec.select_by}": best.metrics[spec.select_by],
            "best_params": json.dumps(best.params),
            "method": candidate.search.how,
            **{status: sum(one.status == status for one in records) for status in ("complete", "pruned", "failed")},
            "reused": sum(one.done and one.run != run for one in records),
            "fit_seconds": sum(one.seconds for one in records),
            "trials": markdown_table([_row(one, spec, run) for one in ranked]),
            "values": png_metadata(picture),
        }
        several = len(spec.searched) > 1
        metadata |= {f"c{position}_{name}" if several else name: value for name, value in reported.items()}
    inputs = [training_set.as_input(keys.training_set(spec.name), day)]
    conclude(lake, spec.name, day, over, inputs, {})
    return metadata


def _row(record: Record, spec: ModelSpec, run: str) -> dict[str, Any]:
    """A trial as people read it."""
    return {
        "trial": record.trial,
        "params": ", ".join(f"{n} {v:.4g}" if isinstance(v, float) else f"{n} {v}" for n, v in record.params.items()),
        spec.select_by: f"{record.metrics[spec.select_by]:.4f}" if record.metrics else "",
        "status": record.status + (", reused" if record.done and record.run != run else ""),
        "epochs": max(record.losses, default=0),
        "seconds": f"{record.seconds:.1f}",
        "error": record.error.replace("\n", " "),
    }


def _records(spec: ModelSpec, catalog: Catalog, lake: Lake, position: int, day: date) -> LakeTrials:
    training_set = lake.require(keys.training_set(spec.name), day).content_hash
    return LakeTrials(lake, spec.name, position, day, fingerprint(spec, catalog, position, day, training_set))


def _windows(spec: ModelSpec, catalog: Catalog, day: date) -> Windows:
    return search_windows(spec.training, catalog.label_delay(spec), day)


def _day(context: dg.OpExecutionContext) -> date:
    return date.fromisoformat(context.partition_key)
