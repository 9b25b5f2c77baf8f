"""Params of a model file, checked against a trainer's own model of them."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ml_platform.core.errors import SpecError


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Params = TypeVar("_Params", bound=BaseModel)


def checked(model: type[_Params], params: Mapping[str, Any], trainer: str) -> _Params:
    """The params with defaults.

    Raises:
        SpecError: naming the first that is unknown or has an impossible value.
    """
    try:
        return model.model_validate(dict(params))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise SpecError(f"trainer {trainer}", f"{field}: {first['msg']}", f"mend candidates.params.{field}") from error
