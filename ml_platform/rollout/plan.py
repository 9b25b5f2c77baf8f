"""The decisions to deploy and to go on, as pure functions of what is known."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ml_platform.core.spec import duration
from ml_platform.evaluation.gates import GateResult
from ml_platform.evaluation.report import Report
from ml_platform.registry.versions import Aliases, Version
from ml_platform.rollout.observations import SLOW_SHARE, Observed
from ml_platform.rollout.state import Event, Rollout


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


def plan_deployment(
    version: Version,
    aliases: Aliases,
    report: Report,
    gates: Sequence[GateResult],
    challenger: Version | None = None,
    overrides_allowed: bool = True,
) -> Action:
    """Whether to make `version` champion. The verdict is judged again here, since a red check stops only its own run.

    A `challenger` is being rolled out now: a version that was trained later takes its place, an earlier one does not. Without
    `overrides_allowed` a version whose run said something otherwise than the model file is not deployed.
    """
    if report.bundle_digest != version.digest:
        return Hold(f"the evaluation is of bundle {report.bundle_digest[:12]}, the version of {version.digest[:12]}")
    if failed := [gate for gate in gates if not gate.passed]:
        return Hold("; ".join(f"{gate.name}: {gate.reason}" for gate in failed))
    champion = aliases.champion
    if champion and champion.number == version.number:
        return Keep()
    if version.overrides and not overrides_allowed:
        by_hand = f"ml-platform promote {version.model} {version.number}, or training.overrides.promoted"
        return Hold(f"its run changed {version.overrides} of the model file, so that it waits for {by_hand}")
    compared = report.champion.version if report.champion else None
    if compared != (champion.number if champion else None):
        present = f"version {champion.number}" if champion else "none"
        return Hold(f"it was evaluated against champion {compared or 'none'}, and the champion is {present} now")
    for name, other in (("champion", champion), ("a rollout is under way of", challenger)):
        if other and other.training_date > version.training_date:
            words = f"{name} version {other.number} was trained as of {other.training_date}"
            return Hold(f"{words}, later than {version.training_date}")
    return Promote(aliases.promoted(version))


# --- while a rollout is under way -------------------------------------------------------------------------------------

PROOF_TIME = timedelta(minutes=30)  # a champion that was not proven by then is taken back


@dataclass(frozen=True)
class Advance:
    """The next step may begin."""

    reason: str


@dataclass(frozen=True)
class Wait:
    """It is too early to tell."""

    reason: str


@dataclass(frozen=True)
class Abort:
    """The champion stays, or comes back."""

    reason: str


@dataclass(frozen=True)
class Finish:
    """The version becomes champion."""

    reason: str


Decision = Advance | Wait | Abort | Finish


def decide(rollout: Rollout, observed: Observed, now: datetime) -> Decision:
    """What comes next, from the state, what was observed since the step began, and the time. A state that is over waits."""
    if rollout.is_over:
        return Wait(f"it has {rollout.phase}")
    if observed.trouble:
        return Abort(observed.trouble)
    elapsed = now - rollout.since
    if rollout.phase == "proving":
        if elapsed > PROOF_TIME:
            return Abort(f"as champion it was not proven within {PROOF_TIME}")
        return Wait("its proof as champion")
    spec = rollout.spec
    if broken := [words for words, value, limit in _judged(rollout, observed, certain=True) if value > limit]:
        return Abort("; ".join(broken))
    if waiting := _not_ready(rollout, observed, elapsed):
        if elapsed >= duration(spec.max_wait):
            return Abort(f"not ready within max_wait, {spec.max_wait}: {waiting}")
        return Wait(waiting)
    words = f"{rollout.stage}: {observed.requests:,} requests within the limits"
    return Advance(words) if rollout.step + 1 < len(spec.stages) else Finish(words)


def _judged(rollout: Rollout, observed: Observed, certain: bool) -> list[tuple[str, float, float]]:
    """Each figure in words, and its value against its limit: as it is, or as far as it is certain to be above."""
    limits, found = rollout.spec.abort_if, []
    intervals = [
        ("error rate", observed.errors, limits.error_rate),
        (f"share of requests slower than {limits.latency_p99_ms} ms", observed.slow, SLOW_SHARE),
    ]
    if limits.metric:
        intervals.append((f"{limits.metric.name} worse than the champion's", observed.metric, limits.metric.worse_by))
    for name, one, limit in intervals:
        if one is not None and limit is not None and not math.isnan(one.value):
            words = f"{name}: {one.value:.4g}, for certain {one.lower:.4g} to {one.upper:.4g}, against {limit:g}"
            found.append((words, one.lower if certain else one.value, limit))
    if observed.score_psi is not None and limits.score_psi is not None and (observed.shifted or not certain):
        words = f"PSI of the scores: {observed.score_psi:.3f} against {limits.score_psi:g}"
        found.append((words, observed.score_psi, limits.score_psi))
    return found


def _not_ready(rollout: Rollout, observed: Observed, elapsed: timedelta) -> str:
    """Why the step may not end well yet; empty if it may."""
    spec, wanted = rollout.spec, []
    if elapsed < duration(spec.bake):
        wanted.append(f"{elapsed} of {spec.bake}")
    for name, there, least in (
        ("requests", observed.requests, spec.min_requests),
        ("labels", observed.labels, spec.min_labels),
    ):
        if there < least:
            wanted.append(f"{there:,} of {least:,} {name}")
    if spec.strategy == "ab":
        if observed.metric is None or not observed.metric.upper < 0:
            wanted.append("not certain yet which one is better")
    else:
        wanted += [words for words, value, limit in _judged(rollout, observed, certain=False) if value > limit]
    return ", ".join(wanted)


def follow(rollout: Rollout, decision: Decision, observed: Observed, now: datetime, by: str) -> Rollout:
    """The state after a decision; the same after `Wait`."""
    figures = {"stage": str(rollout.stage or rollout.phase), **observed.figures()}
    match decision:
        case Wait():
            return rollout
        case Advance(reason):
            return rollout.moved("running", Event(now, "advanced", reason, by, figures), rollout.step + 1)
        case Abort(reason):
            return rollout.moved("aborted", Event(now, "aborted", reason, by, figures))
        case Finish(reason):
            return rollout.moved("proving", Event(now, "promoted", reason, by, figures))


def proven(rollout: Rollout, reason: str, now: datetime, by: str) -> Rollout:
    """The state after the new champion has been proven."""
    return rollout.moved("finished", Event(now, "proven", reason, by))


def aliases_after(
    rollout: Rollout, aliases: Aliases, challenger: Version, find: Callable[[str], Version | None]
) -> Aliases:
    """What the aliases have to be in this state of the rollout; `find` gets a version by its number.

    The champion's alias moves when the proof begins, and back if it fails, unless somebody has moved it in the meantime.
    """
    is_champion = aliases.champion is not None and aliases.champion.number == rollout.version
    if rollout.phase == "proving" and not is_champion:
        return aliases.promoted(challenger)
    if rollout.phase != "aborted":
        return aliases.nominated(challenger) if rollout.phase == "running" else aliases
    if is_champion:
        champion, before = (find(number) if number else None for number in (rollout.champion, rollout.previous))
        if champion or not rollout.champion:  # a version that was deleted cannot come back
            aliases = replace(aliases, champion=champion, previous=before)
    return aliases.withdrawn(challenger)
