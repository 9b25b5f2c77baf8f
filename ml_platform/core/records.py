"""Records that are kept as JSON, and read by other releases than the one that wrote them."""

import json
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


def read(cls: type[T], text: str | bytes) -> T:
    """A record, which is a dataclass or a model, from its JSON; see `of`."""
    return of(cls, json.loads(text))


def of(cls: type[T], content: Any) -> T:
    """A record of what JSON has, without what a newer release has added at any depth.

    Raises:
        ValueError: if it is none; in one line.
    """
    try:
        return _adapter(cls).validate_python(content, extra="ignore")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{f'{place}: ' if place else ''}{first['msg']}") from error


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)
