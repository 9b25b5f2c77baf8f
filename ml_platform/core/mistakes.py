"""What pydantic finds wrong, in the words of someone who writes YAML: the field, what is wrong, the nearest valid name."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

Location = tuple[int | str, ...]


@dataclass(frozen=True)
class Mistake:
    location: Location
    problem: str
    next_step: str

    @property
    def field(self) -> str:
        return ".".join(map(str, self.location))


def misplaced(location: Location, problem: str) -> PydanticCustomError:
    """The error for a validator of a whole to raise about one of its parts, so that the part's line is named."""
    return PydanticCustomError("misplaced", "{problem}", {"problem": problem, "location": location})


def first_mistake(model: type[BaseModel], error: ValidationError, within: Location = ()) -> Mistake:
    """The mistake to mend first, of those in an object that lies at `within` and should be a `model`."""
    return mistakes(model, error, within)[0]


def mistakes(model: type[BaseModel], error: ValidationError, within: Location = ()) -> list[Mistake]:
    """All mistakes in an object that lies at `within` and should be a `model`, misspelt keys first.

    A misspelt key often shows as a missing one too; the misspelling is what to mend.
    """
    found = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    misspelt = {
        (*one["loc"][:-1], close[0])
        for one in found
        if one["type"] == "extra_forbidden"
        and (close := get_close_matches(str(one["loc"][-1]), _fields_at(model, one["loc"][:-1]), n=1, cutoff=0.5))
    }
    return [
        _mistake(model, one, within)
        for one in found
        if not (one["type"] == "missing" and tuple(one["loc"]) in misspelt)
    ]


def _mistake(model: type[BaseModel], found: ErrorDetails, within: Location) -> Mistake:
    local = (*found["loc"], *(found.get("ctx", {})["location"] if found["type"] == "misplaced" else ()))
    location = (*within, *local)
    field = ".".join(map(str, location)) or "attributes"
    if found["type"] == "extra_forbidden":
        valid = _fields_at(model, local[:-1])
        problem = f"unknown key `{field}`{nearest(str(local[-1]), valid)}"
        return Mistake(location, problem, f"one of {', '.join(valid)}")
    if found["type"] == "missing":
        return Mistake(location, f"`{field}` is required", f"add `{location[-1]}:`")
    message = found["msg"].removeprefix("Value error, ")
    if found["type"] == "literal_error" and isinstance(found["input"], str):
        message += nearest(found["input"], re.findall(r"'([^']*)'", found.get("ctx", {}).get("expected", "")))
    shown = "" if isinstance(found["input"], dict) else f" (it is {found['input']!r})"
    return Mistake(location, f"`{field}`: {message}{shown}", "mend the value")


def nearest(name: str, among: Iterable[str]) -> str:
    """The end of a sentence that says which name was probably meant, if one is near."""
    close = get_close_matches(name, list(among), n=1, cutoff=0.5)
    return f"; did you mean `{close[0]}`?" if close else ""


def _fields_at(model: type[BaseModel], location: Location) -> list[str]:
    """Valid keys of the object at `location`, found by walking the JSON schema."""
    root = model.model_json_schema()
    node = root
    for part in location:
        while "$ref" in node:
            node = root["$defs"][node["$ref"].rsplit("/", 1)[1]]
        if "properties" in node and part in node["properties"]:
            node = node["properties"][part]
        elif "patternProperties" in node:
            node = next(iter(node["patternProperties"].values()))
        elif isinstance(node.get("additionalProperties"), dict):
            node = node["additionalProperties"]
        elif "items" in node:
            node = node["items"]
        elif "prefixItems" in node:
            node = node["prefixItems"][0]
    while "$ref" in node:
        node = root["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return list(node.get("properties", {}))
