"""The gates that a candidate passes before it is registered."""

import re
from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, FiniteFloat, field_validator, model_validator

from ml_platform.core.spec.base import IMPORT_PATH, ImportPath, Name, Spec
from ml_platform.core.tasks import SHARES, Metric

Proof = Literal[
    "invariant_to_row_order",
    "invariant_to_batch_size",
    "survives_save_and_load",
    "input_schema_matches",
    "cold_start_is_sane",
]
BuiltInCheck = Literal["no_null_predictions", "prediction_latency_p99_ms", "min_class_ratio", Proof]
PROOFS: dict[str, str] = {
    "invariant_to_row_order": "A row's score does not depend on the order of the rows.",
    "invariant_to_batch_size": "A row's score does not depend on how many rows are scored at once.",
    "survives_save_and_load": "The model scores alike after it was saved and loaded.",
    "input_schema_matches": "The bundle asks for what the source and the training set have, in the same types.",
    "cold_start_is_sane": "The scores of entities that nobody knows are on average about what turned out.",
}
LIMIT_OF_CHECK = {"prediction_latency_p99_ms": "max", "min_class_ratio": "min"}
Confidence = Annotated[float, Field(gt=0.5, lt=1)]


class GateSpec(Spec):
    """One condition that a candidate meets before it is registered: on a metric, or a built-in check."""

    metric: Metric | ImportPath | None = Field(
        default=None,
        description="a metric of the task, or your own function by import path: "
        "(labels, scores) or (labels, scores, rows) -> float, more is better",
    )
    params: dict[str, str | int | float | bool] = Field(
        default={}, description="for your own function: arguments by name, after labels, scores and rows"
    )
    check: BuiltInCheck | None = Field(default=None, description="a built-in check in place of a metric")
    min: FiniteFloat | None = Field(default=None, description="the least value that passes")
    max: FiniteFloat | None = Field(default=None, description="the greatest value that passes")
    better_than_champion_by: FiniteFloat | None = Field(
        default=None,
        description="the least gain over the deployed model on the same rows; below 0: how much worse is borne. "
        "Without a champion the gate passes",
    )
    at_confidence: Confidence | None = Field(
        default=None, description="the share of the bootstrap's resamples that meet the limit too"
    )
    at_recall: float | None = Field(
        default=None, gt=0, le=1, description="for precision: the best at a threshold with at least this recall"
    )
    per: Name | None = Field(default=None, description="a column of entity_rows: every segment meets the limit")
    resample_by: Name | None = Field(
        default=None,
        description="a column of entity_rows: the bootstrap draws its values, each with all its rows, since these hang together",
    )
    min_rows: int | None = Field(
        default=None, ge=1, description="segments with fewer rows are named and skipped; default: 200"
    )

    @field_validator("metric", mode="before")
    @classmethod
    def _known(cls, metric: Any) -> Any:
        known = get_args(Metric)
        if metric is None or metric in known or re.fullmatch(IMPORT_PATH, str(metric)):
            return metric
        close = get_close_matches(str(metric), known, n=1, cutoff=0.5)
        raise ValueError(
            f"neither a metric nor package.module.function{f'; did you mean `{close[0]}`?' if close else ''}"
        )

    @model_validator(mode="after")
    def _one_condition(self) -> "GateSpec":
        if (self.metric is None) == (self.check is None):
            raise ValueError("a gate has either metric or check")
        limits = [name for name in ("min", "max", "better_than_champion_by") if getattr(self, name) is not None]
        if self.check is not None:
            allowed = [LIMIT_OF_CHECK[self.check]] if self.check in LIMIT_OF_CHECK else []
            if limits != allowed:
                raise ValueError(f"check {self.check} takes {' and '.join(allowed) or 'no limit'}")
            qualifiers = ("at_confidence", "at_recall", "per", "resample_by", "min_rows", "params")
            if given := [name for name in qualifiers if getattr(self, name) not in (None, {})]:
                raise ValueError(f"{given[0]} is for metrics, not for check {self.check}")
        elif len(limits) != 1:
            raise ValueError("a metric gate has exactly one of min, max, better_than_champion_by")
        return self

    @model_validator(mode="after")
    def _qualifiers_fit(self) -> "GateSpec":
        if self.at_recall is not None and self.metric != "precision":
            raise ValueError("at_recall is for metric precision")
        if self.params and not self.is_own_metric:
            raise ValueError("params are for a function of your own")
        if self.min_rows is not None and self.per is None:
            raise ValueError("min_rows is for gates per segment")
        if self.resample_by is not None and self.per is not None:
            raise ValueError("a gate has either per or resample_by")
        if self.per is not None and (self.at_confidence is not None or self.better_than_champion_by is not None):
            raise ValueError("a gate per segment has min or max, and no at_confidence")
        return self

    @model_validator(mode="after")
    def _limit_can_be_met(self) -> "GateSpec":
        share = self.metric in SHARES or self.check == "min_class_ratio"
        if share and ((self.min or 0) > 1 or (self.max or 0) < 0):
            raise ValueError(f"{self.metric or self.check} lies between 0 and 1")
        if share and (self.better_than_champion_by or 0) >= 1:
            raise ValueError("better_than_champion_by is below 1: no model gains more")
        return self

    @property
    def is_own_metric(self) -> bool:
        """Whether the metric is a function by import path."""
        return "." in (self.metric or "")

    @property
    def figure(self) -> str:
        """What is measured, without the limit: in words, and the figure's name in the report."""
        recall = f" at recall {self.at_recall:g}" if self.at_recall is not None else ""
        params = f" ({', '.join(f'{name}: {value}' for name, value in self.params.items())})" if self.params else ""
        drawn = f" drawn by {self.resample_by}" if self.resample_by else ""
        return f"{self.metric}{params}{recall}{f' per {self.per}' if self.per else ''}{drawn}"

    @property
    def name(self) -> str:
        """The gate as a sentence that is true when it passed; the name of its asset check."""
        if self.check == "prediction_latency_p99_ms":
            return "prediction_latency_is_within_limit"
        if self.check == "min_class_ratio":
            return "class_ratio_is_above_minimum"
        if self.check is not None:
            return self.check
        assert self.metric is not None, "validated"
        metric = self.metric.rsplit(".", 1)[-1]
        if self.at_recall is not None:
            metric = f"{metric}_at_recall_{self.at_recall:g}".replace(".", "_")
        if self.better_than_champion_by is not None:
            return f"{'beats' if self.better_than_champion_by >= 0 else 'keeps_up_with'}_champion_on_{metric}"
        limit = "above_minimum" if self.min is not None else "below_maximum"
        return f"{metric}_is_{limit}{f'_in_every_{self.per}' if self.per else ''}"

    @property
    def sentence(self) -> str:
        """The gate in words, with its limit."""
        if self.check == "no_null_predictions":
            return "Every prediction is a finite number."
        if self.check in PROOFS:
            return PROOFS[self.check]
        subject = {
            "prediction_latency_p99_ms": "The 99th percentile of a single prediction's latency in ms",
            "min_class_ratio": "The share of the rarest class among the validation rows",
        }.get(self.check or "", f"{self.figure} on the validation rows")
        sure = f", at confidence {self.at_confidence:g}" if self.at_confidence is not None else ""
        if (gain := self.better_than_champion_by) is not None:
            compared = f"at least {gain:g} better" if gain >= 0 else f"at most {-gain:g} worse"
            return f"{subject} is {compared} than the champion's on the same rows{sure}; without a champion it passes."
        return f"{subject} is at {f'least {self.min:g}' if self.min is not None else f'most {self.max:g}'}{sure}."
