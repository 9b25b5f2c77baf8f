"""One measured figure and its budget."""

from dataclasses import dataclass
from pathlib import Path


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


def peak_megabytes() -> float:
    """The most memory that this process had. Not what `resource` says: a child starts with the peak of its parent there."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024
