"""From YAML files to specs: what each document declares, and every mistake in it with file, line and the nearest valid name."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ml_platform.core.errors import SpecError
from ml_platform.core.mistakes import Location, Mistake, mistakes, nearest
from ml_platform.core.spec import (
    AlertsSpec,
    AutomationSpec,
    ClusterSpec,
    FeatureViewSpec,
    ModelSpec,
    OnlineStoreSpec,
    ProjectSpec,
    SourceSpec,
)

SPEC_OF_COMPONENT: dict[str, type[BaseModel]] = {
    "ml_platform.components.Source": SourceSpec,
    "ml_platform.components.FeatureView": FeatureViewSpec,
    "ml_platform.components.OnlineStore": OnlineStoreSpec,
    "ml_platform.components.Model": ModelSpec,
    "ml_platform.components.Automation": AutomationSpec,
    "ml_platform.components.Alerts": AlertsSpec,
    "ml_platform.components.Cluster": ClusterSpec,
    "ml_platform.components.Project": ProjectSpec,
}
FILE = "defs.yaml"
_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Loader(_Safe):
    """YAML's, which of a key that is there twice would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge" else key
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key `{name}` is there twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class Declared:
    """One document of a file, and the spec that it is."""

    path: Path
    number: int
    component: str
    spec: BaseModel
    text: str

    def line(self, location: Location = ()) -> int:
        if location:
            return line_of(self.text, self.number, ("attributes", *location))
        types = (n for n, line in enumerate(self.text.splitlines(), 1) if line.startswith("type:"))
        return next(itertools.islice(types, self.number, None), 1)  # read again, a thousand files take a second

    def error(self, mistake: Mistake) -> SpecError:
        return SpecError(f"{self.path}:{self.line(mistake.location)}", mistake.problem, mistake.next_step)


@dataclass(frozen=True)
class File:
    """What a file declares. With `errors` it declares nothing; `foreign`: it has components of other packages."""

    path: Path
    declared: tuple[Declared, ...] = ()
    errors: tuple[SpecError, ...] = ()
    foreign: bool = False


def files_below(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.rglob(FILE))


def read(path: Path, text: str | None = None) -> File:
    """The file's specs, or all that is wrong with it; `text` in place of what the file has."""
    try:
        text = path.read_text(encoding="utf-8") if text is None else text
        documents = [document for document in yaml.load_all(text, Loader=Loader) if document is not None]  # a safe one
    except (OSError, UnicodeDecodeError) as error:
        return File(path, errors=(SpecError(str(path), f"cannot be read: {error}", "mend the file"),))
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        problem = f"not valid YAML: {getattr(error, 'problem', error)}"
        return File(path, errors=(SpecError(f"{path}:{where.line + 1 if where else 1}", problem, "mend the file"),))
    if not documents:
        problem, next_step = "the file is empty", "write `type:` and `attributes:`, or remove it"
        return File(path, errors=(SpecError(f"{path}:1", problem, next_step),))
    declared, errors, foreign = [], list[SpecError](), False
    for number, document in enumerate(documents):
        one = _document(path, text, number, document)
        declared += [one] if isinstance(one, Declared) else []
        errors += one if isinstance(one, list) else []
        foreign |= one is None
    return File(path, () if errors else tuple(declared), tuple(errors), foreign)


def _document(path: Path, text: str, number: int, document: Any) -> Declared | list[SpecError] | None:
    """What a document declares, or what is wrong with it; None: another package's component, Dagster's business alone."""
    if not isinstance(document, dict) or not isinstance(document.get("type"), str):
        problem, next_step = "a component file has `type:` and `attributes:`", "see docs/specs.md for what each has"
        return [SpecError(f"{path}:{line_of(text, number, ())}", problem, next_step)]
    component = document["type"]
    if (model := SPEC_OF_COMPONENT.get(component)) is None:
        if not component.startswith("ml_platform."):
            return None
        problem = f"unknown type {component!r}{nearest(component, SPEC_OF_COMPONENT)}"
        return [SpecError(f"{path}:{line_of(text, number, ('type',))}", problem, "mend `type:`")]
    try:
        return Declared(path, number, component, model.model_validate(document.get("attributes") or {}), text)
    except ValidationError as error:
        return [
            SpecError(
                f"{path}:{line_of(text, number, ('attributes', *mistake.location))}", mistake.problem, mistake.next_step
            )
            for mistake in mistakes(model, error)
        ]


def line_of(text: str, number: int, location: Location) -> int:
    """The line, from 1, of the deepest part of `location` that the document has."""
    nodes = [node for node in yaml.compose_all(text, Loader=_Safe) if node is not None]
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
