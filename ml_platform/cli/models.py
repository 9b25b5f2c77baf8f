"""`ml-platform models | versions | show | diff | promote | rollback`: what is registered and deployed, and changes by hand."""

import difflib
import getpass
import json
from datetime import UTC
from typing import Annotated, Any

import typer
import yaml
from rich.table import Table

from ml_platform.cli.tables import print_table
from ml_platform.cli.world import world
from ml_platform.core.errors import DeploymentError, RegistryError
from ml_platform.core.settings import load_settings
from ml_platform.registry import bundle
from ml_platform.registry.versions import Aliases, Version
from ml_platform.resources import release
from ml_platform.resources.model_server import ModelServer
from ml_platform.resources.registry import Registry
from ml_platform.rollout.standing import ALIASES
from ml_platform.rollout.state import Rollout

Model = Annotated[str, typer.Argument(help="the model's name")]
Number = Annotated[str, typer.Argument(metavar="VERSION", help="the version's number")]


def models() -> None:
    """All models, who answers for them, and their rollouts."""
    settings = load_settings()
    registry, server = Registry.at(settings), ModelServer.at(settings)
    table = Table("model", *reversed(ALIASES), "versions", "served", "rollout")
    for model in registry.models():
        standing = registry.standing(model)
        held = [v.number if (v := getattr(standing.aliases, alias)) else "" for alias in reversed(ALIASES)]
        rollout = _words(standing.rollout) if standing.rollout else ""
        table.add_row(model, *held, str(len(registry.versions(model))), _served(server, model), rollout)
    if table.row_count:
        print_table(table)
    else:
        print("no model is registered")


def versions(model: Model) -> None:
    """All versions of a model, newest first, with the figures that they were registered with."""
    registry = Registry.at(load_settings())
    found, aliases = _versions(registry, model), registry.aliases(model)
    tags = {version.number: registry.tags(version) for version in found}
    figures = [name for name in dict.fromkeys(name for of in tags.values() for name in of) if _is_figure(tags, name)]
    table = Table("version", "alias", "trained as of", "bundle", *figures)
    for version in found:
        values = [tags[version.number].get(name, "") for name in figures]
        table.add_row(
            version.number, _aliases_of(version, aliases), version.training_date, version.digest[:12], *values
        )
    print_table(table)


def show(
    model: Model,
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="default: the champion, or else the newest")] = "",
) -> None:
    """One version: its card, what it was made of, and what was done to it; and the model's rollout."""
    registry = Registry.at(load_settings())
    standing, newest = registry.standing(model), _versions(registry, model)[0]
    chosen = _version(registry, model, version) if version else standing.aliases.champion or newest
    held = _aliases_of(chosen, standing.aliases)
    print(f"{chosen.label}{f' ({held})' if held else ''}, bundle {chosen.digest}")
    if standing.rollout and chosen.number in (standing.rollout.version, standing.rollout.champion):
        print(f"rollout: {_words(standing.rollout)}; {standing.rollout.last.reason}")
    print()
    print(registry.card(chosen).strip())
    print()
    tags = Table("tag", "value")
    for name, value in sorted(registry.tags(chosen).items()):
        tags.add_row(name, value)
    print_table(tags)
    events = Table("when", "what", "by", "why", "observed")
    for event in registry.events(chosen):
        figures = ", ".join(f"{name} {value}" for name, value in event.figures.items())
        events.add_row(f"{event.at:%Y-%m-%d %H:%M:%S}", event.what, event.by, event.reason, figures)
    if events.row_count:
        print_table(events)


def diff(model: Model, a: Number, b: Number) -> None:
    """What two versions differ in: figures, the model file, and what they were trained from."""
    registry = Registry.at(load_settings())
    files = [registry.download(_version(registry, model, number)) for number in (a, b)]
    one, other = (_comparable(of) for of in files)
    table = Table("", f"version {a}", f"version {b}")
    for name in dict.fromkeys([*one, *other]):
        if one.get(name) != other.get(name):
            table.add_row(name, str(one.get(name, "")), str(other.get(name, "")))
    if table.row_count:
        print_table(table)
    texts = [of[bundle.SPEC].decode().splitlines() for of in files]
    names = [f"{bundle.SPEC} of version {number}" for number in (a, b)]
    for line in difflib.unified_diff(texts[0], texts[1], names[0], names[1], lineterm="", n=1):
        print(line)
    if not table.row_count and texts[0] == texts[1]:
        print("they do not differ")


def promote(
    model: Model,
    version: Number,
    force: Annotated[bool, typer.Option("--force", help="whatever its gates say; needs --reason")] = False,
    reason: Annotated[str, typer.Option(help="why; it is kept with the version")] = "",
) -> None:
    """Make a version champion at once, if it passed its gates, and wait until the server serves it."""
    if force and not reason.strip():
        raise DeploymentError(f"{model}/deployment", "a forced promotion needs a reason", "--reason '...'")
    settings, catalog, lake = world()
    registry, server = Registry.at(settings), ModelServer.at(settings)
    chosen = _version(registry, model, version)
    served = release.promote(
        chosen, catalog.models.get(model), reason, force, lake, registry, server, getpass.getuser()
    )
    print(f"{chosen.label} is champion, and served by {server.url} (bundle {served['digest'][:12]})")


def rollback(
    model: Model, reason: Annotated[str, typer.Option(help="why; it is kept with the version")] = "by hand"
) -> None:
    """End the rollout that is under way, or else bring the previous version back; wait until the server serves it."""
    settings = load_settings()
    registry, server = Registry.at(settings), ModelServer.at(settings)
    _versions(registry, model)
    champion, served = release.roll_back(model, reason, registry, server, getpass.getuser())
    print(f"{champion.label} is champion, and served by {server.url} (bundle {served['digest'][:12]})")


def _versions(registry: Registry, model: str) -> list[Version]:
    found = registry.versions(model)
    if not found:
        raise RegistryError(f"{model}/registry", "there is no such model", "ml-platform models")
    return found


def _version(registry: Registry, model: str, number: str) -> Version:
    found = next((one for one in _versions(registry, model) if one.number == number), None)
    if found is None:
        raise RegistryError(f"{model}/registry", f"there is no version {number}", f"ml-platform versions {model}")
    return found


def _aliases_of(version: Version, aliases: Aliases) -> str:
    return ", ".join(alias for alias in reversed(ALIASES) if getattr(aliases, alias) == version)


def _served(server: ModelServer, model: str) -> str:
    try:
        status = server.status(model) or {}
    except DeploymentError:
        return "no answer"
    challenger = (status.get("challenger") or {}).get("version")
    return f"{status.get('version') or 'nothing'}{f', {challenger}' if challenger else ''}"


def _words(rollout: Rollout) -> str:
    """Where a rollout stands, in words."""
    since = f"since {rollout.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if rollout.stage:
        step = f"step {rollout.step + 1} of {len(rollout.spec.stages)}"
        return f"version {rollout.version}, {rollout.spec.strategy}, {step}: {rollout.stage}, {since}"
    return f"version {rollout.version}: {rollout.phase} {since}"


def _is_figure(tags: dict[str, dict[str, str]], name: str) -> bool:
    """Whether a tag is a metric: a number with a fraction, or none, wherever it occurs."""
    values = [of[name] for of in tags.values() if name in of]
    return all(value == "nan" or (value.lstrip("-").replace(".", "", 1).isdigit() and "." in value) for value in values)


def _comparable(files: dict[str, bytes]) -> dict[str, Any]:
    """Figures and origins of a bundle, flat."""
    manifest = json.loads(files[bundle.MANIFEST])
    origins = {name: value for name, value in manifest.items() if isinstance(value, str | int | float)}
    days = sorted(one["name"] for one in manifest.get("inputs", ()))
    spec = yaml.safe_load(files[bundle.SPEC])
    return {
        "bundle": bundle.digest_of(files)[:12],
        **json.loads(files[bundle.METRICS]),
        **origins,
        "inputs": f"{len(days)}, {days[0]} to {days[-1]}" if days else "none",
        "features": ", ".join(spec["features"]),
    }
