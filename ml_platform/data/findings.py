"""What a check found, and what the source's policy and a person's decision make of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ml_platform.core.spec import UNDISCARDABLE, UNTYPED, SourceSpec
from ml_platform.data.contract import CHECKS
from ml_platform.data.quarantine import Decision

SAMPLE_ROWS = 5
Outcome = Literal["passed", "warning", "error"]
Treatment = Literal["stop", "quarantine", "warn", "release", "discard"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check: how many rows or objects `offending`, a `sample` of them, and what is wrong in words."""

    check: str
    outcome: Outcome = "passed"
    offending: int = 0
    words: str = ""
    sample: tuple[dict[str, Any], ...] = ()


@dataclass
class Tally:
    """What was found for one check so far."""

    offending: int = 0
    words: str = ""
    sample: list[dict[str, Any]] = field(default_factory=list)

    def add(self, count: int, words: str, sample: Sequence[dict[str, Any]]) -> None:
        if count:
            self.offending += count
            self.words = self.words or words
            self.sample += sample[: SAMPLE_ROWS - len(self.sample)]


@dataclass(frozen=True)
class Rules:
    """A source's policies, as far as no decision about the day overrules them."""

    source: SourceSpec
    decision: Decision | None = None

    @property
    def checks(self) -> list[str]:
        """The checks that the source's raw partitions have."""
        return [check for check in CHECKS if check != "references_exist" or self.source.references]

    def treatment(self, check: str) -> Treatment:
        policy: Treatment = self.source.policy(check).on_failure
        if self.decision is None or policy == "warn" or check not in self.decision.checks:
            return policy
        impossible = UNTYPED if self.decision.action == "release" else UNDISCARDABLE
        return policy if check in impossible else self.decision.action

    def leaves(self, check: str) -> bool:
        """Whether rows that break the check stay out of the partition."""
        return self.treatment(check) not in ("warn", "release")

    def finding(self, check: str, tally: Tally, of: int, things: str = "rows") -> Finding:
        """What becomes of what was found among `of` things."""
        if not tally.offending:
            return Finding(check)
        policy, treatment = self.source.policy(check), self.treatment(check)
        share = tally.offending / max(of, 1)
        outcome: Outcome = "error"
        words = tally.words if things == "days" else f"{tally.offending:,} of {of:,} {things}; {tally.words}"
        if self.decision is not None and treatment in ("release", "discard"):
            outcome, words = "passed", f"{words}; {treatment}d by {self.decision.by}: {self.decision.reason}"
        elif treatment == "warn":
            outcome = "warning"
        elif treatment == "quarantine" and share <= policy.up_to:
            outcome, words = "warning", f"{words}; in quarantine"
        elif treatment == "quarantine":
            words += f"; {share:.2%} is more than policies.{check}.up_to, {policy.up_to:.2%}"
        return Finding(check, outcome, tally.offending, words, tuple(tally.sample))
