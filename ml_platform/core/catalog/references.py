"""Specs held against each other: every name that one mentions exists, and has what is asked of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, ValidationError

from ml_platform.core.catalog.catalog import Catalog
from ml_platform.core.catalog.reading import Declared
from ml_platform.core.errors import SpecError
from ml_platform.core.mistakes import Location, Mistake, mistakes, nearest
from ml_platform.core.spec import AlertsSpec, ColumnSpec, FeatureViewSpec, ModelSpec, SourceSpec
from ml_platform.core.spec.expression import read_by
from ml_platform.core.spec.trainers import PARAMS, check_trainer
from ml_platform.core.values import INTEGERS


@dataclass(frozen=True)
class Review:
    """What is found wrong with one spec, in the order in which it is looked at."""

    declared: Declared
    errors: list[SpecError] = field(default_factory=list)

    def refuse(self, field: str, problem: str, next_step: str) -> None:
        location = tuple(int(part) if part.isdigit() else part for part in field.split("."))
        self.errors.append(self.declared.error(Mistake(location, f"`{field}`: {problem}", next_step)))

    def known(self, name: str, among: Iterable[str], what: str, field: str) -> bool:
        """Whether the name is among those; where it is not, that is a mistake."""
        there = name in among
        if not there:
            self.refuse(field, f"no {what} {name!r}{nearest(name, among)}", f"mend `{field}`")
        return there

    def all_known(self, names: Iterable[str], among: Iterable[str], what: str, field: str) -> bool:
        """The same of several, of which each that is not there is said."""
        return sum(not self.known(name, among, what, field) for name in names) == 0

    def same_type(self, field: str, one: str, its: ColumnSpec, other: str, others: ColumnSpec) -> None:
        """Two columns whose values are held against each other; of whole numbers any two will do."""
        if its.type != others.type and not {its.type, others.type} <= INTEGERS.keys():
            self.refuse(field, f"{one} is {its.type} and {other} is {others.type}", "declare both as the same type")


def review(declared: Declared, catalog: Catalog) -> list[SpecError]:
    """All mistakes of a spec that only the others show."""
    found = Review(declared)
    if isinstance(declared.spec, SourceSpec):
        _source(found, declared.spec, catalog)
    if isinstance(declared.spec, FeatureViewSpec):
        _view(found, declared.spec, catalog)
    if isinstance(declared.spec, ModelSpec):
        _model(found, declared.spec, catalog)
    if isinstance(declared.spec, AlertsSpec):
        _alerts(found, declared.spec, catalog)
    return found.errors


def _alerts(found: Review, spec: AlertsSpec, catalog: Catalog) -> None:
    for place, route in enumerate(spec.routes):
        for field_, what, names in (
            ("models", "model", catalog.models),
            ("sources", "source", catalog.sources),
            ("views", "feature view", catalog.views),
        ):
            found.all_known(getattr(route, field_), names, what, f"routes.{place}.{field_}")


def _source(found: Review, spec: SourceSpec, catalog: Catalog) -> None:
    whole = {name for name, source in catalog.sources.items() if not source.segments}
    for column, reference in spec.references.items():
        at = f"references.{column}"
        if not found.known(reference.source, whole - {spec.name}, "other source without segments", f"{at}.source"):
            continue
        columns = catalog.sources[reference.source].columns
        if found.known(reference.column, columns, f"column of {reference.source}", f"{at}.column"):
            one, other = f"{spec.name}.{column}", f"{reference.source}.{reference.column}"
            found.same_type(at, one, spec.columns[column], other, columns[reference.column])


def _view(found: Review, spec: FeatureViewSpec, catalog: Catalog) -> None:
    if not found.all_known(spec.inputs, catalog.sources, "source", "inputs"):
        return
    if spec.entity:
        with_it = [spec.rows] if spec.rows else spec.inputs
        columns = {column for source in with_it for column in catalog.sources[source].columns}
        if not found.known(spec.entity, columns, f"column of {' or '.join(with_it)}", "entity"):
            return
        with_entity = [source for source in spec.inputs if spec.entity in catalog.sources[source].columns]
        for one, other in pairwise(with_entity):
            pair = [(f"{name}.{spec.entity}", catalog.sources[name].columns[spec.entity]) for name in (one, other)]
            found.same_type("entity", *pair[0], *pair[1])
    if spec.rows and (late := catalog.sources[spec.rows].delay_days):
        problem = f"{spec.rows} is known only {late} days after its events"
        found.refuse("rows", problem, "name a source without delay_days")
    if spec.rows and spec.entity and catalog.sources[spec.rows].columns[spec.entity].nullable:
        found.refuse("entity", f"{spec.entity} may be null, which is nobody's past", "leave `entity` out")


def _model(found: Review, spec: ModelSpec, catalog: Catalog) -> None:
    with_rows = found.known(spec.entity_rows, catalog.sources, "source", "entity_rows")
    with_labels = found.known(spec.label.source, catalog.sources, "source", "label.source")
    if with_rows and with_labels:
        _labels(found, spec, catalog)
        rows = catalog.sources[spec.entity_rows]
        for position, gate in enumerate(spec.gates):
            for name, column in (("per", gate.per), ("resample_by", gate.resample_by)):
                if column:
                    found.known(column, rows.columns, f"column of {spec.entity_rows}", f"gates.{position}.{name}")
    if found.all_known(spec.features, catalog.views, "feature view", "features"):
        if with_rows:
            _features(found, spec, catalog)
            rows = catalog.sources[spec.entity_rows].columns
            looked_up = [name for view in catalog.daily_views(spec) for name in view.features]
            what = f"column of {spec.entity_rows}, or feature that is no request feature,"
            found.all_known(spec.monitoring.slices, [*rows, *looked_up], what, "monitoring.slices")
        _candidates(found, spec, catalog)


def _labels(found: Review, spec: ModelSpec, catalog: Catalog) -> None:
    labels, rows = catalog.sources[spec.label.source], catalog.sources[spec.entity_rows]
    found.known(spec.label.column, labels.columns, f"column of {spec.label.source}", "label.column")
    what = f"column of {spec.entity_rows}, by which labels are joined,"
    for column in labels.key:
        if found.known(column, rows.columns, what, "label.source"):
            one, other = f"{spec.label.source}.{column}", f"{rows.name}.{column}"
            found.same_type("label.source", one, labels.columns[column], other, rows.columns[column])
    span = spec.training.span_days(labels.delay_days)
    if labels.corrections == "latest" and rows.horizon < span:
        problem = (
            f"{spec.label.source} has corrections: latest, so that its rows are told by key over the {span} days of a"
            f" training, and keys of {spec.entity_rows} are unique within {rows.horizon} only"
        )
        found.refuse("label.source", problem, f"set unique_within_days: {span} in the source {spec.entity_rows}")


def _features(found: Review, spec: ModelSpec, catalog: Catalog) -> None:
    rows = catalog.sources[spec.entity_rows]
    if not catalog.snapshot_views(spec):
        problem = "no snapshot view is among the features, so that nobody is looked up"
        if "cold_start_share" in spec.training.model_fields_set:
            found.refuse("training.cold_start_share", problem, "leave it out")
        for position, gate in enumerate(spec.gates):
            if gate.check == "cold_start_is_sane":
                found.refuse(f"gates.{position}.check", problem, "leave the gate out")
    for view in catalog.daily_views(spec):
        if view.rows and view.rows != spec.entity_rows:
            problem = f"{view.name} has features of {view.rows}, not of {spec.entity_rows}"
            found.refuse("features", problem, "leave it out")
    first_with: dict[str, str] = {}
    for view in (catalog.views[name] for name in spec.features):
        for feature in view.features:
            if (other := first_with.setdefault(feature, view.name)) != view.name:
                found.refuse("features", f"{other} and {view.name} both have {feature}", "rename one, or leave one out")
    _expressions(found, spec, catalog)
    what = f"column of {spec.entity_rows}, by which features are looked up,"
    for view in catalog.snapshot_views(spec):
        entity = view.entity or ""
        if not found.known(entity, rows.columns, what, "features"):
            continue
        for name in (name for name in view.inputs if entity in catalog.sources[name].columns):
            one, other = f"{name}.{entity}, of {view.name},", f"{rows.name}.{entity}"
            found.same_type("features", one, catalog.sources[name].columns[entity], other, rows.columns[entity])


def _expressions(found: Review, spec: ModelSpec, catalog: Catalog) -> None:
    """Request features read columns that there are, and know what to do about a null."""
    rows = catalog.sources[spec.entity_rows]
    looked_up = {name for view in catalog.daily_views(spec) for name in view.features}
    for view in catalog.request_views(spec):
        for name, feature in view.features.items():
            reads = read_by(feature.expression or "")
            for column in reads.columns:
                what = f"column of {spec.entity_rows}, or feature of the model, that {view.name}.{name} reads,"
                found.known(column, [*rows.columns, *looked_up], what, "features")
            nullable = [c for c in reads.bare if c in rows.columns and rows.columns[c].nullable]
            if nullable and not feature.categories and "default" not in feature.model_fields_set:
                problem = f"{view.name}.{name} reads {nullable[0]}, which may be null, and has no default"
                next_step = f"set `default` of {name}, or write is_null({nullable[0]}) or fill_null({nullable[0]}, 0)"
                found.refuse("features", problem, next_step)


def _candidates(found: Review, spec: ModelSpec, catalog: Catalog) -> None:
    """Trainers exist, and those that are built in know their params. Here and not in the spec: a bundle has to load that
    was made before a param got another name."""
    features = {name: f for view in spec.features for name, f in catalog.views[view].features.items()}
    for position, candidate in enumerate(spec.candidates):
        try:
            check_trainer(candidate.trainer)
        except SpecError as error:
            found.refuse(f"candidates.{position}.trainer", f"{error.subject}: {error.problem}", error.next_step)
            continue
        if (model := PARAMS.get(candidate.trainer)) is None:
            continue
        params = _checked(found, model, candidate.params, ("candidates", position, "params"))
        for point in candidate.search.extremes() if candidate.search and params else ():
            if not _checked(found, model, {**candidate.params, **point}, ("candidates", position, "search")):
                break
        for name, among, what in (
            ("steps", {feature.vector for feature in features.values()} - {""}, "vector feature"),
            ("embeddings", {name for name, f in features.items() if f.categories}, "feature with categories"),
        ):
            for one in getattr(params, name, ()):
                found.known(one, among, what, f"candidates.{position}.params.{name}")


def _checked(found: Review, model: type[BaseModel], params: Mapping[str, Any], within: Location) -> BaseModel | None:
    try:
        return model.model_validate(params)
    except ValidationError as error:
        found.errors.extend(found.declared.error(mistake) for mistake in mistakes(model, error, within))
        return None
