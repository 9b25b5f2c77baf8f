"""The catalog: all specs below a defs folder, checked one by one and against each other.

Dagster, the command line and the processes that know no Dagster read the same catalog. A mistake is reported with file,
line and the nearest valid name. Strictly read, the first one is an error; else a file with mistakes is left out, or stands
as it last was without, and the others are as they are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cached_property, lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from ml_platform.core import keys
from ml_platform.core.catalog.reading import Declared, File, Loader, files_below, read
from ml_platform.core.catalog.references import review
from ml_platform.core.errors import SettingsError, SpecError
from ml_platform.core.mistakes import Mistake, first_mistake, nearest
from ml_platform.core.project import Project, find_project, find_projects
from ml_platform.core.settings import Settings
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
_Named = TypeVar("_Named", SourceSpec, FeatureViewSpec, ModelSpec)
_Single = TypeVar("_Single", AlertsSpec, ClusterSpec, ProjectSpec)


@dataclass(frozen=True)
class Catalog:
    """Specs by name, as the rest of the platform reads them: a source with segments has the column `segment`.

    `homes` says which tables, or owners of tables, lie below a prefix of the lake, and `foreign` which sources are another
    project's: they are read here, and made there.
    """

    sources: dict[str, SourceSpec]
    views: dict[str, FeatureViewSpec]
    models: dict[str, ModelSpec]
    cluster: ClusterSpec = field(default_factory=ClusterSpec)
    homes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    foreign: frozenset[str] = frozenset()
    broken: Mapping[Path, SpecError] = field(default_factory=lambda: MappingProxyType({}))
    origins: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))  # the files of names
    alerts: AlertsSpec | None = None

    def require_whole(self) -> None:
        """For what may not go on without knowing all that is declared.

        Raises:
            SpecError: if a file has mistakes.
        """
        for error in self.broken.values():
            raise error

    @cached_property
    def feeds(self) -> dict[str, SourceSpec]:
        """What lands and is ingested by itself: each source, or each of its segments as `<source>/<segment>`."""
        return {feed.name: feed for source in self.own_sources.values() for feed in self.feeds_of(source)}

    @property
    def own_sources(self) -> dict[str, SourceSpec]:
        """The sources that are made here."""
        return {name: source for name, source in self.sources.items() if name not in self.foreign}

    @property
    def ingested(self) -> dict[str, SourceSpec]:
        """What has a raw table that is made here: sources, and their segments."""
        return {**self.own_sources, **self.feeds}

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


@dataclass(frozen=True)
class Survey:
    """All that is declared below a folder: what is right, and every mistake.

    `files` are those that count, by path; one that is `broken` is there as it last was without mistakes, or not at all.
    """

    catalog: Catalog
    files: Mapping[Path, File]
    errors: tuple[SpecError, ...]

    def require_whole(self) -> None:
        """Raises the first mistake, if there is one."""
        for error in self.errors:
            raise error


def catalog_at(settings: Settings) -> Catalog:
    """All specs of the project, or of the projects, read once.

    Raises:
        SpecError: if the settings are strict, for the first mistake; if two projects declare the same name.
    """
    surveys = [survey_at(settings, project) for project in find_projects(settings.project)]
    if settings.strict:
        for found in surveys:
            found.require_whole()
    return together([found.catalog for found in surveys])


def homes_at(settings: Settings) -> Mapping[str, str]:
    """Which tables lie below a prefix of the lake, whatever mistakes there are elsewhere."""
    return together([survey_at(settings, project).catalog for project in find_projects(settings.project)]).homes


def survey_at(settings: Settings, project: Project) -> Survey:
    """The survey of a project, made once."""
    last_good = None if settings.strict else settings.home / "last_good" / project.package
    return survey(project.defs, settings.first_day, settings.cluster, last_good)


def load_catalog(folder: Path, first_day: date | None = None, cluster: str = "") -> Catalog:
    """All specs below `folder`; `cluster`, as YAML, is what is different on this cluster.

    Raises:
        SpecError: with file, line and the nearest valid name, for the first mistake found.
        SettingsError: if `cluster` says what it may not.
    """
    found = survey(folder, first_day, cluster)
    found.require_whole()
    return found.catalog


def together(catalogs: Sequence[Catalog]) -> Catalog:
    """Several projects as one, as a model server or a command has them.

    Raises:
        SpecError: if two declare the same name.
    """
    first, *others = catalogs
    for other in others:
        for one, two in (
            (first.own_sources, other.own_sources),
            (first.views, other.views),
            (first.models, other.models),
        ):
            for name in one.keys() & two.keys():
                places = f"{first.origins[name]} and {other.origins[name]}"
                raise SpecError(places, f"both declare {name!r}", "choose another `name:` in one of them")
        first = Catalog(
            {**other.sources, **first.sources, **other.own_sources},
            {**first.views, **other.views},
            {**first.models, **other.models},
            first.cluster,
            MappingProxyType({**first.homes, **other.homes}),
            (first.foreign | other.foreign) - first.own_sources.keys() - other.own_sources.keys(),
            MappingProxyType({**first.broken, **other.broken}),
            MappingProxyType({**first.origins, **other.origins}),
            first.alerts or other.alerts,
        )
    return first


def remember(found: Survey, folder: Path, last_good: Path) -> None:
    """Keep the files that are right, to stand in for them when they are not."""
    for path, file in found.files.items():
        kept, text = last_good / path.relative_to(folder), file.declared[0].text if file.declared else ""
        if path not in found.catalog.broken and text and not (kept.is_file() and kept.read_text("utf-8") == text):
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(text, encoding="utf-8")


def survey(folder: Path, first_day: date | None = None, cluster: str = "", last_good: Path | None = None) -> Survey:
    """All that is declared below `folder`, read once; a file with mistakes stands as `last_good` has it, if that fits the
    others. Without that, a folder with mistakes is read again."""
    found = _survey(folder, first_day, cluster, last_good)
    if found.errors and last_good is None:
        _survey.cache_clear()
    return found


@lru_cache(maxsize=16)
def _survey(folder: Path, first_day: date | None, cluster: str, last_good: Path | None) -> Survey:
    files = {path: read(path) for path in files_below(folder)}
    errors = [error for file in files.values() for error in file.errors]
    broken = {path: file.errors[0] for path, file in files.items() if file.errors}
    files = {path: file for path, file in files.items() if path not in broken}
    files |= _as_they_were(broken, folder, last_good)
    while True:
        found = [one for path in sorted(files) for one in files[path].declared]
        catalog, wrong = _assembled(found, first_day, cluster, broken)
        if not wrong:
            return Survey(catalog, files, tuple(errors))
        # What rests on a file that is left out is left out too, until the rest hangs together.
        errors += [error for of_file in wrong.values() for error in of_file]
        fresh = {path: of_file[0] for path, of_file in wrong.items() if path not in broken}
        broken |= fresh
        files = {path: file for path, file in files.items() if path not in wrong}
        files |= _as_they_were(fresh, folder, last_good)


def _as_they_were(paths: Iterable[Path], folder: Path, last_good: Path | None) -> dict[Path, File]:
    """Files as they last were without mistakes, where that is known and still is right by itself."""
    there: dict[Path, File] = {}
    if last_good is None:
        return there
    for path in paths:
        kept = last_good / path.relative_to(folder)
        if kept.is_file() and not (file := read(path, kept.read_text("utf-8"))).errors:
            there[path] = file
    return there


def _assembled(
    found: list[Declared], first_day: date | None, cluster: str, broken: Mapping[Path, SpecError]
) -> tuple[Catalog, dict[Path, list[SpecError]]]:
    """The catalog of these specs, and what is wrong between them, by file."""
    errors: dict[Path, list[SpecError]] = {}

    def note(declared: Declared, *wrong: SpecError) -> None:
        if wrong:
            errors.setdefault(declared.path, []).extend(wrong)

    sources = _by_name(found, SourceSpec, note)
    if first_day is not None:
        sources = {name: spec.model_copy(update={"start_date": first_day}) for name, spec in sources.items()}
    sources = {name: _with_segment(spec) for name, spec in sources.items()}
    views, models = _by_name(found, FeatureViewSpec, note), _by_name(found, ModelSpec, note)
    alerts = _only(found, AlertsSpec, note)
    cluster_spec = _cluster(found, cluster, note)
    own = Catalog(sources, views, models, cluster_spec, broken=MappingProxyType(dict(broken)), alerts=alerts)
    catalog = _among_others(own, found, first_day, cluster, note)
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


def _among_others(own: Catalog, found: list[Declared], first_day: date | None, cluster: str, note: Any) -> Catalog:
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
            theirs = survey(find_project(package).defs, first_day, cluster).catalog
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


# --- the cluster ------------------------------------------------------------------------------------------------------


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
