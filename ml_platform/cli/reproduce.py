"""`ml-platform reproduce`: a registered version, made again from what its manifest names."""

import sys
from dataclasses import asdict
from datetime import date
from typing import Annotated

import pyarrow as pa
import typer
from rich.table import Table

from ml_platform.cli.tables import print_table
from ml_platform.cli.world import world
from ml_platform.core import digest, keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import BundleError, LakeError, PlatformError, RegistryError
from ml_platform.core.settings import load_settings
from ml_platform.registry import bundle, reproduce
from ml_platform.registry.bundle import Bundle
from ml_platform.registry.reproduce import Change
from ml_platform.registry.versions import Version
from ml_platform.resources.assembly import assembled
from ml_platform.resources.lake import Lake
from ml_platform.resources.registry import Registry
from ml_platform.resources.spark import engine_at
from ml_platform.training.manifest import environment

IDENTICAL, DIFFERENT, IMPOSSIBLE = 0, 1, 2


def reproduce_version(
    model: str,
    version: Annotated[str, typer.Argument(help="number of a registered version")],
    from_training_set: Annotated[
        bool, typer.Option("--from-training-set", help="start from the stored training set, not from raw and features")
    ] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="go on although inputs have changed")] = False,
) -> None:
    """Make a version again from what its manifest names, and compare bit for bit. Writes nothing.

    Status 0: the same. 1: something differs, which is named. 2: it cannot be made again, and why.
    """
    settings, catalog, lake = world()
    try:
        registered = _version(Registry.at(settings), model, version)
        files = Registry.at(settings).download(registered)
        original = bundle.unpack(files, registered.label, catalog.plugins)
        subject = f"{registered.label}, as of {original.manifest['training_date']}"
        print(
            f"{subject}, bundle {registered.digest[:12]}: {original.manifest['trainer']}, seed {original.manifest['seed']}"
        )
        _check_declared(original, catalog, registered.label)
        surroundings = reproduce.changed_environment(original.manifest, environment())
        surroundings += reproduce.changed_views(original.manifest, catalog.views)
        _show("surroundings that differ", surroundings)
        rows = _training_set(original, catalog, lake, registered.label, from_training_set, anyway)
        rebuilt = reproduce.refit(
            original,
            catalog.sources[original.spec.entity_rows],
            catalog.daily_views(original.spec),
            catalog.request_views(original.spec),
            rows,
            lambda epoch, figures: print(f"epoch {epoch}", end="\r", file=sys.stderr, flush=True),
            catalog.plugins,
        )
    except PlatformError as error:
        print(f"cannot be reproduced: {error}")
        raise typer.Exit(IMPOSSIBLE) from error
    apart = reproduce.differences(files, rebuilt)
    if apart or digest.of_table(rows) != original.manifest["training_set"]:
        print("DIFFERENT")
        for name, words in apart.items():
            print(f"  {name}: {words}")
        raise typer.Exit(DIFFERENT)
    fitted = sorted(set(rebuilt) - set(reproduce.NOT_FITTED))
    print(f"IDENTICAL: {', '.join(fitted)}, bit for bit")


def _version(registry: Registry, model: str, number: str) -> Version:
    known = registry.versions(model)
    found = next((version for version in known if version.number == number), None)
    if found is None:
        has = f"it has {', '.join(version.number for version in known)}" if known else "it has none"
        raise RegistryError(f"{model}/model_version", f"there is no version {number}; {has}", "name one of them")
    return found


def _check_declared(original: Bundle, catalog: Catalog, subject: str) -> None:
    """Raise BundleError if the model's sources or views are no longer declared."""
    spec = original.spec
    gone = [name for name in (spec.entity_rows, spec.label.source) if name not in catalog.sources]
    gone += [name for name in spec.features if name not in catalog.views]
    if gone:
        problem = f"{', '.join(gone)} is no longer declared"
        raise BundleError(subject, problem, f"check out code {original.manifest['code_version']}")


def _training_set(original: Bundle, catalog: Catalog, lake: Lake, subject: str, stored: bool, anyway: bool) -> pa.Table:
    """The training set, stored or joined anew in memory.

    Raises:
        LakeError: if something that it was made from is missing, or was changed and that is not to be ignored.
    """
    manifest, name = original.manifest, keys.training_set(original.spec.name)
    day = date.fromisoformat(manifest["training_date"])

    def hash_of(key: str, day: date) -> str | None:
        found = lake.manifest(key, day)
        return found.content_hash if found else None

    whole = {"name": keys.partition(name, day), "version": manifest["training_set"]}
    changed = reproduce.changed_inputs([whole] if stored else manifest["inputs"], hash_of)
    _show("inputs that have changed" if not stored else "the stored training set has changed", changed)
    if missing := [change.what for change in changed if change.missing]:
        hint = "train again" if stored else "try --from-training-set"
        raise LakeError(subject, f"{len(missing)} inputs are missing, such as {missing[0]}", hint)
    if changed and not anyway:
        raise LakeError(
            subject,
            f"{len(changed)} inputs have changed, such as {changed[0].what}",
            "give --anyway to see what comes out",
        )
    table = lake.read_table(name, [day]) if stored else _joined(original, catalog, lake, day)
    found = digest.of_table(table)
    _show(
        "the training set differs",
        [Change(whole["name"], whole["version"], found)] if found != whole["version"] else [],
    )
    return table


def _joined(original: Bundle, catalog: Catalog, lake: Lake, day: date) -> pa.Table:
    return assembled(lake, engine_at(load_settings()), catalog, original.spec, day).table


def _show(title: str, changes: list[Change]) -> None:
    if not changes:
        return
    print(f"{title}:")
    table = Table("", "was", "is")
    for change in changes:
        table.add_row(*(value if len(value) < 64 else value[:16] for value in asdict(change).values()))
    print_table(table)
