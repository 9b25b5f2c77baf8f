"""The model bundle: all that is needed to score, and to say where the model came from, as plain files.

    model.*                         the trainer's own files; never a pickle
    transforms.json                 request expressions and fitted scaling
    schema.json                     what a request must have, which features are looked up, and their defaults
    spec.yaml                       the model file
    metrics.json                    figures on the validation rows
    manifest.json                   what it was trained from, and the leaderboard that it was selected from
    MODEL_CARD.md                   the same for people
    files.json                      size and digest of each of the others, to say which one was changed

The digest over all of them is the version's identity.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import yaml

from ml_platform.core import digest
from ml_platform.core.errors import BundleError
from ml_platform.core.records import of, read
from ml_platform.core.spec import FeatureViewSpec, ModelSpec, SourceSpec
from ml_platform.features.transforms import Transforms
from ml_platform.training.overrides import OVERRIDES
from ml_platform.training.trainers import Trainer, load_fitted

TRANSFORMS = "transforms.json"
SCHEMA = "schema.json"
SPEC = "spec.yaml"
METRICS = "metrics.json"
MANIFEST = "manifest.json"
MODEL_CARD = "MODEL_CARD.md"
FILES = "files.json"
REQUIRED = (TRANSFORMS, SCHEMA, SPEC, METRICS, MANIFEST, MODEL_CARD)
OF_TRAINER = re.compile(r"model(\.[\w-]{1,80}){1,4}", re.ASCII)
NEVER = (".py", ".pyc", ".pyd", ".pth", ".so", ".sh")  # what an interpreter might take for its own
MOST_FILES = 1_000
MOST_TEXT = 16 << 20  # bytes of a file that is parsed
MOST_WEIGHTS = 4 << 30  # bytes of a trainer's file


@dataclass(frozen=True)
class ViewSchema:
    """A snapshot view as serving needs it: where to look, by which column, and what to use where nothing is found."""

    name: str
    entity: str
    entity_type: str
    features: Mapping[str, float]


@dataclass(frozen=True)
class InputSchema:
    """What a row must have: `request` columns (name -> type), and the features of `views`, looked up or given.

    Features of `rolling` views (view -> feature -> default) are of single events: they can only be given. `key` are the columns
    (name -> type) that identify a row; who sends them finds them again beside the answer. `nullable` are the request columns
    that may be null.
    """

    request: Mapping[str, str]
    views: tuple[ViewSchema, ...]
    rolling: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    key: Mapping[str, str] = field(default_factory=dict)
    nullable: tuple[str, ...] = ()

    @property
    def entities(self) -> list[str]:
        return list(dict.fromkeys(view.entity for view in self.views))

    @property
    def features(self) -> dict[str, float]:
        """Every snapshot or rolling feature with its default."""
        views = (*(view.features for view in self.views), *self.rolling.values())
        return {name: default for features in views for name, default in features.items()}

    @property
    def defaults(self) -> dict[str, dict[str, float]]:
        """Of each entity every snapshot feature with its default."""
        of = self.views
        return {e: {name: d for v in of if v.entity == e for name, d in v.features.items()} for e in self.entities}

    @classmethod
    def of(cls, transforms: Transforms, rows: SourceSpec, views: Sequence[FeatureViewSpec]) -> "InputSchema":
        features = {view.name: {name: f.default for name, f in view.features.items()} for view in views}
        described = tuple(
            ViewSchema(view.name, view.entity, rows.columns[view.entity].type, features[view.name])
            for view in views
            if view.entity and not view.rows
        )
        rolling = {view.name: features[view.name] for view in views if view.rows}
        computed = {name for of_view in features.values() for name in of_view}
        request = {name: rows.columns[name].type for name in transforms.required_columns if name not in computed}
        nullable = tuple(name for name in request if rows.columns[name].nullable)
        return cls(request, described, rolling, {name: rows.columns[name].type for name in rows.key}, nullable)

    def to_json(self) -> bytes:
        views = [asdict(v) for v in self.views]
        content = {"request": self.request, "views": views, "rolling": self.rolling, "key": self.key}
        content["nullable"] = list(self.nullable)
        return json.dumps(content, indent=1).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "InputSchema":
        return read(cls, text)  # bundles from before there were rolling views, keys or nulls have none


@dataclass(frozen=True)
class Bundle:
    """A bundle that is loaded and can score."""

    digest: str
    spec: ModelSpec
    schema: InputSchema
    transforms: Transforms
    trainer: Trainer
    metrics: Mapping[str, float]
    manifest: Mapping[str, Any]

    def score(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """Scores of rows given as arrays by column name. The one scoring path: training, batch and serving use it."""
        return self.trainer.predict(self.transforms.apply(rows))

    def saved(self) -> dict[str, bytes]:
        """The files of what was fitted, written anew."""
        return {**self.trainer.save(), TRANSFORMS: self.transforms.to_json()}


def pack(
    spec: ModelSpec,
    trainer: Trainer,
    transforms: Transforms,
    schema: InputSchema,
    metrics: Mapping[str, float],
    manifest: bytes,
) -> dict[str, bytes]:
    """The bundle's files."""
    files = {
        **trainer.save(),
        TRANSFORMS: transforms.to_json(),
        SCHEMA: schema.to_json(),
        SPEC: yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False).encode(),
        METRICS: json.dumps(dict(metrics), indent=1).encode(),
        MANIFEST: manifest,
        MODEL_CARD: _model_card(spec, schema, transforms, metrics, json.loads(manifest)).encode(),
    }
    listed = {
        name: {"bytes": len(content), "sha256": digest.of_bytes(content)} for name, content in sorted(files.items())
    }
    check_files({name: len(content) for name, content in files.items()}, f"{spec.name}/candidate")
    return {**files, FILES: json.dumps(listed, indent=1).encode()}


def check_files(sizes: Mapping[str, int], subject: str) -> None:
    """Check names and sizes, in bytes, of what claims to be a bundle, before any of it is fetched, written or read.

    Raises:
        BundleError: naming the file that has no place in a bundle, or is too large.
    """
    if len(sizes) > MOST_FILES:
        raise BundleError(subject, f"has {len(sizes)} files (at most {MOST_FILES})", "register it again")
    for name, size in sizes.items():
        known = name in (*REQUIRED, FILES)
        if not known and (not OF_TRAINER.fullmatch(name) or name.lower().endswith(NEVER)):
            problem = f"has a file {name[:100]!r}, which is none of a bundle: {', '.join(REQUIRED)}, {FILES}, model.*"
            raise BundleError(subject, problem, "train again; a trainer's `save` names its files model.<something>")
        most = MOST_TEXT if known else MOST_WEIGHTS
        if size > most:
            raise BundleError(subject, f"{name} has {size:,} bytes (at most {most:,})", "train a smaller model")


def unpack(files: Mapping[str, bytes], subject: str, plugins: Collection[str] = ()) -> Bundle:
    """Load a bundle from its files, which may come from anywhere: nothing that they name is imported.

    `plugins` are the import paths of trainers that this process's own project declares.

    Raises:
        BundleError: if files are missing, are none of a bundle, or cannot be read.
    """
    check_files({name: len(content) for name, content in files.items()}, subject)
    if missing := [name for name in REQUIRED if name not in files]:
        raise BundleError(subject, f"files are missing: {', '.join(missing)}", "train again")
    try:
        manifest = json.loads(files[MANIFEST])
        return Bundle(
            digest_of(files),
            of(ModelSpec, _plain_yaml(files[SPEC])),
            InputSchema.from_json(files[SCHEMA]),
            Transforms.from_json(files[TRANSFORMS]),
            load_fitted(manifest["trainer"], files, plugins),
            json.loads(files[METRICS]),
            manifest,
        )
    except Exception as error:
        changed = "".join(f"; {one}" for one in damage(files))
        raise BundleError(
            subject, f"cannot be loaded: {type(error).__name__}: {error}{changed}", "train again"
        ) from error


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, by which a short text stands for an endless one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"{SPEC} has an alias")
        return super().compose_node(parent, index)


def _plain_yaml(content: bytes) -> Any:
    return yaml.load(content, _PlainLoader)  # a safe loader


def digest_of(files: Mapping[str, bytes]) -> str:
    return digest.of_files(files)


def verify(files: Mapping[str, bytes], expected: str, subject: str) -> None:
    """Check that these are the files that the digest was taken of.

    Raises:
        BundleError: if they are not, naming those that differ.
    """
    found = digest_of(files)
    if found == expected:
        return
    problem = f"its files have digest {found[:12]}, not {expected[:12]}"
    raise BundleError(subject, f"{problem}: {'; '.join(damage(files)) or 'another bundle'}", "register it again")


def damage(files: Mapping[str, bytes]) -> list[str]:
    """How the files differ from what the bundle itself says of them; nothing if it does not, or says nothing."""
    try:
        listed = json.loads(files[FILES])
        sizes = {name: (int(one["bytes"]), str(one["sha256"])) for name, one in listed.items()}
    except KeyError:
        return [f"{FILES} is missing"]  # as in bundles of before there was one: their digest is all there is
    except (ValueError, TypeError, AttributeError, RecursionError):
        return [f"{FILES} cannot be read"]
    found = [f"{name} is missing" for name in sizes if name not in files]
    found += [f"{name} does not belong to it" for name in files if name not in sizes and name != FILES]
    for name, (size, sha256) in sizes.items():
        content = files.get(name, b"")
        if name in files and len(content) != size:
            found.append(f"{name} has {len(content):,} bytes, not {size:,}")
        elif name in files and digest.of_bytes(content) != sha256:
            found.append(f"{name} has other content (digest {digest.of_bytes(content)[:12]}, not {sha256[:12]})")
    return found


def _model_card(
    spec: ModelSpec,
    schema: InputSchema,
    transforms: Transforms,
    metrics: Mapping[str, float],
    manifest: Mapping[str, Any],
) -> str:
    figures = "\n".join(f"| {name} | {value:.4f} |" for name, value in metrics.items())
    return f"""# {spec.name}

{spec.description or "No description."}

Owners: {", ".join(spec.owners) or "none named"}. Task: {spec.task}. Trainer: {manifest["trainer"]} {json.dumps(manifest["params"])}.

Trained as of {manifest["training_date"]} on the {spec.training.window_days} days that end an embargo before the
{spec.training.validation_days} validation days; label `{spec.label.column}` from `{spec.label.source}`.
Code {manifest["code_version"]}, seed {manifest["seed"]}, {len(manifest["inputs"])} input partitions (manifest.json).{_overrides(manifest)}

| on the validation rows | |
|---|---|
{figures}

{_leaderboard(spec, manifest)}Looked up by id: {", ".join(f"{view.name} ({view.entity})" for view in schema.views) or "nothing"}.
Given in the request: {", ".join(schema.request) or "nothing"}. Computed per event, not online: {", ".join(schema.rolling) or "nothing"}. Model inputs: {len(transforms.names)}.
"""


def _overrides(manifest: Mapping[str, Any]) -> str:
    given = ", ".join(f"{name} {json.dumps(value)}" for name, value in manifest.get(OVERRIDES, {}).items())
    return f"\nIts run changed this of the model file: {given}." if given else ""


def _leaderboard(spec: ModelSpec, manifest: Mapping[str, Any]) -> str:
    """The candidates as a table, if there were several."""
    rows = manifest.get("leaderboard", [])
    if len(rows) < 2:
        return ""
    lines = [f"| candidate | params | {spec.select_by} | status |", "|---|---|---|---|"]
    for row in rows:
        value = row["metrics"].get(spec.select_by)
        figure = "" if value is None else f"{value:.4f}"
        status = f"{row['status']} {row['error']}".strip().replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {row['candidate']} | {json.dumps(row['params'])} | {figure} | {status} |")
    return "\n".join(lines) + "\n\n"
