"""From what was answered back to what landed, and from what landed to all that it has touched."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import pyarrow.compute as pc

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import ONE_DAY, start_of
from ml_platform.core.errors import LakeError, RegistryError
from ml_platform.registry import bundle
from ml_platform.registry.versions import Version
from ml_platform.resources import prediction_log
from ml_platform.resources.lake import Lake
from ml_platform.resources.manifest import Manifest
from ml_platform.resources.registry import Registry


@dataclass(frozen=True)
class Link:
    """One thing, and what it was made from: `made_from` are partitions, in the end objects that landed.

    `changed` says that it is not any more as it was when what rests on it was made.
    """

    name: str
    version: str
    made_from: tuple["Link", ...] = ()
    changed: bool = False
    gone: bool = False

    def objects(self) -> Iterator["Link"]:
        """The landed objects at its end, each once."""
        seen: set[tuple[str, str]] = set()
        stack: list[Link] = [self]
        while stack:
            link = stack.pop()
            if not link.made_from and "://" in link.name and (link.name, link.version) not in seen:
                seen.add((link.name, link.version))
                yield link
            stack += link.made_from


def explain(lake: Lake, registry: Registry, version: Version) -> Link:
    """A version's bundle, the partitions that it was trained from, and so on back to the landed objects and their ETags.

    Raises:
        RegistryError: if its bundle cannot be read.
    """
    manifest = json.loads(registry.download(version)[bundle.MANIFEST])
    return Link(version.label, version.digest, tuple(_behind(lake, manifest["inputs"], {})))


def _behind(lake: Lake, inputs: Iterable[dict[str, Any]], known: dict[tuple[str, str], Link]) -> Iterator[Link]:
    for one in inputs:
        name, version = one["name"], one["version"]
        if (name, version) not in known:
            known[name, version] = _link(lake, name, version, known)
        yield known[name, version]


def _link(lake: Lake, name: str, version: str, known: dict[tuple[str, str], Link]) -> Link:
    if "://" in name or not name.endswith("]"):  # a landed object, or rows of a database
        return Link(name, version)
    manifest = lake.manifest(*keys.parse_partition(name))
    if manifest is None:
        return Link(name, version, gone=True)
    if manifest.content_hash != version:
        return Link(name, version, changed=True)
    behind = [{"name": one.name, "version": one.version} for one in manifest.inputs]
    return Link(name, version, tuple(_behind(lake, behind, known)))


def answered(lake: Lake, model: str, request_id: str) -> dict[str, Any]:
    """What the prediction log has of a request: its first row, with the version that answered.

    Raises:
        LakeError: if there is none.
    """
    for day in sorted(lake.listing(keys.prediction_log(model)), reverse=True):
        rows = prediction_log.read(lake, model, *_whole(day), inputs=True)
        if found := rows.filter(pc.field("request_id") == request_id).to_pylist():
            return {name: value for name, value in found[0].items() if value is not None}
    problem = f"has no request {request_id!r}"
    next_step = "give the id that an answer had; the newest answers are in the lake within a minute"
    raise LakeError(keys.prediction_log(model), problem, next_step)


def _whole(day: date) -> tuple[datetime, datetime]:
    return start_of(day), start_of(day + ONE_DAY)


# --- forwards ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Touched:
    """What a day of a source has touched: partitions, versions, and answers by version; and what puts it right."""

    partitions: tuple[str, ...]
    versions: tuple[Version, ...]
    answers: dict[str, int] = field(default_factory=dict)
    commands: tuple[str, ...] = ()


def days_with(lake: Lake, source: str, etag: str) -> list[date]:
    """The raw days that an object with that ETag went into."""
    table = keys.raw(source)
    made = lake.manifests(table, lake.days(table))
    return [day for day, manifest in sorted(made.items()) if any(one.version == etag for one in manifest.inputs)]


def recall(lake: Lake, registry: Registry, catalog: Catalog, source: str, day: date) -> Touched:
    """Everything that was made from a raw day, however indirectly, and what is to be done about it.

    Raises:
        LakeError: if there is no such day.
        RegistryError: if the registry does not answer.
    """
    first = keys.partition(keys.raw(source), day)
    if lake.manifest(keys.raw(source), day) is None:
        raise LakeError(first, "this partition does not exist", f"ml-platform status shows the days of {source}")
    touched = {first}
    made = list(_made(lake, catalog))
    while True:
        more = {
            name for name, manifest in made if name not in touched and {one.name for one in manifest.inputs} & touched
        }
        if not more:
            break
        touched |= more
    versions = [version for model in catalog.models for version in _trained_on(registry, model, touched)]
    answers = {version.label: count for version in versions if (count := _answers(lake, version))}
    return Touched(tuple(sorted(touched)), tuple(versions), answers, tuple(_commands(registry, source, day, versions)))


def _made(lake: Lake, catalog: Catalog) -> Iterator[tuple[str, Manifest]]:
    tables = [keys.raw(name) for name in catalog.ingested]
    tables += [keys.feature_view(view.name) for view in catalog.daily_views()]
    for model in catalog.models:
        tables += [named(model) for named in (keys.training_set, keys.candidate, keys.evaluation, keys.predictions)]
    for table in tables:
        for day, manifest in lake.manifests(table, lake.days(table)).items():
            yield keys.partition(table, day), manifest


def _trained_on(registry: Registry, model: str, touched: set[str]) -> Iterator[Version]:
    for version in registry.versions(model):
        try:
            inputs = json.loads(registry.download(version)[bundle.MANIFEST])["inputs"]
        except (RegistryError, ValueError, KeyError):
            continue
        if {one["name"] for one in inputs} & touched:
            yield version


def _answers(lake: Lake, version: Version) -> int:
    days = lake.listing(keys.prediction_log(version.model))
    of_days = (prediction_log.read(lake, version.model, *_whole(day)) for day in days)
    return sum(rows.filter(pc.field("version") == version.number).num_rows for rows in of_days)


def _commands(registry: Registry, source: str, day: date, versions: list[Version]) -> Iterator[str]:
    yield f"ml-platform quarantine show {source} {day}"
    yield f"put the right file in place of the bad one: {source}/{day}/...; what rests on it is made again by itself"
    for model in dict.fromkeys(version.model for version in versions):
        champion = registry.aliases(model).champion
        if champion in versions:
            others = [one for one in registry.versions(model) if one not in versions]
            if others:
                yield f"ml-platform promote {model} {others[0].number} --reason 'trained on bad data of {source} {day}'"
            else:
                yield f"no version of {model} was trained without it: the next training is"
