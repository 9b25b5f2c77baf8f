"""Which runs have failed and what of theirs is still missing: from one tick to the next, by what has ended in between."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from ml_platform.components.graph import asset_key
from ml_platform.components.partitions import days_of_run
from ml_platform.components.recovery import LOOK_BACK, OVERLAP, ending_of, made_by
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.monitoring.alerts import Alert

RUNS = 100  # that ended, of one tick; the others are next
OPEN = 200  # faults that are kept; beyond them the oldest are given up
PATIENCE = 600.0  # seconds that trouble with the outside may take to pass: runs are asked for again by themselves
SHOWN = 600  # letters of a reason
WHOLE = "whole"  # the one part of an asset without days
_NEXT = " Next: "


@dataclass(frozen=True)
class Failures:
    """Faults that are open, as alerts, with when each was last met (epoch seconds); `until`: which runs were seen."""

    until: float | None = None
    open: tuple[tuple[Alert, float], ...] = ()

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> "Failures":
        """What `kept()` said."""
        faults = tuple((Alert(**{**one, "parts": tuple(one["parts"])}), at) for one, at in kept.get("open", ()))
        return cls(kept.get("until"), faults)

    def alerts(self) -> list[Alert]:
        return [replace(alert, parts=tuple(part for part in alert.parts if part != WHOLE)) for alert, _ in self.open]

    def kept(self) -> dict[str, Any]:
        """As JSON; what is missing here every alert gets anew."""
        names = ("kind", "subject", "reason", "cause", "parts", "link", "next_step", "patience")
        return {"until": self.until, "open": [[{n: getattr(one, n) for n in names}, at] for one, at in self.open]}


def look(instance: dg.DagsterInstance, catalog: Catalog, before: Failures, now: datetime, url: str) -> Failures:
    """The faults that are open now: those of before and of runs that failed since, less what was made since."""
    since = datetime.fromtimestamp(before.until, UTC) - OVERLAP if before.until else now - LOOK_BACK
    ended = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE], updated_after=since)
    records = instance.get_run_records(ended, limit=RUNS, order_by="update_timestamp", ascending=True)
    faults = list(before.open)
    for record in records:
        run, at = record.dagster_run, record.end_time or record.update_timestamp.timestamp()
        if run.status == dg.DagsterRunStatus.SUCCESS:
            faults = [_without(one, at, _made(run)) for one in faults]
        else:
            faults = _joined(faults, [(alert, at) for alert in _faults(instance, catalog, run, url)])
    faults = [(_unmade(instance, alert, at), at) for alert, at in faults]
    # A full portion ends where the next one begins; else what is written late may still come.
    until = records[-1].update_timestamp + OVERLAP if len(records) == RUNS else now
    left = [(alert, at) for alert, at in faults if alert.parts]
    return Failures(until.timestamp(), tuple(left[-OPEN:]))


def _made(run: dg.DagsterRun) -> set[tuple[str, str]]:
    days = [day.isoformat() for day in days_of_run(run.tags)] or [WHOLE]
    return {(key.to_user_string(), day) for key in run.asset_selection or () for day in days}


def _without(fault: tuple[Alert, float], at: float, made: set[tuple[str, str]]) -> tuple[Alert, float]:
    """A fault without what a run that ended well later was for, whether or not it had anything to write."""
    alert, failed = fault
    left = tuple(part for part in alert.parts if at <= failed or (alert.subject, part) not in made)
    return replace(alert, parts=left), failed


def _joined(faults: Iterable[tuple[Alert, float]], more: Iterable[tuple[Alert, float]]) -> list[tuple[Alert, float]]:
    """Reports of one fault as one."""
    found: dict[str, tuple[Alert, float]] = {}
    for alert, at in [*faults, *more]:
        known = found.pop(alert.id, None)
        found[alert.id] = (alert.joined(known[0]), max(at, known[1])) if known else (alert, at)
    return list(found.values())


def _faults(instance: dg.DagsterInstance, catalog: Catalog, run: dg.DagsterRun, url: str) -> Iterator[Alert]:
    """What is wrong with the assets of a run that failed: those whose steps failed, or all that it did not make."""
    ending, why = ending_of(instance, run)
    made = {(asset, day.isoformat() if day else WHOLE) for asset, day in made_by(instance, run.run_id)}
    missing = _made(run) - made
    feeds = {keys.raw(feed): feed for feed in catalog.feeds}
    assets = _failed_assets(instance, run) or dict.fromkeys(asset for asset, _ in sorted(missing))
    for asset in assets:
        parts = tuple(part for name, part in missing if name == asset)
        broken = ending == "mistake" and asset in feeds
        problem, _, next_step = why.partition(_NEXT)
        first = min(parts, default="")
        yield Alert(
            "contract_broken" if broken else "run_failed",
            asset,
            problem.rstrip(".")[:SHOWN],
            parts=parts,
            link=f"{url}/runs/{run.run_id}",
            next_step=f"ml-platform quarantine show {feeds[asset]} {first}"
            if broken
            else next_step or "look at the run",
            patience=0.0 if ending == "mistake" else PATIENCE,
        )


def _failed_assets(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[str, None]:
    """The assets whose steps failed; a step's key begins with its asset's, with __ for /."""
    of_step = {key.to_user_string().replace("/", "__"): key.to_user_string() for key in run.asset_selection or ()}
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    steps = [event.dagster_event.step_key or "" for event in events if event.dagster_event]
    return dict.fromkeys(of_step[name] for step in steps if (name := step.split(".")[0].split("[")[0]) in of_step)


def _unmade(instance: dg.DagsterInstance, alert: Alert, at: float) -> Alert:
    """The alert without partitions that were materialized since, by a run or by nobody's."""
    if not alert.parts:
        return alert
    whole = WHOLE in alert.parts
    chosen = dg.AssetRecordsFilter(
        asset_key(alert.subject), asset_partitions=None if whole else list(alert.parts), after_timestamp=at
    )
    made = instance.fetch_materializations(chosen, limit=len(alert.parts)).records
    done = {record.partition_key or WHOLE for record in made}
    return replace(alert, parts=tuple(part for part in alert.parts if part not in done))
