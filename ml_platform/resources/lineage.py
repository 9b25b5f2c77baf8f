"""What was made from what: which partitions a partition needs, and whether it was made from their present content."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from functools import cache
from typing import Any

from ml_platform.core import digest, keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import ONE_DAY, day_range
from ml_platform.core.spec import FeatureViewSpec, ModelSpec
from ml_platform.features.views import definition, input_days
from ml_platform.monitoring.retrain import Alarm, Seen, Train, Training, Wait, decide, from_json, ongoing
from ml_platform.resources.lake import Lake
from ml_platform.resources.manifest import Input, Manifest
from ml_platform.training.overrides import OVERRIDES, overridden
from ml_platform.training.windows import label_days, windows

ALARMS = "alarms"  # tag of a monitored day: what asks for a training
ORDINARY = "ordinary_training"  # tag of a training set with overrides: the training without, whose place it took
DEFINITION = "definition"  # tag of a feature view's partition: by which definition it was computed

PartitionName = tuple[str, date]
ReadManifest = Callable[[str, date], Manifest | None]  # Lake.manifest, or a cache of it


def view_needs(catalog: Catalog, view: FeatureViewSpec, day: date) -> Iterator[PartitionName]:
    """The raw partitions behind a view's day."""
    for source in view.inputs:
        for input_day in input_days(view, catalog.sources[source], day):
            yield keys.raw(source), input_day


def training_needs(catalog: Catalog, spec: ModelSpec, training_date: date) -> Iterator[PartitionName]:
    """The partitions that a training set as of a date is joined from."""
    used = windows(spec.training, catalog.label_delay(spec), training_date)
    for day in label_days(catalog.sources[spec.label.source], used):
        yield keys.raw(spec.label.source), day
    for day in used.days:
        yield keys.raw(spec.entity_rows), day
        for view in catalog.daily_views(spec):
            yield keys.feature_view(view.name), day


def scoring_needs(catalog: Catalog, spec: ModelSpec, day: date) -> Iterator[PartitionName]:
    """The partitions whose rows and features a day's predictions are made from; the rows first."""
    yield keys.raw(spec.entity_rows), day
    for view in catalog.daily_views(spec):
        yield keys.feature_view(view.name), day


def current_inputs(read: ReadManifest, needs: Iterator[PartitionName]) -> list[Input] | None:
    """What those partitions hold at present; None if one is missing."""
    inputs = []
    for key, day in needs:
        manifest = read(key, day)
        if manifest is None:
            return None
        inputs.append(manifest.as_input(key, day))
    return inputs


def required_inputs(lake: Lake, needs: Iterator[PartitionName]) -> list[Input]:
    """What those partitions hold at present.

    Raises:
        LakeError: if one is missing.
    """
    return [lake.require(key, day).as_input(key, day) for key, day in needs]


def view_is_current(read: ReadManifest, catalog: Catalog, view: FeatureViewSpec, day: date) -> bool:
    """Whether the view's day exists and was computed from what its raw partitions hold now, as its file says now."""
    manifest = read(keys.feature_view(view.name), day)
    if manifest is None or manifest.tags.get(DEFINITION) != definition(view):
        return False
    return current_inputs(read, view_needs(catalog, view, day)) == list(manifest.inputs)


def training_fingerprint(lake: Lake, catalog: Catalog, spec: ModelSpec, training_date: date) -> str | None:
    """Digest over all inputs of a training as of a date.

    None while one is missing or a view's day is not current, and while the snapshot as of the training date itself, which
    serving will look up, is not there. Days before the rows' source began do not count as missing data: such a training
    is never due.
    """
    used = windows(spec.training, catalog.label_delay(spec), training_date)
    if used.train[0] < catalog.sources[spec.entity_rows].start_date:
        return None
    read = cache(lake.manifest)  # the windows of neighbouring days overlap: each raw day is behind many days of views
    inputs = current_inputs(read, training_needs(catalog, spec, training_date))
    if inputs is None:
        return None
    looked_up = [(view, training_date) for view in catalog.snapshot_views(spec)]
    joined = [(view, day) for view in catalog.daily_views(spec) for day in used.days]
    if not all(view_is_current(read, catalog, view, day) for view, day in [*looked_up, *joined]):
        return None
    return inputs_fingerprint(inputs)


def training_decision(lake: Lake, catalog: Catalog, spec: ModelSpec) -> Train | Wait:
    """Whether a training is due, by what the lake holds."""
    table, delay = keys.training_set(spec.name), catalog.label_delay(spec)
    labels = keys.raw(spec.label.source)
    trained = lake.manifests(table, lake.days(table))
    any_date = date(2000, 1, 1)  # windows lie at fixed distances

    def labelled_rows(first: date, last: date) -> int:
        return sum(manifest.rows for manifest in lake.manifests(labels, day_range(first, last)).values())

    seen = Seen(
        lake.clock(),
        [day + ONE_DAY for day in lake.days(keys.raw(spec.entity_rows))],
        lambda day: training_fingerprint(lake, catalog, spec, day),
        {day: training for day, manifest in trained.items() if (training := ordinary(manifest))},
        lambda: ongoing_alarms(lake, spec.name),
        (any_date - windows(spec.training, delay, any_date).train[1]).days,
        labelled_rows,
    )
    return decide(spec, seen)


def ongoing_alarms(lake: Lake, model: str) -> list[Alarm]:
    """What monitoring finds of the newest day that it has, and since when; a manifest is read for each day that it lasts."""
    key = keys.monitoring(model)
    found = (lake.manifest(key, day) for day in reversed(lake.days(key)))
    return ongoing((one.tags["version"], from_json(one.tags[ALARMS])) for one in found if one)


def ordinary(made: Manifest) -> Training | None:
    """The training without overrides of a training set's date: its own, or the one whose place it took, if there was one."""
    if OVERRIDES not in made.tags:
        return Training(made.tags.get("inputs_fingerprint", ""), datetime.fromisoformat(made.written_at))
    before = json.loads(made.tags.get(ORDINARY, "{}"))
    return Training(before["inputs"], datetime.fromisoformat(before["at"])) if before else None


def as_trained(spec: ModelSpec, lake: Lake, day: date) -> ModelSpec:
    """The model as the run that made the date's training set wanted it.

    Raises:
        LakeError: if there is no training set.
        SpecError: if the model file does not allow any more what was overridden.
    """
    return overridden(spec, json.loads(lake.require(keys.training_set(spec.name), day).tags.get(OVERRIDES, "{}")))


def override_tags(overrides: Mapping[str, Any], before: Manifest | None) -> dict[str, str]:
    """Tags of a training set that is made with overrides, in place of another; none without."""
    if not overrides:
        return {}
    tags = {OVERRIDES: json.dumps(overrides)}
    if before and (training := ordinary(before)):
        tags[ORDINARY] = json.dumps({"inputs": training.inputs, "at": training.at.isoformat()})
    return tags


def inputs_fingerprint(inputs: list[Input], overrides: Mapping[str, Any] | None = None) -> str:
    named: list[Any] = sorted((i.name, i.version) for i in inputs)
    return digest.of_json([*named, dict(overrides)] if overrides else named)[:16]
