"""What all specs share."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti|k|M|G|T)?")
_CPU = re.compile(r"[0-9]+(\.[0-9]+)?m?")
_DURATION = re.compile(r"[1-9][0-9]*[smhd]")
# As Dagster takes them: a mistake is to be said with file and line.
_OWNER = re.compile(r"team:\S+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}")


def _matching(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"is no {what}")
        return text

    return AfterValidator(check)


def _quantity(pattern: re.Pattern[str], what: str) -> tuple[object, ...]:
    """`cpu: 4` is a number to YAML, and to editors, which go by the JSON schema."""
    return (
        _matching(pattern, what),
        BeforeValidator(lambda given: str(given) if type(given) in (int, float) else given),
        WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^{pattern.pattern}$"}, {"type": "number"}]}),
    )


def _cron(text: str) -> str:
    try:
        CronSim(text, datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise ValueError(f"is no schedule, such as 0 2 * * 0 (Sundays at two): {error}") from error
    if len(text.split()) != 5:
        raise ValueError("is no schedule: cron has five fields, such as 0 2 * * 0 (Sundays at two)")
    return text


def _time_zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("is no time zone, such as UTC or Europe/Berlin") from error
    return text


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
Quantity = Annotated[str, *_quantity(_QUANTITY, "quantity, such as 500m, 4G (4 x 10^9) or 4Gi (4 x 2^30)")]
Cpu = Annotated[str, *_quantity(_CPU, "number of processors, such as 4, 0.5 or 500m")]
# Of a schema with `prefixItems` alone Dagster can show no sample.
PAIR = WithJsonSchema({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2})
Duration = Annotated[str, _matching(_DURATION, "duration, such as 30s, 10m, 4h or 7d")]
Cron = Annotated[str, AfterValidator(_cron)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Owner = Annotated[str, _matching(_OWNER, "owner, such as ann@example.com or team:fraud")]
IMPORT_PATH = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$"
ImportPath = Annotated[str, StringConstraints(pattern=IMPORT_PATH)]
TrainerName = Annotated[str, StringConstraints(pattern=r"^([a-z][a-z0-9_]*|[A-Za-z_]\w*(\.[A-Za-z_]\w*)+)$")]
FeatureType = Literal["int64", "float64"]


_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def bytes_of(quantity: str) -> int:
    """A quantity such as 20Gi in bytes."""
    number = quantity.rstrip("".join(_UNITS))
    return int(float(number) * _UNITS.get(quantity[len(number) :], 1))


def cpus_of(quantity: str) -> float:
    """A quantity such as 500m in processors."""
    return float(quantity[:-1]) / 1_000 if quantity.endswith("m") else float(quantity)


def duration(text: str) -> timedelta:
    """A duration such as 10m."""
    return timedelta(seconds=seconds(text))


def seconds(text: str) -> int:
    """A duration such as 10m in seconds."""
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[text[-1]]


class Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Described(Spec):
    name: Name = Field(description="what it is called in the graph, the lake and the registry: lower snake case")
    description: str = Field(default="", description="a sentence that people read in the graph")
    owners: tuple[Owner, ...] = Field(default=(), description="e-mail addresses or team:names")
    keep_days: int | None = Field(
        default=None, ge=1, description="how many of the newest days are kept; default: all (ml-platform retention)"
    )
