"""A version's way to be champion: started by a deployment, gone on with by ticks, proven at the end, or all of it by hand."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Generic, Protocol, TypeVar

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import DeploymentError
from ml_platform.core.spec import ModelSpec, RolloutSpec
from ml_platform.registry.versions import Version
from ml_platform.resources.change import Change
from ml_platform.resources.labels import with_labels
from ml_platform.resources.lake import Lake
from ml_platform.resources.model_server import ModelServer
from ml_platform.resources.prediction_log import read
from ml_platform.resources.registry import Registry
from ml_platform.resources.verdict import verdict
from ml_platform.rollout.observations import Observed, observe
from ml_platform.rollout.plan import Abort, Hold, Promote, Wait, aliases_after, decide, follow, plan_deployment, proven
from ml_platform.rollout.standing import Standing
from ml_platform.rollout.state import Event, Rollout

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


class Proof(Protocol):
    """Whether the server scores a version as it should, and in words."""

    @property
    def passed(self) -> bool: ...
    @property
    def description(self) -> str: ...


P = TypeVar("P", bound=Proof)


@dataclass(frozen=True)
class Begun:
    """The version gets requests step by step from now on."""

    version: Version
    rollout: Rollout


@dataclass(frozen=True)
class Deployed(Generic[P]):
    """What the server says that it serves, and whether it scores as training does. If not, the aliases are as before."""

    served: dict[str, Any]
    check: P


def deploy(
    spec: ModelSpec,
    day: date,
    lake: Lake,
    registry: Registry,
    server: ModelServer,
    prove: Callable[[Version], P],
    by: str,
    clock: Clock = utc_now,
) -> Hold | Begun | Deployed[P]:
    """Judge the version of a training date again and start its rollout, or prove it if it has become champion.

    If the server does not take the new champion, or scores otherwise, the aliases go back to what they were.

    Raises:
        DeploymentError: if there is no such version, or the server does not serve it.
    """
    if version := _to_be_proven(registry.standing(spec.name), day):
        return _confirm(version, registry, server, prove, by, clock)
    report, gates = verdict(spec, day, lake)
    version = next((v for v in registry.versions(spec.name) if v.digest == report.bundle_digest), None)
    if version is None:
        subject = keys.partition(keys.deployment(spec.name), day)
        raise DeploymentError(
            subject,
            f"bundle {report.bundle_digest[:12]} is not registered",
            f"materialize {keys.model_version(spec.name)}",
        )
    with registry.changing(spec.name) as change:
        standing = change.standing
        action = plan_deployment(
            version, standing.aliases, report, gates, standing.challenger, spec.training.overrides.promoted
        )
        if isinstance(action, Hold):
            return action
        if isinstance(action, Promote):
            known = standing.active if standing.challenger == version else None
            rollout = known or _begin(change, version, spec.rollout, by, "", clock())
            if rollout.phase == "running":
                return Begun(version, rollout)
    return _confirm(version, registry, server, prove, by, clock)


def progress(
    spec: ModelSpec,
    catalog: Catalog,
    lake: Lake,
    registry: Registry,
    server: ModelServer,
    by: str,
    clock: Clock = utc_now,
) -> Rollout | None:
    """One look at a model's rollout: what was observed, decided and done. The state afterwards; None if there is none.

    Raises:
        RegistryError, LakeError: if it cannot be told where the rollout stands; then nothing changes.
    """
    standing = registry.standing(spec.name)
    seen = standing.active
    if seen is None:
        return standing.rollout
    now = clock()
    observed = look(spec, catalog, standing, lake, server, now)
    decision = decide(seen, observed, now)
    if isinstance(decision, Wait):
        return seen
    with registry.changing(spec.name) as change:
        if change.standing.rollout != seen:
            return change.standing.rollout  # somebody has gone on
        after = follow(seen, decision, observed, now, by)
        _become(change, after, standing.challenger)
    return after


def look(
    spec: ModelSpec, catalog: Catalog, standing: Standing, lake: Lake, server: ModelServer, now: datetime
) -> Observed:
    """What is known about the present step of a rollout."""
    rollout = standing.active
    assert rollout is not None, "the caller looked"
    champion = standing.aliases.champion.number if standing.aliases.champion else None
    if standing.challenger is None:
        return Observed(trouble=f"version {rollout.version} is not in the registry any more")
    if champion != (rollout.champion if rollout.phase == "running" else rollout.version):
        return Observed(trouble=f"the champion is version {champion} now, moved by somebody else")
    if rollout.phase != "running":
        return Observed()
    log = read(lake, spec.name, rollout.since, now, inputs=rollout.spec.abort_if.metric is not None)
    if rollout.spec.abort_if.metric:
        log = with_labels(spec, catalog, lake, log)
    return observe(rollout, log, spec.task, _refusal(server, standing.challenger))


def promote(
    version: Version,
    spec: ModelSpec | None,
    reason: str,
    force: bool,
    lake: Lake,
    registry: Registry,
    server: ModelServer,
    by: str,
    clock: Clock = utc_now,
) -> dict[str, Any]:
    """Make a version champion by hand, at once; returns what the server says that it serves.

    Raises:
        DeploymentError: if it is not forced and the version's evaluation does not allow it; if the server does not take the
            version, which is then not champion.
    """
    with registry.changing(version.model) as change:
        if not force:
            _must_have_passed(version, spec, lake, change.standing)
        words = f"{'forced' if force else 'by hand'}{f': {reason}' if reason else ''}"
        _begin(change, version, RolloutSpec(), by, words, clock())
    return _confirm(version, registry, server, lambda _: _Nothing(), by, clock).served


def roll_back(
    model: str, reason: str, registry: Registry, server: ModelServer, by: str, clock: Clock = utc_now
) -> tuple[Version, dict[str, Any]]:
    """End a rollout that is under way, or else give the champion's place back to the previous version.

    Returns the champion and what the server says that it serves.

    Raises:
        DeploymentError: if there is nothing to go back to; if the server does not follow, though the registry says so.
    """
    with registry.changing(model) as change:
        standing = change.standing
        if rollout := standing.active:
            _become(change, follow(rollout, Abort(reason), Observed(), clock(), by), standing.challenger)
        else:
            left = standing.aliases.champion
            if left is None or standing.aliases.previous is None:
                raise DeploymentError(
                    f"{model}/deployment", "there is no previous version", f"ml-platform promote {model} VERSION"
                )
            change.to(standing.aliases.rolled_back(), standing.rollout)
            registry.note(left, Event(clock(), "rolled_back", reason, by))
        champion = change.standing.aliases.champion
    if champion is None:
        raise DeploymentError(
            f"{model}/deployment", "it has no champion any more", f"ml-platform promote {model} VERSION"
        )
    return champion, server.wait_until_served(champion)


def _to_be_proven(standing: Standing, day: date) -> Version | None:
    """The version of a training date that has become champion, and whose proof is still owed."""
    rollout = standing.active
    owed = rollout and rollout.phase == "proving" and rollout.training_date == day.isoformat()
    return standing.challenger if owed else None


def _begin(change: Change, version: Version, spec: RolloutSpec, by: str, words: str, now: datetime) -> Rollout:
    """Start a rollout; one that is under way ends."""
    standing = change.standing
    if standing.active and standing.challenger:
        why = f"version {version.number} takes its place"
        change.registry.note(standing.challenger, Event(now, "aborted", why, by))
    rollout = Rollout.begin(version, standing.aliases, spec, now, by, words)
    _become(change, rollout, version)
    return rollout


def _become(change: Change, rollout: Rollout, challenger: Version | None) -> None:
    """Make a state of a rollout true, with the aliases that belong to it."""

    def find(number: str) -> Version | None:
        return change.registry.find(change.model, number)

    gone = Version(change.model, rollout.version, "", rollout.training_date, "", "")
    change.to(aliases_after(rollout, change.standing.aliases, challenger or gone, find), rollout)
    if challenger:
        change.registry.note(challenger, rollout.last)


def _confirm(
    version: Version,
    registry: Registry,
    server: ModelServer,
    prove: Callable[[Version], P],
    by: str,
    clock: Clock,
) -> Deployed[P]:
    """Wait until the server serves the champion, and have it proven."""
    try:
        deployed = Deployed(server.wait_until_served(version), prove(version))
    except BaseException as error:  # also when the run is terminated: nothing that was not read back stays champion
        _settle(version, str(error) or type(error).__name__, False, registry, by, clock())
        raise
    _settle(version, deployed.check.description, deployed.check.passed, registry, by, clock())
    return deployed


def _settle(version: Version, words: str, passed: bool, registry: Registry, by: str, now: datetime) -> None:
    """End the proof of a champion, unless somebody has gone on from here."""
    with registry.changing(version.model) as change:
        rollout = change.standing.active
        if rollout and rollout.phase == "proving" and rollout.version == version.number:
            after = proven(rollout, words, now, by) if passed else follow(rollout, Abort(words), Observed(), now, by)
            _become(change, after, version)


def _must_have_passed(version: Version, spec: ModelSpec | None, lake: Lake, standing: Standing) -> None:
    subject, force = f"{version.model}/deployment", "train again, or --force --reason '...'"
    if spec is None or not version.training_date:
        raise DeploymentError(subject, f"version {version.number} has no evaluation here", force)
    report, gates = verdict(spec, date.fromisoformat(version.training_date), lake)
    action = plan_deployment(version, standing.aliases, report, gates)
    if isinstance(action, Hold):
        raise DeploymentError(subject, f"version {version.number} is not to be champion: {action.reason}", force)


def _refusal(server: ModelServer, challenger: Version) -> str:
    """Why the server does not take the challenger; empty if it does, or does not answer."""
    try:
        status = server.status(challenger.model) or {}
    except DeploymentError:
        return ""  # without it there are no requests, and the step ends by max_wait
    told = [(of or {}).get("refused") or {} for of in (status, status.get("challenger"))]
    return next((f"the server refused it: {r['reason']}" for r in told if r.get("version") == challenger.number), "")


@dataclass(frozen=True)
class _Nothing:
    """By hand, being served is all that is asked for."""

    passed: bool = True
    description: str = "the server serves it"
