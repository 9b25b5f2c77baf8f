"""The catalog: all specs below a defs folder, checked one by one and against each other.

Dagster, the command line and the processes that know no Dagster read the same catalog. A mistake is reported with file,
line and the nearest valid name before Dagster sees the file.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property, lru_cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ml_platform.core.errors import SettingsError, SpecError
from ml_platform.core.mistakes import Location, first_mistake, nearest
from ml_platform.core.settings import Settings
from ml_platform.core.spec import (
    SEGMENT,
    AutomationSpec,
    ClusterSpec,
    ColumnSpec,
    FeatureViewSpec,
    ModelSpec,
    OnlineStoreSpec,
    PodSpec,
    SourceSpec,
)
from ml_platform.core.spec.expression import read_by
from ml_platform.core.spec.trainers import PARAMS, check_trainer
from ml_platform.core.values import INTEGERS

SPEC_OF_COMPONENT: dict[str, type[BaseModel]] = {
    "ml_platform.components.Source": SourceSpec,
    "ml_platform.components.FeatureView": FeatureViewSpec,
    "ml_platform.components.OnlineStore": OnlineStoreSpec,
    "ml_platform.components.Model": ModelSpec,
    "ml_platform.components.Automation": AutomationSpec,
    "ml_platform.components.Cluster": ClusterSpec,
}
PODS = ("resources", "batch_resources")  # fields of specs
DEFS = Path(__file__).parent.parent / "defs"
_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Safe):
    """YAML's, which of a key that is there twice would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge" else key
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key `{name}` is there twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


_Named = TypeVar("_Named", SourceSpec, FeatureViewSpec, ModelSpec)


@dataclass(frozen=True)
class Catalog:
    """Specs by name, as the rest of the platform reads them: a source with segments has the column `segment`."""

    sources: dict[str, SourceSpec]
    views: dict[str, FeatureViewSpec]
    models: dict[str, ModelSpec]
    cluster: ClusterSpec = field(default_factory=ClusterSpec)

    @cached_property
    def feeds(self) -> dict[str, SourceSpec]:
        """What lands and is ingested by itself: each source, or each of its segments as `<source>/<segment>`."""
        return {feed.name: feed for source in self.sources.values() for feed in self.feeds_of(source)}

    @cached_property
    def plugins(self) -> frozenset[str]:
        """Import paths of all trainers that the project's model files name: code that its owners trust."""
        candidates = (candidate for model in self.models.values() for candidate in model.candidates)
        return frozenset(name for candidate in candidates for name in candidate.trainers if "." in name)

    def feeds_of(self, source: SourceSpec) -> list[SourceSpec]:
        if not source.segments:
            return [source]
        columns = {name: column for name, column in source.columns.items() if name != SEGMENT}
        return [
            source.model_copy(update={"name": f"{source.name}/{segment}", "segments": (), "columns": columns})
            for segment in source.segments
        ]

    def snapshot_views(self, model: ModelSpec | None = None) -> list[FeatureViewSpec]:
        """Snapshot views of one model, in the order it names them, or of all."""
        names: Iterable[str] = model.features if model else self.views
        return [self.views[name] for name in names if self.views[name].kind == "snapshot"]

    def daily_views(self, model: ModelSpec | None = None) -> list[FeatureViewSpec]:
        """Views with a partition a day, snapshot and rolling, of one model or of all."""
        names: Iterable[str] = model.features if model else self.views
        return [self.views[name] for name in names if self.views[name].kind != "request"]

    def request_views(self, model: ModelSpec) -> list[FeatureViewSpec]:
        return [self.views[name] for name in model.features if self.views[name].kind == "request"]

    def entities(self, model: ModelSpec) -> list[str]:
        """The columns by which the model's snapshot features are looked up."""
        return list(dict.fromkeys(view.entity for view in self.snapshot_views(model) if view.entity))

    def label_delay(self, model: ModelSpec) -> int:
        return self.sources[model.label.source].delay_days

    def view_start(self, view: FeatureViewSpec) -> date:
        """The first day with events, or the first one at whose start some row of the view's inputs is known."""
        if view.rows:
            return self.sources[view.rows].start_date
        inputs = [self.sources[source] for source in view.inputs]
        return min(source.start_date + timedelta(days=source.delay_days + 1) for source in inputs)


def catalog_at(settings: Settings) -> Catalog:
    """All specs of this installation, read once."""
    return load_catalog(first_day=settings.first_day, cluster=settings.cluster)


@lru_cache(maxsize=8)
def load_catalog(folder: Path = DEFS, first_day: date | None = None, cluster: str = "") -> Catalog:
    """All specs below `folder`; `cluster`, as YAML, is what is different on this cluster.

    Raises:
        SpecError: with file, line and the nearest valid name, for the first mistake found.
        SettingsError: if `cluster` says what it may not.
    """
    found: list[tuple[Path, BaseModel]] = [
        (path, spec) for path in sorted(folder.rglob("defs.yaml")) for spec in _read(path)
    ]
    sources = _by_name(found, SourceSpec)
    if first_day is not None:
        sources = {name: spec.model_copy(update={"start_date": first_day}) for name, spec in sources.items()}
    sources = {name: _with_segment(spec) for name, spec in sources.items()}
    here = _cluster(found, cluster)
    catalog = Catalog(sources, _by_name(found, FeatureViewSpec), _by_name(found, ModelSpec), here)
    for path, spec in found:
        _check_references(_File(path), spec, catalog)
    _check_for_circles(found, catalog)
    return _with_pods(found, catalog)


def _with_pods(found: list[tuple[Path, BaseModel]], catalog: Catalog) -> Catalog:
    """The catalog with what the cluster's profiles say in place of their names."""
    parts: dict[type[BaseModel], dict[str, Any]] = {
        SourceSpec: dict(catalog.sources), FeatureViewSpec: dict(catalog.views), ModelSpec: dict(catalog.models)
    }  # fmt: skip
    for path, spec in found:
        if (part := parts.get(type(spec))) is not None:
            name = spec.name  # type: ignore[attr-defined]  # the three have one
            part[name] = part[name].model_copy(update=_pods_of(_File(path), spec, catalog.cluster))
    return Catalog(*parts.values(), catalog.cluster)  # type: ignore[arg-type]  # in the order of the fields


def _cluster(found: list[tuple[Path, BaseModel]], differences: str) -> ClusterSpec:
    """The cluster of the files, with what is said in place of that; a profile is said anew as a whole."""
    declared = [(path, spec) for path, spec in found if isinstance(spec, ClusterSpec)]
    if len(declared) > 1:
        raise SpecError(str(declared[1][0]), f"there is a Cluster already in {declared[0][0]}", "keep one of them")
    cluster = declared[0][1] if declared else ClusterSpec()
    if not differences:
        return cluster
    try:
        given = yaml.load(differences, Loader=_Loader)
        if not isinstance(given, dict):
            raise SettingsError(
                "ML_PLATFORM_CLUSTER", "is no mapping", "give fields of Cluster, such as {profiles: ...}"
            )
        own = ClusterSpec.model_validate(given)
    except yaml.YAMLError as error:
        problem = f"is not valid YAML: {getattr(error, 'problem', error)}"
        raise SettingsError("ML_PLATFORM_CLUSTER", problem, "mend it") from error
    except ValidationError as error:
        mistake = first_mistake(ClusterSpec, error)
        raise SettingsError("ML_PLATFORM_CLUSTER", mistake.problem, mistake.next_step) from error
    changed = {name: getattr(own, name) for name in own.model_fields_set}
    return cluster.model_copy(update={**changed, "profiles": {**cluster.profiles, **own.profiles}})


def _pods_of(file: "_File", spec: BaseModel, cluster: ClusterSpec) -> dict[str, PodSpec]:
    """A spec's pods by field, with what their profiles say in place of the profiles' names."""
    pods = {}
    for where in PODS:
        pod: PodSpec | None = getattr(spec, where, None)
        if pod is None:
            continue
        sizes = {f"{where}.sizes.{place}": size for place, size in enumerate(getattr(pod, "sizes", ()))}
        for within, one in {where: pod, **sizes}.items():
            for place, profile in enumerate(one.profiles):
                file.known(profile, cluster.profiles, "profile of the cluster", f"{within}.profiles.{place}")
        try:
            pods[where] = pod.resolved(cluster.profiles)
        except ValidationError as error:
            mistake = first_mistake(type(pod), error, (where,))
            file.refuse(where, f"with its profiles and sizes: {mistake.problem}", mistake.next_step)
    return pods


def _with_segment(source: SourceSpec) -> SourceSpec:
    """The source as its readers see it."""
    if not source.segments:
        return source
    return source.model_copy(update={"columns": {**source.columns, SEGMENT: ColumnSpec(type="string")}})


def _read(path: Path) -> Iterator[BaseModel]:
    text = path.read_text(encoding="utf-8")
    try:
        documents = [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]  # a safe one
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = where.line + 1 if where else 1
        raise SpecError(
            f"{path}:{line}", f"not valid YAML: {getattr(error, 'problem', error)}", "mend the file"
        ) from error
    if not documents:
        raise SpecError(f"{path}:1", "the file is empty", "write `type:` and `attributes:`, or remove it")
    for number, document in enumerate(documents):
        if not isinstance(document, dict) or not isinstance(document.get("type"), str):
            raise SpecError(
                f"{path}:1", "a component file has `type:` and `attributes:`", "copy one from ml_platform/defs"
            )
        model = SPEC_OF_COMPONENT.get(document["type"])
        if model is None:
            if document["type"].startswith("ml_platform."):
                hint = nearest(document["type"], SPEC_OF_COMPONENT)
                raise SpecError(
                    f"{path}:{_line(text, number, ('type',))}",
                    f"unknown type {document['type']!r}{hint}",
                    "mend `type:`",
                )
            continue  # another package's component: Dagster's business alone
        try:
            yield model.model_validate(document.get("attributes") or {})
        except ValidationError as error:
            mistake = first_mistake(model, error)
            line = _line(text, number, ("attributes", *mistake.location))
            raise SpecError(f"{path}:{line}", mistake.problem, mistake.next_step) from error


def _line(text: str, number: int, location: tuple[int | str, ...]) -> int:
    """The line of the deepest part of `location` that the text has."""
    nodes = [node for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if node is not None]
    node: Any = nodes[number]
    line = node.start_mark.line
    for part in location:
        if isinstance(node, yaml.MappingNode):
            match = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if match is None:
                break
            line, node = match[0].start_mark.line, match[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
    return line + 1


def _by_name(found: list[tuple[Path, BaseModel]], kind: type[_Named]) -> dict[str, _Named]:
    named: dict[str, _Named] = {}
    origin: dict[str, Path] = {}
    for path, spec in found:
        if isinstance(spec, kind):
            if spec.name in named:
                raise SpecError(
                    str(path), f"name {spec.name!r} is already taken by {origin[spec.name]}", "choose another `name:`"
                )
            named[spec.name] = spec
            origin[spec.name] = path
    return named


@dataclass(frozen=True)
class _File:
    """The file that a spec is from, to name in errors."""

    path: Path

    def refuse(self, field: str, problem: str, next_step: str) -> NoReturn:
        location = tuple(int(part) if part.isdigit() else part for part in field.split("."))
        raise SpecError(self.at(location), f"`{field}`: {problem}", next_step)

    def at(self, location: Location) -> str:
        """File and line."""
        return f"{self.path}:{_line(self.path.read_text(encoding='utf-8'), 0, ('attributes', *location))}"

    def known(self, name: str, among: Iterable[str], what: str, field: str) -> None:
        if name not in among:
            self.refuse(field, f"no {what} {name!r}{nearest(name, among)}", f"mend `{field}`")

    def same_type(self, field: str, one: str, its: ColumnSpec, other: str, others: ColumnSpec) -> None:
        """Two columns whose values are held against each other; of whole numbers any two will do."""
        if its.type != others.type and not {its.type, others.type} <= INTEGERS.keys():
            self.refuse(field, f"{one} is {its.type} and {other} is {others.type}", "declare both as the same type")


def _check_references(file: _File, spec: BaseModel, catalog: Catalog) -> None:
    """Every name that a spec mentions exists, and has what is asked of it."""
    if isinstance(spec, SourceSpec):
        _check_source(file, spec, catalog)
    if isinstance(spec, FeatureViewSpec):
        _check_view(file, spec, catalog)
    if isinstance(spec, ModelSpec):
        _check_model(file, spec, catalog)
        _check_candidates(file, spec, catalog)


def _check_source(file: _File, spec: SourceSpec, catalog: Catalog) -> None:
    whole = {name for name, source in catalog.sources.items() if not source.segments}
    for column, reference in spec.references.items():
        field = f"references.{column}"
        file.known(reference.source, whole - {spec.name}, "other source without segments", f"{field}.source")
        columns = catalog.sources[reference.source].columns
        file.known(reference.column, columns, f"column of {reference.source}", f"{field}.column")
        file.same_type(
            field,
            f"{spec.name}.{column}",
            spec.columns[column],
            f"{reference.source}.{reference.column}",
            columns[reference.column],
        )


def _check_view(file: _File, spec: FeatureViewSpec, catalog: Catalog) -> None:
    for source in spec.inputs:
        file.known(source, catalog.sources, "source", "inputs")
    if spec.entity:
        with_it = [spec.rows] if spec.rows else spec.inputs
        columns = {column for source in with_it for column in catalog.sources[source].columns}
        file.known(spec.entity, columns, f"column of {' or '.join(with_it)}", "entity")
        with_entity = [source for source in spec.inputs if spec.entity in catalog.sources[source].columns]
        for one, other in pairwise(with_entity):
            pair = [(f"{name}.{spec.entity}", catalog.sources[name].columns[spec.entity]) for name in (one, other)]
            file.same_type("entity", *pair[0], *pair[1])
    if spec.rows and (late := catalog.sources[spec.rows].delay_days):
        problem = f"{spec.rows} is known only {late} days after its events"
        file.refuse("rows", problem, "name a source without delay_days")
    if spec.rows and spec.entity and catalog.sources[spec.rows].columns[spec.entity].nullable:
        file.refuse("entity", f"{spec.entity} may be null, which is nobody's past", "leave `entity` out")


def _check_model(file: _File, spec: ModelSpec, catalog: Catalog) -> None:
    file.known(spec.entity_rows, catalog.sources, "source", "entity_rows")
    file.known(spec.label.source, catalog.sources, "source", "label.source")
    label_source, rows = catalog.sources[spec.label.source], catalog.sources[spec.entity_rows]
    file.known(spec.label.column, label_source.columns, f"column of {spec.label.source}", "label.column")
    for column in label_source.key:
        file.known(column, rows.columns, f"column of {spec.entity_rows}, by which labels are joined,", "label.source")
    for column in label_source.key:
        of_label, of_rows = label_source.columns[column], rows.columns[column]
        file.same_type("label.source", f"{spec.label.source}.{column}", of_label, f"{rows.name}.{column}", of_rows)
    span = spec.training.span_days(label_source.delay_days)
    if label_source.corrections == "latest" and rows.horizon < span:
        problem = (
            f"{spec.label.source} has corrections: latest, so that its rows are told by key over the {span} days of a"
        )
        problem += f" training, and keys of {spec.entity_rows} are unique within {rows.horizon} only"
        file.refuse("label.source", problem, f"set unique_within_days: {span} in the source {spec.entity_rows}")
    for position, gate in enumerate(spec.gates):
        if gate.per:
            file.known(gate.per, rows.columns, f"column of {spec.entity_rows}", f"gates.{position}.per")
    for view in spec.features:
        file.known(view, catalog.views, "feature view", "features")
    if "cold_start_share" in spec.training.model_fields_set and not catalog.snapshot_views(spec):
        problem = "no snapshot view is among the features, so that nobody is looked up"
        file.refuse("training.cold_start_share", problem, "leave it out")
    for position, gate in enumerate(spec.gates):
        if gate.check == "cold_start_is_sane" and not catalog.snapshot_views(spec):
            problem = "no snapshot view is among the features, so that nobody is looked up"
            file.refuse(f"gates.{position}.check", problem, "leave the gate out")
    for view in catalog.daily_views(spec):
        if view.rows and view.rows != spec.entity_rows:
            problem = f"{view.name} has features of {view.rows}, not of {spec.entity_rows}"
            file.refuse("features", problem, "leave it out")
    first_with: dict[str, str] = {}
    for view in (catalog.views[name] for name in spec.features):
        for feature in view.features:
            if (other := first_with.setdefault(feature, view.name)) != view.name:
                file.refuse("features", f"{other} and {view.name} both have {feature}", "rename one, or leave one out")
    _check_expressions(file, spec, catalog)
    for view in catalog.snapshot_views(spec):
        entity = view.entity or ""
        file.known(entity, rows.columns, f"column of {spec.entity_rows}, by which features are looked up,", "features")
        for name in (name for name in view.inputs if entity in catalog.sources[name].columns):
            its = catalog.sources[name].columns[entity]
            file.same_type(
                "features", f"{name}.{entity}, of {view.name},", its, f"{rows.name}.{entity}", rows.columns[entity]
            )


def _check_expressions(file: _File, spec: ModelSpec, catalog: Catalog) -> None:
    """Request features read columns that there are, and know what to do about a null."""
    rows = catalog.sources[spec.entity_rows]
    looked_up = {name for view in catalog.daily_views(spec) for name in view.features}
    for view in catalog.request_views(spec):
        for name, feature in view.features.items():
            found = read_by(feature.expression or "")
            for column in found.columns:
                what = f"column of {spec.entity_rows}, or feature of the model, that {view.name}.{name} reads,"
                file.known(column, [*rows.columns, *looked_up], what, "features")
            nullable = [c for c in found.bare if c in rows.columns and rows.columns[c].nullable]
            if nullable and not feature.categories and "default" not in feature.model_fields_set:
                problem = f"{view.name}.{name} reads {nullable[0]}, which may be null, and has no default"
                next_step = f"set `default` of {name}, or write is_null({nullable[0]}) or fill_null({nullable[0]}, 0)"
                file.refuse("features", problem, next_step)


def _check_candidates(file: _File, spec: ModelSpec, catalog: Catalog) -> None:
    """Trainers exist, and those that are built in know their params. Here and not in the spec: a bundle has to load that
    was made before a param got another name."""
    features = {name: f for view in spec.features for name, f in catalog.views[view].features.items()}
    for position, candidate in enumerate(spec.candidates):
        try:
            check_trainer(candidate.trainer)
        except SpecError as error:
            file.refuse(f"candidates.{position}.trainer", f"{error.subject}: {error.problem}", error.next_step)
        if model := PARAMS.get(candidate.trainer):
            params = _checked(file, model, candidate.params, ("candidates", position, "params"))
            for point in candidate.search.extremes() if candidate.search else ():
                _checked(file, model, {**candidate.params, **point}, ("candidates", position, "search"))
            for field, among, what in (
                ("steps", {feature.vector for feature in features.values()} - {""}, "vector feature"),
                ("embeddings", {name for name, f in features.items() if f.categories}, "feature with categories"),
            ):
                for name in getattr(params, field, ()):
                    file.known(name, among, what, f"candidates.{position}.params.{field}")


def _checked(file: _File, model: type[BaseModel], params: Mapping[str, Any], within: Location) -> BaseModel:
    try:
        return model.model_validate(params)
    except ValidationError as error:
        mistake = first_mistake(model, error, within)
        raise SpecError(file.at(mistake.location), mistake.problem, mistake.next_step) from error


def _check_for_circles(found: list[tuple[Path, BaseModel]], catalog: Catalog) -> None:
    """No source is judged, however indirectly, by itself."""
    referred = {name: {r.source for r in source.references.values()} for name, source in catalog.sources.items()}
    try:
        TopologicalSorter(referred).prepare()
    except CycleError as error:
        circle = error.args[1]
        path = next(path for path, spec in found if isinstance(spec, SourceSpec) and spec.name in circle)
        raise SpecError(str(path), f"references go in a circle: {' -> '.join(circle)}", "mend `references`") from error
