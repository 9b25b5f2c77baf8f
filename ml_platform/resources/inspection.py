"""The result of any step of the graph: what it is, what it was made from, and whether that is still so."""

import json
import tempfile
from dataclasses import asdict, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import start_of
from ml_platform.core.errors import FeatureError, LakeError, PlatformError
from ml_platform.core.mistakes import nearest
from ml_platform.core.settings import Settings
from ml_platform.core.spec import SourceSpec
from ml_platform.data.landing import day_prefix, fingerprint
from ml_platform.registry import bundle
from ml_platform.registry.versions import Version
from ml_platform.resources import prediction_log
from ml_platform.resources.inspected import (
    CURRENT,
    GONE,
    MOST_TEXT,
    TEXTS,
    UNKNOWN,
    InputState,
    Inspection,
    Rows,
    StoredFile,
    chosen,
    day_named,
    input_states,
    looked_into,
    said,
    state_of,
)
from ml_platform.resources.lake import Lake
from ml_platform.resources.ledger import ARRIVAL, FAILED, QUALITY, ROWS, accounts_of
from ml_platform.resources.manifest import Input, Manifest
from ml_platform.resources.model_server import ModelServer
from ml_platform.resources.online_store import online_store_at
from ml_platform.resources.origins import Origins
from ml_platform.resources.registry import Registry
from ml_platform.rollout.standing import ALIASES

VERSIONS = ("model_version", "deployment")  # nouns of what is in the registry
SHOWN = 20  # owners in an error


def assets(catalog: Catalog) -> list[str]:
    """Everything that can be inspected, in the order in which it is made."""
    found = [named(name) for name in catalog.feeds for named in (keys.landed, keys.raw, keys.ledger, keys.quarantine)]
    found += [keys.raw(name) for name in catalog.sources if name not in catalog.feeds]
    found += [keys.feature_view(view.name) for view in catalog.daily_views()]
    found += [keys.ONLINE_STORE] if catalog.snapshot_views() else []
    for name, spec in catalog.models.items():
        nouns = [keys.training_set, *([keys.trials] if spec.searched else []), keys.candidate, keys.evaluation]
        nouns += [keys.model_version, keys.deployment, keys.predictions, keys.monitoring, keys.prediction_log]
        found += [named(name) for named in nouns]
    return found


def inspect(settings: Settings, catalog: Catalog, lake: Lake, asset: str, partition: str, rows: int) -> Inspection:
    """What there is of a partition (YYYY-MM-DD; default: the newest), with so many rows of it.

    Raises:
        LakeError: if there is no such asset or partition; says the nearest that there is.
        RegistryError: if it is about versions, and the registry does not answer.
        FeatureError: if it is the online store, and it cannot be read.
    """
    owner, _, noun = asset.rpartition("/")
    known = assets(catalog)
    if asset not in known:
        raise _no_such_asset(asset, known)
    if asset == keys.ONLINE_STORE:
        if partition:
            next_step = f"ml-platform inspect features/VIEW {partition}, which is what it was made from"
            raise LakeError(asset, "has no partitions, only the newest rows", next_step)
        return _online_store(settings, catalog, lake, rows)
    if owner in catalog.models and noun in VERSIONS:
        return _version(settings, lake, asset, partition)
    if owner in catalog.models and noun == "prediction_log":
        day = chosen(asset, partition, sorted(lake.listing(asset)))
        return _prediction_log(lake, owner, day, rows)
    if owner in catalog.feeds and noun == "landed":
        return _landed(settings, catalog.feeds[owner], lake, partition)
    there = lake.days(asset)
    if noun == "raw" and (stopped := _stopped(lake, owner, partition, there)):
        raise stopped
    return _partition(settings, catalog, lake, asset, chosen(asset, partition, there), rows)


# --- tables and sets of files of the lake -----------------------------------------------------------------------------


def _partition(settings: Settings, catalog: Catalog, lake: Lake, asset: str, day: date, rows: int) -> Inspection:
    manifest = lake.require(asset, day)
    files, notes = _stored(lake, asset, day, manifest), list[str]()
    facts = {
        **({"rows": manifest.rows} if _is_table(manifest) else {}),
        "bytes": sum(one.size for one in files),
        "content_hash": manifest.content_hash,
        "written_at": manifest.written_at,
        "code_version": manifest.code_version,
        "tags": dict(manifest.tags),
    }
    inputs = list(input_states(lake, manifest.inputs))
    source = catalog.feeds.get(
        asset.removeprefix("quarantine/") if asset.startswith("quarantine/") else asset.rpartition("/")[0]
    )
    if source:
        inputs, notes = _held_against_landing(settings, source, day, inputs)
        ledger = lake.manifest(keys.ledger(source.name), day)
        if asset == keys.raw(source.name) and ledger and ledger.tags[QUALITY] == "bad":
            notes.append(f"what has landed since was not written; checks that it broke: {ledger.tags[FAILED]}")
    table = lake.dataset(asset, [day]) if _is_table(manifest) else lake.rows_of_file(asset, day, ROWS)
    shown = looked_into(table, table.count_rows(), rows) if table is not None else None
    in_graph = not asset.startswith("quarantine/") and not asset.endswith("/ledger")
    return Inspection(asset, day, facts, tuple(inputs), shown, tuple(files), tuple(notes), in_graph)


def _stopped(lake: Lake, source: str, partition: str, there: list[date]) -> LakeError | None:
    """Why a day of a source that is asked for was not written, if it was judged."""
    try:
        day = date.fromisoformat(partition)
    except ValueError:
        return None
    ledger = None if day in there else lake.manifest(keys.ledger(source), day)
    if ledger is None:
        return None
    problem = f"was not written; checks that it broke: {ledger.tags.get(FAILED) or 'none'}"
    return LakeError(keys.partition(keys.raw(source), day), problem, f"ml-platform quarantine show {source} {day}")


def _is_table(manifest: Manifest) -> bool:
    """Sets of files lie in a folder of their own."""
    return all("/" not in name for name in manifest.files)


def _stored(lake: Lake, asset: str, day: date, manifest: Manifest) -> list[StoredFile]:
    paths = [f"{lake.day_folder(asset, day)}/{name}" for name in manifest.files]
    with lake.translated(keys.partition(asset, day)):
        infos = lake.filesystem.get_file_info(paths)
    found = []
    for info in infos:
        content = None
        if info.base_name.endswith(TEXTS) and 0 <= (info.size or 0) <= MOST_TEXT:
            with lake.translated(info.path), lake.filesystem.open_input_stream(info.path) as stream:
                content = said(info.base_name, stream.readall())
        found.append(StoredFile(info.base_name, info.size or 0, content))
    return found


def _held_against_landing(
    settings: Settings, source: SourceSpec, day: date, inputs: list[InputState]
) -> tuple[list[InputState], list[str]]:
    """The inputs of a day of a source with how its landed objects are now, and what has landed since; and what went wrong."""
    try:
        origin = Origins.at(settings).of(source)
        landed = {origin.url(one.key): one for one in origin.of_day(source, day)}
    except PlatformError as error:
        return inputs, [f"what is landed was not looked up: {error}"]
    etags = {name: one.etag for name, one in landed.items()}
    held = [
        replace(one, state=state_of(one.version, etags.get(one.name))) if one.state == UNKNOWN else one
        for one in inputs
    ]
    new = etags.keys() - {one.name for one in inputs}
    held += [InputState(name, etags[name], landed[name].size, "has landed since") for name in sorted(new)]
    return held, []


# --- what is no partition of the lake ---------------------------------------------------------------------------------


def _landed(settings: Settings, source: SourceSpec, lake: Lake, partition: str) -> Inspection:
    """Everything that lies in the landing bucket for a day, with what became of it."""
    asset, judged = keys.landed(source.name), lake.days(keys.ledger(source.name))
    origin = Origins.at(settings).of(source)
    day = day_named(asset, partition, judged)
    objects = origin.of_day(source, day)
    if not objects:
        day = chosen(asset, partition, judged)
    ledger = lake.manifest(keys.ledger(source.name), day)
    accounts = {one.object: one for one in accounts_of(lake, source.name, day)} if ledger else {}
    facts = {
        "objects": len(objects),
        "bytes": sum(one.size for one in objects),
        "fingerprint": fingerprint(objects),
        "newest_at": max((one.last_modified.isoformat() for one in objects), default=""),
    }
    files = []
    for one in objects:
        account = accounts.get(one.key)
        became = asdict(account) if account and account.etag == one.etag else {"held": "not ingested yet"}
        told = {name: value for name, value in became.items() if value and name not in ("object", "bytes")}
        files.append(StoredFile(origin.url(one.key), one.size, {"etag": one.etag, **told}))
    is_new = ledger is None or ledger.tags[ARRIVAL] != fingerprint(objects)
    notes = ["what is landed is not what was ingested last; it is ingested by itself"] if is_new else []
    return Inspection(asset, day, facts, files=tuple(files), notes=tuple(notes))


def _online_store(settings: Settings, catalog: Catalog, lake: Lake, rows: int) -> Inspection:
    """Of each view as of when its rows are, held against the newest snapshot, and what it answers for some ids."""
    store, views = online_store_at(settings), dict[str, str]()
    inputs, sample = list[InputState](), list[dict[str, Any]]()
    for view in catalog.snapshot_views():
        key = keys.feature_view(view.name)
        try:
            as_of = store.as_of(view.name)
        except FeatureError as error:
            views[view.name] = str(error)
            continue
        views[view.name] = f"rows as of {as_of:%Y-%m-%d}"
        newest, manifest = lake.days(key)[-1:], lake.manifest(key, as_of.date())
        is_newest = newest == [as_of.date()]
        state = GONE if manifest is None else CURRENT if is_newest else f"is not the newest, which is {newest[0]}"
        version = manifest.content_hash if manifest else ""
        inputs.append(InputState(keys.partition(key, as_of.date()), version, manifest and manifest.rows, state))
        if manifest and rows and view.entity:
            ids = lake.dataset(key, [as_of.date()]).head(rows, columns=[view.entity])[view.entity].to_pylist()
            found = store.read(view.name, view.entity, ids, view.features)
            sample += [{"view": view.name, view.entity: id_, **values} for id_, values in found.rows.items()]
    return Inspection(keys.ONLINE_STORE, None, {"views": views}, tuple(inputs), Rows([], 0, sample) if sample else None)


def _prediction_log(lake: Lake, model: str, day: date, rows: int) -> Inspection:
    """A log has no manifest: each of its files is there as a whole."""
    import pyarrow.dataset as pads  # it imports pandas

    key, since = keys.prediction_log(model), start_of(day)
    table = prediction_log.read(lake, model, since, since + timedelta(days=1), inputs=True)
    sizes = lake.listing(key)[day]
    files = tuple(StoredFile(name, info.size) for name, info in sorted(sizes.items()))
    facts = {"rows": table.num_rows, "bytes": sum(one.size for one in files)}
    shown = looked_into(pads.dataset(table), table.num_rows, rows)
    return Inspection(key, day, facts, rows=shown, files=files, in_graph=False)


def _version(settings: Settings, lake: Lake, asset: str, partition: str) -> Inspection:
    """The newest version that was trained as of a date, and what has been done to it."""
    registry, model, noun = Registry.at(settings), *asset.split("/")
    by_day: dict[date, list[Version]] = {}
    for one in registry.versions(model):  # newest first
        by_day.setdefault(date.fromisoformat(one.training_date), []).append(one)
    day = chosen(asset, partition, sorted(by_day))
    version, *others = by_day[day]
    standing, files, notes = registry.standing(model), registry.download(version), list[str]()
    facts: dict[str, Any] = {
        "version": version.number,
        "bundle_digest": version.digest,
        "aliases": ", ".join(alias for alias in ALIASES if getattr(standing.aliases, alias) == version) or "none",
        "mlflow_run": version.run_id,
        "bytes": sum(map(len, files.values())),
    }
    if noun == "deployment":
        facts |= _served(settings, version)
        facts["events"] = [
            {"at": f"{one.at:%Y-%m-%d %H:%M:%S}", "what": one.what, "by": one.by, "why": one.reason}
            for one in registry.events(version)
        ]
    else:
        facts["tags"] = registry.tags(version)
    if others:
        notes.append(f"also trained as of this date: {', '.join(f'version {one.number}' for one in others)}")
    made_from = json.loads(files[bundle.MANIFEST])["inputs"]
    inputs = input_states(lake, [Input(one["name"], one["version"], one.get("size")) for one in made_from])
    stored = tuple(StoredFile(name, len(content), said(name, content)) for name, content in files.items())
    return Inspection(asset, day, facts, tuple(inputs), files=stored, notes=tuple(notes))


def _served(settings: Settings, version: Version) -> dict[str, str]:
    server = ModelServer.at(settings)
    try:
        status = server.status(version.model) or {}
    except PlatformError as error:
        return {"served": f"not known: {error}"}
    arms = {"champion": status.get("version"), "challenger": (status.get("challenger") or {}).get("version")}
    arm = next((name for name, number in arms.items() if number == version.number), "")
    return {"served": f"by {server.url}, as {arm}" if arm else f"not by {server.url}"}


# --- to keep ----------------------------------------------------------------------------------------------------------


def files_of(settings: Settings, catalog: Catalog, lake: Lake, found: Inspection) -> dict[str, bytes]:
    """The files of what was inspected, checked against its manifest or digest; none of what has no files.

    Raises:
        LakeError, LandingError, RegistryError: if they cannot be had, or are not what they were.
    """
    owner, _, noun = found.asset.rpartition("/")
    if found.day is None:
        return {}
    if noun in VERSIONS:
        registry = Registry.at(settings)
        return registry.download(registry.named(owner, found.facts["version"]))
    if noun == "landed":
        return _fetched(settings, catalog.feeds[owner], found.day)
    manifest = lake.manifest(found.asset, found.day)
    if manifest and not _is_table(manifest):
        return lake.read_files(found.asset, found.day)
    folder, files = lake.day_folder(found.asset, found.day), {}
    for one in found.files:
        with lake.translated(found.name), lake.filesystem.open_input_stream(f"{folder}/{one.name}") as stream:
            files[one.name] = stream.readall()
    return files


def _fetched(settings: Settings, source: SourceSpec, day: date) -> dict[str, bytes]:
    origin, files = Origins.at(settings).of(source), dict[str, bytes]()
    with tempfile.TemporaryDirectory(prefix="ml_platform-") as folder:
        for one in origin.of_day(source, day):
            path = Path(folder) / "object"
            origin.fetch(source, one, path)
            files[one.key.removeprefix(day_prefix(source.name, day)).replace("/", "_")] = path.read_bytes()
    return files


# --- what there is not ------------------------------------------------------------------------------------------------


def _no_such_asset(asset: str, known: list[str]) -> LakeError:
    owner = asset.partition("/")[0]
    own = [name for name in known if name.startswith(f"{owner}/")]
    owners = list(dict.fromkeys(name.rpartition("/")[0] for name in known))
    more = f" and {len(owners) - SHOWN} more" if len(owners) > SHOWN else ""
    next_step = f"one of {', '.join(own)}" if own else f"OWNER/NAME, of {', '.join(owners[:SHOWN])}{more}"
    return LakeError(asset, f"there is no such asset{nearest(asset, known)}", next_step)
