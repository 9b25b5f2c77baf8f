"""Hyper-parameter search: which values of a trainer's params are tried, and how."""

import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from ml_platform.core.spec.base import PAIR, Spec

MOST_TRIALS = 1_000
DEFAULT_TRIALS = 20
FORMS = "a list of values, {range: [low, high]}, also with a step, or {log: [low, high]}"

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)[eE][+-]?\d+")


def _as_number(value: Any) -> Any:
    """`1e-4` as the number that is meant: YAML 1.1 reads it as text, for want of a dot."""
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


Number = Annotated[int | float, BeforeValidator(_as_number)]
Choice = Annotated[Any, BeforeValidator(_as_number)]


class RangeSpec(Spec):
    """Numbers between two ends, both included; whole numbers where both ends (and the step) are written as such."""

    range: Annotated[tuple[Number, Number], PAIR] | None = Field(default=None, description="drawn evenly")
    log: Annotated[tuple[Number, Number], PAIR] | None = Field(
        default=None, description="drawn evenly on a logarithmic scale"
    )
    step: Number | None = Field(default=None, gt=0, description="of `range`: only these distances from its low end")

    @model_validator(mode="before")
    @classmethod
    def _has_known_keys(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.keys() - cls.model_fields.keys():
            raise ValueError(f"give {FORMS}")
        return given

    @model_validator(mode="after")
    def _is_a_range(self) -> "RangeSpec":
        if (self.range is None) == (self.log is None):
            raise ValueError(f"give {FORMS}")
        low, high = self.ends
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"the low end {low} is not below the high end {high}")
        if self.log and low <= 0:
            raise ValueError(f"the low end of a logarithmic scale is above zero, not {low}")
        if self.step is not None:
            steps = (high - low) / self.step
            if self.log or abs(steps - round(steps)) > 1e-9:
                raise ValueError(f"steps of {self.step} do not lead from {low} to {high}")
        return self

    @property
    def ends(self) -> tuple[int | float, int | float]:
        found = self.range or self.log
        assert found is not None, "one of them is given"
        return found

    @property
    def whole(self) -> bool:
        return all(isinstance(number, int) for number in (*self.ends, 1 if self.step is None else self.step))

    @property
    def values(self) -> list[int | float] | None:
        """Every value there is; None if there is no end of them, or the scale is logarithmic."""
        low, high = self.ends
        if self.log or (self.step is None and not self.whole):
            return None
        step = self.step or 1
        return [low + number * step for number in range(round((high - low) / step) + 1)]


Domain = Annotated[
    Annotated[tuple[Choice, ...], Field(min_length=1), Tag("values")] | Annotated[RangeSpec, Tag("range")],
    Discriminator(lambda given: "values" if isinstance(given, list | tuple) else "range"),
]


class SearchSpec(Spec):
    """Trials over params of a candidate. A param may stand beside the settings as well as in `space`."""

    method: Literal["grid", "random", "tpe"] | None = Field(
        default=None, description="default: grid if `space` has lists only and `trials` is not given, else tpe"
    )
    space: dict[str, Domain] = Field(min_length=1, description=f"param -> {FORMS}")
    trials: int | None = Field(
        default=None, ge=1, le=MOST_TRIALS, description=f"default {DEFAULT_TRIALS}; a grid has all"
    )
    parallel: int | None = Field(
        default=None, ge=1, description="trials at once; default: as many as the executor allows"
    )
    max_failed_share: float = Field(
        default=0.25, ge=0, lt=1, description="of the trials may fail; more, and the step fails"
    )
    prune: bool = Field(default=True, description="stop a trial that is worse than the median of those before it")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        beside = {name: v for name, v in given.items() if name not in cls.model_fields and isinstance(v, list | dict)}
        if not beside:
            return given
        settings = {name: value for name, value in given.items() if name not in beside}
        return {**settings, "space": {**(given.get("space") or {}), **beside}}

    @model_validator(mode="after")
    def _has_as_many_points(self) -> "SearchSpec":
        endless = [name for name, domain in self.space.items() if values_of(domain) is None]
        if self.how == "grid":
            if endless:
                raise ValueError(f"a grid needs values of {endless[0]}: give a list, or a range with a step")
            if self.trials is not None:
                raise ValueError(f"a grid has as many trials as points ({self.points}): leave `trials` out")
            if (self.points or 0) > MOST_TRIALS:
                raise ValueError(f"the grid has {self.points:,} points, and {MOST_TRIALS:,} are the most")
        elif self.points is not None and (self.trials or 0) > self.points:
            raise ValueError(f"{self.trials} trials of {self.points} points: lower `trials`, or take method: grid")
        return self

    @property
    def how(self) -> Literal["grid", "random", "tpe"]:
        lists_only = all(isinstance(domain, tuple) for domain in self.space.values())
        return self.method or ("grid" if lists_only and self.trials is None else "tpe")

    @property
    def points(self) -> int | None:
        """How many points there are; None if there is no end of them."""
        sizes = [values_of(domain) for domain in self.space.values()]
        return None if None in sizes else math.prod(len(values or ()) for values in sizes)

    @property
    def count(self) -> int:
        """How many trials there are."""
        if self.how == "grid":
            assert self.points is not None, "a grid has an end"
            return self.points
        return self.trials or min(DEFAULT_TRIALS, self.points or DEFAULT_TRIALS)

    def extremes(self) -> Iterator[dict[str, Any]]:
        """Points with every end and every value that can be reached, one param changing at a time: all that is worth a check."""
        reach = {
            n: list(domain.ends) if isinstance(domain, RangeSpec) else list(domain) for n, domain in self.space.items()
        }
        first = {name: values[0] for name, values in reach.items()}
        for name, values in reach.items():
            yield from ({**first, name: value} for value in values)


def values_of(domain: Domain) -> list[Any] | None:
    """Every value that a param may have; None if there is no end of them."""
    return list(domain) if isinstance(domain, tuple) else domain.values
