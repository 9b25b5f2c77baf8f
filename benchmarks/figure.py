"""One measured figure and its budget."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """`limit` bounds the value from above, or from below if `at_least`; None is a figure for information only."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    at_least: bool = False

    @property
    def passed(self) -> bool:
        if self.limit is None:
            return True
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def line(self) -> str:
        budget = "none" if self.limit is None else f"{self.limit:g}"
        return f"{self.name} {self.value:.4g} {self.unit} budget {budget} {'PASS' if self.passed else 'FAIL'}"
