"""What all specs share."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti|k|M|G|T)?$")]
Duration = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*[smhd]$")]
IMPORT_PATH = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$"
ImportPath = Annotated[str, StringConstraints(pattern=IMPORT_PATH)]
TrainerName = Annotated[str, StringConstraints(pattern=r"^([a-z][a-z0-9_]*|[A-Za-z_]\w*(\.[A-Za-z_]\w*)+)$")]
FeatureType = Literal["int64", "float64"]


_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def bytes_of(quantity: str) -> int:
    """A quantity such as 20Gi in bytes."""
    number = quantity.rstrip("".join(_UNITS))
    return int(float(number) * _UNITS.get(quantity[len(number) :], 1))


def duration(text: str) -> timedelta:
    """A duration such as 10m."""
    return timedelta(seconds=seconds(text))


def seconds(text: str) -> int:
    """A duration such as 10m in seconds."""
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[text[-1]]


class Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Described(Spec):
    name: Name
    description: str = ""
    owners: tuple[str, ...] = Field(default=(), description="e-mail addresses or team:names")
    keep_days: int | None = Field(
        default=None, ge=1, description="how many of the newest days are kept; default: all (ml-platform retention)"
    )
