"""Looks at lake, registry and online store for what somebody has to be told of. Each is bounded: what it leaves for the next
tick, or cannot look at, it says."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import start_of
from ml_platform.core.errors import PlatformError
from ml_platform.core.spec import AlertKind, FeatureViewSpec, duration
from ml_platform.monitoring.alerts import Alert
from ml_platform.monitoring.expected import Expected, belongings, expected, explained_by
from ml_platform.resources.lake import Lake
from ml_platform.resources.online_store import OnlineStore
from ml_platform.resources.registry import Registry
from ml_platform.resources.verdict import verdict
from ml_platform.rollout.state import Rollout

AT_ONCE = 20  # subjects of a kind in one tick; the others have their turn
SETTLES = 600.0  # seconds that what follows by itself may take before it is trouble
PROOF = timedelta(minutes=30)  # that a new champion may take to be proven
T = TypeVar("T")


@dataclass
class Look:
    """What was seen, and (kind, subject) of what was not looked at."""

    seen: list[Alert] = field(default_factory=list)
    unseen: set[tuple[str, str]] = field(default_factory=set)

    def add(self, other: "Look") -> None:
        self.seen += other.seen
        self.unseen |= other.unseen

    def blind(self, kind: AlertKind, subjects: Iterable[str], what: str, error: PlatformError) -> None:
        """Something cannot be looked at, which is trouble of its own."""
        self.unseen |= {(kind, subject) for subject in subjects}
        why = Alert("cannot_look", what, error.problem, next_step=error.next_step, patience=SETTLES)
        self.seen.append(replace(why, cause=f"cannot look for {kind}"))


class Watch:
    """One tick's looks. `turn` counts ticks, `url` is Dagster's."""

    def __init__(self, catalog: Catalog, lake: Lake, now: datetime, turn: int = 0, url: str = "") -> None:
        self.catalog, self.lake, self.now, self.turn, self.url = catalog, lake, now, turn, url
        self.causes = explained_by(catalog)

    def finish(self, alert: Alert) -> Alert:
        """An alert with whose it is, and the link to its asset."""
        about, owners = belongings(self.catalog, alert.subject)
        link = f"{self.url}/assets/{alert.subject}" + (f"?partition={alert.parts[-1]}" if alert.parts else "")
        return replace(alert, about=about, owners=owners, link=alert.link or link)

    def late(self) -> Look:
        """Tables whose newest due day is not there."""
        return self._each("data_late", expected(self.catalog), lambda one: one.key, self._late)

    def _late(self, one: Expected) -> Alert | None:
        day = one.newest_due(self.now)
        if day is None or self.lake.manifest(one.key, day) is not None:
            return None
        due = one.due_at(day)
        command = f"ml-platform backfill {one.key} --from {day} --to {day}, once its inputs are there"
        is_raw = one.key.endswith("/raw")
        return Alert(
            "data_late",
            one.key,
            f"day {day} is not there",
            cause="late",
            value=f"{(self.now - due).total_seconds() / 3600:.1f} h late",
            limit=f"due {due:%Y-%m-%d %H:%M} UTC (deadline {one.deadline})",
            parts=(day.isoformat(),),
            next_step="ask whoever lands it; what is landed is read by itself" if is_raw else command,
            follows_from=self.causes[one.key],
            patience=0.0 if is_raw else SETTLES,
        )

    def quarantined(self, limit: int) -> Look:
        """Sources of which too many days wait for a decision."""

        def ask(feed: str) -> Alert | None:
            days = self.lake.days(keys.quarantine(feed))
            if len(days) <= limit:
                return None
            return Alert(
                "quarantine_growing",
                keys.raw(feed),
                f"{len(days)} days wait in quarantine for a decision",
                cause="waits",
                value=f"{len(days)} days",
                limit=f"{limit} days (quarantine_days)",
                parts=tuple(day.isoformat() for day in days),
                next_step=f"ml-platform quarantine list --source {feed}",
            )

        return self._each("quarantine_growing", list(self.catalog.feeds), keys.raw, ask)

    def rejected(self) -> Look:
        """Models whose newest evaluation does not pass its gates."""

        def ask(model: str) -> Alert | None:
            day = max(self.lake.days(keys.evaluation(model)), default=None)
            gates = verdict(self.catalog.models[model], day, self.lake)[1] if day else ()
            failed = [gate for gate in gates if not gate.passed]
            if not failed or day is None:
                return None
            return Alert(
                "gate_rejected",
                keys.evaluation(model),
                "; ".join(f"{gate.name}: {gate.reason}" for gate in failed),
                cause=f"of {day}",
                value=", ".join(f"{gate.value:.4g}" for gate in failed if gate.value is not None),
                limit=", ".join(f"{gate.limit:.4g}" for gate in failed if gate.limit is not None),
                parts=(day.isoformat(),),
                next_step=f"look at the evaluation's plots; the champion stays (ml-platform versions {model})",
            )

        return self._each("gate_rejected", list(self.catalog.models), keys.evaluation, ask)

    def rollouts(self, registry: Registry) -> Look:
        """Rollouts that were ended early, and those that do not get on."""
        look, deployments = Look(), [keys.deployment(model) for model in self.catalog.models]
        unreadable: dict[str, PlatformError] = {}
        try:
            found = registry.rollouts(unreadable)  # type: ignore[arg-type]  # it only puts errors in
        except PlatformError as error:
            look.blind("rollback", deployments, "registry", error)
            look.unseen |= {("rollout_stuck", key) for key in deployments}
            return look
        for model, error in unreadable.items():
            look.blind("rollback", [keys.deployment(model)], keys.deployment(model), error)
            look.unseen.add(("rollout_stuck", keys.deployment(model)))
        for model, rollout in found.items():
            if model in self.catalog.models and (alert := self._rollout(keys.deployment(model), model, rollout)):
                look.seen.append(self.finish(alert))
        return look

    def _rollout(self, subject: str, model: str, rollout: Rollout) -> Alert | None:
        part = (rollout.training_date,) if rollout.training_date else ()
        if rollout.phase == "aborted":
            stays = f"version {rollout.champion or 'none'} answers"
            return Alert(
                "rollback",
                subject,
                f"version {rollout.version} was taken back by {rollout.last.by}: {rollout.last.reason}; {stays}",
                cause=f"version {rollout.version} {rollout.began.isoformat()}",
                parts=part,
                next_step=f"ml-platform show {model} {rollout.version}",
            )
        limit = PROOF if rollout.phase == "proving" else duration(rollout.spec.max_wait) / 2
        if rollout.is_over or self.now - rollout.since <= limit:
            return None
        stage = f"step {rollout.step + 1} ({rollout.stage})" if rollout.stage else "its proof"
        return Alert(
            "rollout_stuck",
            subject,
            f"version {rollout.version} does not get beyond {stage}: {rollout.last.reason}",
            cause=f"version {rollout.version} {stage}",
            value=f"{(self.now - rollout.since).total_seconds() / 3600:.1f} h",
            limit=f"{limit.total_seconds() / 3600:g} h (half of rollout.max_wait, {rollout.spec.max_wait})",
            parts=part,
            next_step=f"ml-platform promote {model} {rollout.version}, or ml-platform rollback {model}",
            follows_from=self.causes[subject],
        )

    def online(self, store: OnlineStore) -> Look:
        """Whether the online store has the newest snapshots."""
        key, behind, look = keys.ONLINE_STORE, list[str](), Look()
        views = self.catalog.snapshot_views()
        chosen, rest = self._turn(views)
        try:
            for view in chosen:
                behind += self._behind(view, store)
        except PlatformError as error:
            look.blind("online_store_stale", [key], key, error)
            return look
        if behind:
            alert = Alert(
                "online_store_stale",
                key,
                "; ".join(behind),
                cause="stale",
                next_step=f"materialize {key}, and see why its last run failed",
                follows_from=self.causes[key],
                patience=SETTLES,
            )
            look.seen.append(self.finish(alert))
        elif rest:
            look.unseen.add(("online_store_stale", key))
        return look

    def _behind(self, view: FeatureViewSpec, store: OnlineStore) -> list[str]:
        newest = max(self.lake.days(keys.feature_view(view.name)), default=None)
        if newest is None:
            return []
        as_of = store.as_of(view.name)
        return (
            [] if as_of >= start_of(newest) else [f"{view.name} is as of {as_of:%Y-%m-%d}, where the lake has {newest}"]
        )

    def _turn(self, subjects: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
        """Those whose turn it is, and the others."""
        turns = max(1, -(-len(subjects) // AT_ONCE))
        first = (self.turn % turns) * AT_ONCE
        return subjects[first : first + AT_ONCE], [*subjects[:first], *subjects[first + AT_ONCE :]]

    def _each(
        self, kind: AlertKind, subjects: Sequence[T], name: Callable[[T], str], ask: Callable[[T], Alert | None]
    ) -> Look:
        """Ask about each subject whose turn it is; one that cannot be looked at keeps no other from it."""
        chosen, rest = self._turn(subjects)
        look = Look(unseen={(kind, name(one)) for one in rest})
        for one in chosen:
            try:
                alert = ask(one)
            except PlatformError as error:
                look.blind(kind, [name(one)], name(one), error)
                continue
            if alert:
                look.seen.append(self.finish(alert))
        return look
