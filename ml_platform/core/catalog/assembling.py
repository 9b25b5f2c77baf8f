"""From documents to one catalog: names are unique, the cluster's profiles are in place, and other projects' sources are there to read."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from ml_platform.core import keys
from ml_platform.core.catalog.catalog import Catalog
from ml_platform.core.catalog.reading import Declared, Loader
from ml_platform.core.catalog.references import review
from ml_platform.core.errors import SettingsError, SpecError
from ml_platform.core.mistakes import Mistake, first_mistake, nearest
from ml_platform.core.spec import (
    SEGMENT,
    AlertsSpec,
    ClusterSpec,
    ColumnSpec,
    FeatureViewSpec,
    ModelSpec,
    PodSpec,
    ProjectSpec,
    SourceSpec,
)

PODS = ("resources", "batch_resources")  # fields of specs

_Single = TypeVar("_Single", AlertsSpec, ClusterSpec, ProjectSpec)
_Named = TypeVar("_Named", SourceSpec, FeatureViewSpec, ModelSpec)


def assembled(
    found: list[Declared],
    first_day: date | None,
    cluster: str,
    broken: Mapping[Path, SpecError],
    others: Callable[[str], Catalog],
) -> tuple[Catalog, dict[Path, list[SpecError]]]:
    """The catalog of these specs, and what is wrong between them, by file; `others` gives that of another project's package."""
    errors: dict[Path, list[SpecError]] = {}

    def note(declared: Declared, *wrong: SpecError) -> None:
        if wrong:
            errors.setdefault(declared.path, []).extend(wrong)

    sources = _by_name(found, SourceSpec, note)
    if first_day is not None:
        sources = {name: spec.model_copy(update={"start_date": first_day}) for name, spec in sources.items()}
    sources = {name: _with_segment(spec) for name, spec in sources.items()}
    views, models = _by_name(found, FeatureViewSpec, note), _by_name(found, ModelSpec, note)
    own = Catalog(
        sources,
        views,
        models,
        _cluster(found, cluster, note),
        broken=MappingProxyType(dict(broken)),
        alerts=_only(found, AlertsSpec, note),
    )
    catalog = _among_others(own, found, others, note)
    for declared in found:
        note(declared, *review(declared, catalog))
    for declared, circle in _circles(found, catalog):
        note(declared, circle)
    return _with_pods(found, catalog, note), errors


def _by_name(found: list[Declared], kind: type[_Named], note: Any) -> dict[str, _Named]:
    named: dict[str, _Named] = {}
    origin: dict[str, Path] = {}
    for one in found:
        if not isinstance(one.spec, kind):
            continue
        name = one.spec.name
        if name in named:
            problem = f"name {name!r} is already taken by {origin[name]}"
            note(one, one.error(Mistake(("name",), problem, "choose another `name:`")))
            continue
        named[name], origin[name] = one.spec, one.path
    return named


def _only(found: list[Declared], kind: type[_Single], note: Any) -> _Single | None:
    """The spec of a component that a project has once, if it has it."""
    declared = [(one, one.spec) for one in found if isinstance(one.spec, kind)]
    for other, _ in declared[1:]:
        what = other.component.rpartition(".")[2]
        problem = f"there {'are' if what.endswith('s') else 'is a'} {what} already in {declared[0][0].path}"
        note(other, other.error(Mistake((), problem, "keep one of them")))
    return declared[0][1] if declared else None


def _with_segment(source: SourceSpec) -> SourceSpec:
    """The source as its readers see it."""
    if not source.segments:
        return source
    return source.model_copy(update={"columns": {**source.columns, SEGMENT: ColumnSpec(type="string")}})


def _among_others(own: Catalog, found: list[Declared], others: Callable[[str], Catalog], note: Any) -> Catalog:
    """The catalog with what its project reads of others, and with where whose tables lie."""
    _only(found, ProjectSpec, note)
    said = [one for one in found if isinstance(one.spec, ProjectSpec)]
    names = {one.spec.name: one.path for one in found if isinstance(one.spec, SourceSpec | FeatureViewSpec | ModelSpec)}
    own = replace(own, origins=MappingProxyType(names))
    if not said or not isinstance(project := said[0].spec, ProjectSpec):
        return own
    homes = dict.fromkeys(_tables(own), project.prefix) if project.prefix else {}
    sources, foreign = dict(own.sources), set[str]()
    for position, package in enumerate(project.reads):
        try:
            theirs = others(package)
        except SettingsError as error:
            note(said[0], said[0].error(Mistake(("reads", position), f"{package}: {error.problem}", error.next_step)))
            continue
        for name, source in theirs.own_sources.items():
            if name in sources:
                problem = f"{name!r} is declared in {names.get(name, package)} and in {theirs.origins[name]}"
                note(
                    said[0],
                    said[0].error(Mistake(("reads", position), problem, "choose another `name:` in one of them")),
                )
                continue
            sources[name] = source
            foreign.add(name)
        homes |= {table: home for table, home in theirs.homes.items() if table in theirs.own_sources}
    return replace(own, sources=sources, foreign=frozenset(foreign), homes=MappingProxyType(homes))


def _tables(catalog: Catalog) -> list[str]:
    """Owners of tables, and the tables of views, which have one owner."""
    return [*catalog.sources, *catalog.models, *(keys.feature_view(view) for view in catalog.views)]


def _circles(found: list[Declared], catalog: Catalog) -> list[tuple[Declared, SpecError]]:
    """No source is judged, however indirectly, by itself."""
    referred = {name: {r.source for r in source.references.values()} for name, source in catalog.sources.items()}
    try:
        TopologicalSorter(referred).prepare()
    except CycleError as error:
        circle = error.args[1]
        one = next(one for one in found if isinstance(one.spec, SourceSpec) and one.spec.name in circle)
        problem = f"references go in a circle: {' -> '.join(circle)}"
        return [(one, one.error(Mistake(("references",), problem, "mend `references`")))]
    return []


def _cluster(found: list[Declared], differences: str, note: Any) -> ClusterSpec:
    """The cluster of the files, with what is said in place of that; a profile is said anew as a whole."""
    cluster = _only(found, ClusterSpec, note) or ClusterSpec()
    if not differences:
        return cluster
    try:
        given = yaml.load(differences, Loader=Loader)
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


def _with_pods(found: list[Declared], catalog: Catalog, note: Any) -> Catalog:
    """The catalog with what the cluster's profiles say in place of their names."""
    parts: dict[type, dict[str, Any]] = {
        SourceSpec: dict(catalog.sources), FeatureViewSpec: dict(catalog.views), ModelSpec: dict(catalog.models)
    }  # fmt: skip
    for one in found:
        if (part := parts.get(type(one.spec))) is not None:
            name = one.spec.name  # type: ignore[attr-defined]  # the three have one
            part[name] = part[name].model_copy(update=_pods_of(one, catalog.cluster, note))
    sources, views, models = parts.values()
    return replace(catalog, sources=sources, views=views, models=models)


def _pods_of(declared: Declared, cluster: ClusterSpec, note: Any) -> dict[str, PodSpec]:
    """A spec's pods by field, with what their profiles say in place of the profiles' names."""
    pods = {}
    for where in PODS:
        pod: PodSpec | None = getattr(declared.spec, where, None)
        if pod is None:
            continue
        sizes = {f"{where}.sizes.{place}": size for place, size in enumerate(getattr(pod, "sizes", ()))}
        unknown = [
            (f"{within}.profiles.{place}", profile)
            for within, one in {where: pod, **sizes}.items()
            for place, profile in enumerate(one.profiles)
            if profile not in cluster.profiles
        ]
        for at, profile in unknown:
            problem = f"`{at}`: no profile of the cluster {profile!r}{nearest(profile, cluster.profiles)}"
            location = tuple(int(part) if part.isdigit() else part for part in at.split("."))
            note(declared, declared.error(Mistake(location, problem, f"mend `{at}`")))
        if unknown:
            continue
        try:
            pods[where] = pod.resolved(cluster.profiles)
        except ValidationError as error:
            mistake = first_mistake(type(pod), error, (where,))
            problem = f"`{where}`: with its profiles and sizes: {mistake.problem}"
            note(declared, declared.error(Mistake((where,), problem, mistake.next_step)))
    return pods
