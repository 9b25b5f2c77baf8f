"""One measured figure and its budget."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """`limit` bounds the value from above; None is a figure for information only."""

    name: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def passed(self) -> bool:
        return self.limit is None or self.value <= self.limit

    def line(self) -> str:
        budget = "none" if self.limit is None else f"{self.limit:g}"
        return f"{self.name} {self.value:.4g} {self.unit} budget {budget} {'PASS' if self.passed else 'FAIL'}"
