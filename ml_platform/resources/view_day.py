"""A day of a feature view: computed from the raw days that it looks back on, and judged. Whoever asks writes it, or looks at it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import ONE_DAY, day_range
from ml_platform.core.errors import FeatureError, LakeError
from ml_platform.core.spec import FeatureViewSpec
from ml_platform.data.contract import arrow_schema
from ml_platform.data.staging import StagedTable, stage_all
from ml_platform.features.engine import Engine
from ml_platform.features.health import (
    CHECKS,
    NORM_DAYS,
    Shift,
    Verdict,
    distribution_is_normal,
    entities_are_covered,
    nulls_are_within_limits,
    same_inputs_give_same_values,
    shifts,
    values_are_in_range,
)
from ml_platform.features.leakage import no_future_information
from ml_platform.features.views import compute, definition, input_days, view_inputs
from ml_platform.resources.lake import Lake
from ml_platform.resources.ledger import QUALITY
from ml_platform.resources.lineage import DEFINITION, current_inputs, required_inputs, view_needs
from ml_platform.resources.manifest import Input, Manifest

if TYPE_CHECKING:
    import pyarrow.dataset as pads  # it imports pandas


@dataclass(frozen=True)
class Computed:
    """What was made of a day's inputs (`days` by source). `before` is what the lake has; `former`, if it was made from the same.

    `verdicts` are by the names of the checks, `shifted` how each feature differs from its norm; none where there is no norm.
    """

    days: Mapping[str, list[date]]
    inputs: Sequence[Input]
    before: Manifest | None
    former: Manifest | None
    staged: StagedTable
    verdicts: Mapping[str, Verdict]
    shifted: Sequence[Shift]


def checks_of(view: FeatureViewSpec) -> list[str]:
    """A rolling view that misses an event is an error, so that there is nothing to check."""
    return [name for name in CHECKS if name != "entities_are_covered" or view.kind == "snapshot"]


def computed(view: FeatureViewSpec, day: date, catalog: Catalog, lake: Lake, engine: Engine, path: Path) -> Computed:
    """Load what the day looks back on, compute it into a file, and judge it.

    Raises:
        FeatureError: if the view cannot be computed, or an input is of less quality than it asks for.
        LakeError: if an input is not there, or was replaced meanwhile.
    """
    key, sources = keys.feature_view(view.name), catalog.sources
    subject = keys.partition(key, day)
    days = {source: known for source in view.inputs if (known := input_days(view, sources[source], day))}
    inputs = required_inputs(lake, view_needs(catalog, view, day))
    refuse_degraded(view, days, lake, subject)
    raw = {
        source: lake.dataset(keys.raw(source), known, arrow_schema(sources[source])) for source, known in days.items()
    }
    before = lake.manifest(key, day)
    former = before if before and list(before.inputs) == inputs else None  # made from what is there now
    norm = norm_of(view, day, catalog, lake)
    given = view_inputs(view, day, sources, raw, engine)
    rows = compute(view, day, sources, given, engine)
    staged = stage_all(rows.schema, rows, path)
    made = staged.dataset()
    shifted = shifts(view, norm, made) if norm else []
    verdicts = {
        "no_future_information": no_future_information(view, day, sources, given, made, engine),
        "values_are_in_range": values_are_in_range(view, made),
        "nulls_are_within_limits": nulls_are_within_limits(view, rows.nulls, staged.rows),
        "entities_are_covered": covered(view, days, catalog, lake, made),
        "distribution_is_normal": distribution_is_normal(view, shifted if norm else None),
        "same_inputs_give_same_values": repeated(view, day, catalog, lake, former, made),
    }
    if current_inputs(lake.manifest, view_needs(catalog, view, day)) != inputs:
        raise LakeError(subject, "its inputs were replaced while it was computed", "it is tried again")
    judged = {name: verdicts[name] for name in checks_of(view)}
    return Computed(days, inputs, before, former, staged, judged, shifted)


def norm_of(view: FeatureViewSpec, day: date, catalog: Catalog, lake: Lake) -> "pads.Dataset | None":
    """The days by which a day's distribution is judged; None where there are too few, or look back on too little."""
    days = list(day_range(day - timedelta(days=NORM_DAYS), day - ONE_DAY))
    if any(len(input_days(view, catalog.sources[s], days[0])) < needs.window_days for s, needs in view.inputs.items()):
        return None
    manifests = lake.manifests(keys.feature_view(view.name), days)
    alike = [manifest for manifest in manifests.values() if manifest.tags.get(DEFINITION) == definition(view)]
    return lake.dataset(keys.feature_view(view.name), days) if len(alike) == NORM_DAYS else None


def covered(
    view: FeatureViewSpec, days: Mapping[str, list[date]], catalog: Catalog, lake: Lake, made: "pads.Dataset"
) -> Verdict:
    """Whether the entities of the newest raw day that has the entity at all have rows."""
    source = next((name for name in days if view.entity in catalog.sources[name].columns), None)
    if view.kind == "rolling" or source is None:
        return Verdict(True)
    return entities_are_covered(view, made, lake.dataset(keys.raw(source), days[source][-1:]))


def repeated(
    view: FeatureViewSpec,
    day: date,
    catalog: Catalog,
    lake: Lake,
    former: Manifest | None,
    made: "pads.Dataset",
) -> Verdict:
    """Hold a day that is computed again against what it was, unless its inputs are others now."""
    if former is None:
        return Verdict(True, "computed from these inputs for the first time")
    identity = [view.entity] if view.kind == "snapshot" else catalog.sources[view.rows or ""].key
    old = lake.read_table(keys.feature_view(view.name), [day])
    return same_inputs_give_same_values(view, [str(name) for name in identity], old, made.to_table())


def refuse_degraded(view: FeatureViewSpec, days: Mapping[str, list[date]], lake: Lake, subject: str) -> None:
    """Stop where an input has a day of less quality than the view asks for.

    Raises:
        FeatureError: naming the first such day, and how to judge it.
    """
    for source, known in days.items():
        if view.inputs[source].quality == "good":
            for day, manifest in lake.manifests(keys.raw(source), known).items():
                if (quality := manifest.tags.get(QUALITY)) != "good":
                    raise FeatureError(
                        subject,
                        f"{keys.partition(keys.raw(source), day)} is {quality}, and inputs.{source}.quality is good",
                        f"ml-platform quarantine show {source} {day}",
                    )
