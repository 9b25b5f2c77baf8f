"""The decision to deploy, as a pure function of what is known."""

from collections.abc import Sequence
from dataclasses import dataclass

from ml_platform.evaluation.gates import GateResult
from ml_platform.evaluation.report import Report
from ml_platform.registry.versions import Aliases, Version


@dataclass(frozen=True)
class Promote:
    """Make these aliases true."""

    aliases: Aliases


@dataclass(frozen=True)
class Keep:
    """The version is champion already."""


@dataclass(frozen=True)
class Hold:
    """The version is not deployed, for this reason."""

    reason: str


Action = Promote | Keep | Hold


def plan_deployment(version: Version, aliases: Aliases, report: Report, gates: Sequence[GateResult]) -> Action:
    """Whether to make `version` champion. The verdict is judged again here, since a red check stops only its own run."""
    if report.bundle_digest != version.digest:
        return Hold(f"the evaluation is of bundle {report.bundle_digest[:12]}, the version of {version.digest[:12]}")
    if failed := [gate for gate in gates if not gate.passed]:
        return Hold("; ".join(f"{gate.name}: {gate.reason}" for gate in failed))
    champion = aliases.champion
    if champion and champion.number == version.number:
        return Keep()
    compared = report.champion.version if report.champion else None
    if compared != (champion.number if champion else None):
        present = f"version {champion.number}" if champion else "none"
        return Hold(f"it was evaluated against champion {compared or 'none'}, and the champion is {present} now")
    if champion and champion.training_date > version.training_date:
        return Hold(
            f"champion version {champion.number} was trained as of {champion.training_date}, later than {version.training_date}"
        )
    return Promote(aliases.promoted(version))
