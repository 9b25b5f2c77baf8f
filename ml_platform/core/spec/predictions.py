"""Batch scores of whole days."""

from pydantic import Field

from ml_platform.core.spec.base import Duration, Spec


class PredictionsSpec(Spec):
    """All rows of a day, scored by the deployed version."""

    automatic_days: int = Field(
        default=3,
        ge=0,
        description="the newest days, today included, that are scored by themselves once their features are there; 0: none. "
        "Days before are scored when asked for",
    )
    deadline: Duration | None = Field(
        default=None,
        description="how long after its day the scores of a day may take to be there; then they are late (Alerts)",
    )
