"""From an answer back to what landed, and from what landed to all that it has touched."""

import json
from datetime import date
from typing import Annotated, Any

import typer
from rich.tree import Tree

from ml_platform.cli.tables import Json, print_table
from ml_platform.cli.world import world
from ml_platform.core.errors import LakeError
from ml_platform.resources import provenance
from ml_platform.resources.provenance import Link
from ml_platform.resources.registry import Registry

SHOWN = 8  # partitions of one table in the tree


def explain(
    model: Annotated[str, typer.Argument(help="MODEL, MODEL@champion or MODEL@3; default of an answer: what answered")],
    prediction: Annotated[str, typer.Option(help="the id of a request that was answered")] = "",
    as_json: Json = False,
) -> None:
    """What a version, or an answer, rests on: its bundle, partitions, and the landed objects with their ETags."""
    settings, _, lake = world()
    name, _, wanted = model.partition("@")
    registry = Registry.at(settings)
    row = provenance.answered(lake, name, prediction) if prediction else {}
    version = registry.named(name, str(row.get("version", "")) or wanted)
    link = provenance.explain(lake, registry, version)
    objects = sorted(link.objects(), key=lambda one: one.name)
    if as_json:
        print(json.dumps({"answer": row, "behind": _as_dict(link)}, indent=1, default=str))
        return
    for column, value in row.items():
        print(f"{column}: {value}")
    print(f"{version.label}, bundle {version.digest}, trained as of {version.training_date}")
    print_table(_tree(link))
    print(
        f"{len(objects):,} landed objects, from {objects[0].name} to {objects[-1].name}"
        if objects
        else "no landed objects"
    )


def recall(
    source: Annotated[str, typer.Argument(help="a source, or one of its segments")],
    what: Annotated[str, typer.Argument(metavar="DAY|ETAG", help="a day of it, or the ETag of an object that landed")],
    as_json: Json = False,
) -> None:
    """Everything that a bad file has touched: partitions, versions, answers; and the commands that put it right."""
    settings, catalog, lake = world()
    if source not in catalog.ingested:
        raise LakeError(source, "there is no such source", f"one of {', '.join(catalog.ingested)}")
    days = [date.fromisoformat(what)] if _is_day(what) else provenance.days_with(lake, source, what)
    if not days:
        raise LakeError(
            source, f"no raw day has an object with the ETag {what!r}", "give a day, or the ETag as S3 has it"
        )
    registry = Registry.at(settings)
    for day in days:
        found = provenance.recall(lake, registry, catalog, source, day)
        if as_json:
            versions = [version.label for version in found.versions]
            print(json.dumps({**vars(found), "versions": versions, "source": source, "day": day}, default=str))
            continue
        print(f"{source} [{day}] is in {len(found.partitions):,} partitions:")
        for table, of in _by_table(found.partitions).items():
            print(f"  {table}: {', '.join(of[:SHOWN])}{f' and {len(of) - SHOWN} more' if len(of) > SHOWN else ''}")
        for version in found.versions:
            print(f"  {version.label}, which has given {found.answers.get(version.label, 0):,} answers")
        print("what puts it right:")
        for command in found.commands:
            print(f"  {command}")


def _tree(link: Link) -> Tree:
    """Tables with how many of their partitions, as deep as they are made of each other."""
    root = Tree(f"{link.name} {link.version[:12]}")
    _grow(root, link.made_from)
    return root


def _grow(node: Tree, links: tuple[Link, ...]) -> None:
    by_table: dict[str, list[Link]] = {}
    for one in links:
        table = one.name.partition(" [")[0] if one.name.endswith("]") else one.name.rpartition("/")[0]
        by_table.setdefault(table, []).append(one)
    for table, of in by_table.items():
        odd = [f"{one.name} {'is gone' if one.gone else 'has changed since'}" for one in of if one.gone or one.changed]
        branch = node.add(
            f"{table}: {len(of):,}, {of[0].name} to {of[-1].name}{'; ' if odd else ''}{'; '.join(odd[:3])}"
        )
        seen = {(inner.name, inner.version): inner for one in of for inner in one.made_from}
        _grow(branch, tuple(seen.values()))


def _as_dict(link: Link) -> dict[str, Any]:
    shown = {"name": link.name, "version": link.version}
    state = {name: True for name in ("changed", "gone") if getattr(link, name)}
    return {**shown, **state, **({"made_from": [_as_dict(one) for one in link.made_from]} if link.made_from else {})}


def _by_table(partitions: tuple[str, ...]) -> dict[str, list[str]]:
    tables: dict[str, list[str]] = {}
    for name in partitions:
        table, _, day = name.removesuffix("]").partition(" [")
        tables.setdefault(table, []).append(day)
    return tables


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
