"""`ml-platform schema`: what the YAML files may say, for editors and for people."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ml_platform.core.catalog.reading import SPEC_OF_COMPONENT


def schema(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="tables of all fields, as docs/fields.md has them")
    ] = False,
) -> None:
    """Print the JSON schema of the files below `defs`: editors check and complete by it."""
    print(tables() if markdown else json.dumps(of_files(), indent=1))


def of_files() -> dict[str, Any]:
    """One schema for a document of any of our components."""
    definitions: dict[str, Any] = {}
    documents = []
    for component, spec in SPEC_OF_COMPONENT.items():
        found = spec.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= found.pop("$defs", {})
        definitions[spec.__name__] = found
        body = {"type": {"const": component}, "attributes": {"$ref": f"#/$defs/{spec.__name__}"}}
        required = ["type", "attributes"] if found.get("required") else ["type"]
        documents.append({"type": "object", "properties": body, "required": required, "description": spec.__doc__})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "oneOf": documents, "$defs": definitions}


def tables() -> str:
    """Every field of every component, in Markdown."""
    whole = of_files()
    parts = [
        "# Fields",
        "What a file below `defs/` may say, all of it. This page is made by `ml-platform schema --markdown`; [specs.md](specs.md) explains.",
    ]
    for component, spec in SPEC_OF_COMPONENT.items():
        parts.append(f"## {component}\n\n{_said(spec.__doc__)}".strip())
        parts += _table(spec.__name__, whole["$defs"])
        parts += [part for name in _nested(spec.__name__, whole["$defs"]) for part in _section(name, whole["$defs"])]
    return "\n\n".join(parts)


def _section(name: str, definitions: dict[str, Any]) -> Iterator[str]:
    yield f"### {name.removesuffix('Spec')}\n\n{_said(definitions[name].get('description'))}".strip()
    yield from _table(name, definitions)


def _table(name: str, definitions: dict[str, Any]) -> Iterator[str]:
    found = definitions[name]
    rows = [
        f"| `{field}` | {_type(about)} | {_default(field, about, found)} | {_cell(about.get('description', ''))} |"
        for field, about in found.get("properties", {}).items()
    ]
    if rows:
        yield "\n".join(["| field | type | default | |", "|---|---|---|---|", *rows])


def _nested(name: str, definitions: dict[str, Any]) -> list[str]:
    """Objects within an object, each once, in the order in which they are met."""
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if (ref := node.get("$ref")) and (inner := ref.rsplit("/", 1)[1]) not in found and inner != name:
                found.append(inner)
                walk(definitions[inner].get("properties", {}))
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(definitions[name].get("properties", {}))
    return found


def _type(about: dict[str, Any]) -> str:
    if ref := about.get("$ref"):
        return ref.rsplit("/", 1)[1].removesuffix("Spec")
    if several := about.get("anyOf") or about.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(one) for one in several if one.get("type") != "null"))
    if "enum" in about or "const" in about:
        return ", ".join(f"`{one}`" for one in about.get("enum", [about.get("const")]))
    if about.get("type") == "array":
        return f"list of {_type(about.get('items', {}))}" if about.get("items") else "list"
    if about.get("type") == "object":
        values = about.get("additionalProperties") or next(iter(about.get("patternProperties", {}).values()), {})
        return f"{_type(values)} by name" if isinstance(values, dict) and values else "mapping"
    return str(about.get("type", "any"))


def _default(field: str, about: dict[str, Any], found: dict[str, Any]) -> str:
    if field in found.get("required", ()):
        return "required"
    default = about.get("default")
    return "" if default in (None, "", [], {}) or isinstance(default, dict) else f"`{json.dumps(default)}`"


def _said(text: str | None) -> str:
    return next(iter((text or "").strip().splitlines()), "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
