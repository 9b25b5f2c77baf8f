"""`ml-platform backfill`, and what other commands need to have a day made again."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from difflib import get_close_matches
from typing import Annotated

import typer
from rich.console import Console

from ml_platform.cli.world import world
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import day_range
from ml_platform.core.errors import StackError
from ml_platform.core.settings import Settings
from ml_platform.resources.dagster_api import Backfill, DagsterApi
from ml_platform.resources.lake import Lake

Days = Mapping[str, tuple[date, date]]  # asset key -> first and last day
console = Console(stderr=True)


def backfill(
    target: Annotated[
        str, typer.Argument(help="raw, features, predictions, monitoring, or an asset such as transactions/raw")
    ],
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="first day")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="last day")],
    wait: Annotated[bool, typer.Option(help="stay until it has ended")] = True,
) -> None:
    """Make days of raw, features, predictions or monitoring again, as one run for a whole range. Status 1 if a day could not be made."""
    settings, catalog, lake = world()
    days = days_of(catalog, target, first.date(), last.date(), datetime.now(UTC).date())
    if not wait:
        started = DagsterApi.at(settings).launch_backfill(days)
        print(f"backfill {started} has been asked for: {settings.dagster_url}/runs/b/{started}")
    elif not make(settings, lake, days):
        raise typer.Exit(1)


def days_of(catalog: Catalog, target: str, first: date, last: date, today: date) -> Days:
    """The days that each asset of the target has within the range.

    Raises:
        StackError: if there is no such target, or it does not have all of the days.
    """
    starts = {keys.raw(source.name): source.start_date for source in catalog.ingested.values()}
    views = {keys.feature_view(view.name): catalog.view_start(view) for view in catalog.daily_views()}
    models = {keys.predictions(m.name): catalog.sources[m.entity_rows].start_date for m in catalog.models.values()}
    watched = {keys.monitoring(m.name): catalog.sources[m.entity_rows].start_date for m in catalog.models.values()}
    groups = {"raw": starts, "features": views, "predictions": models, "monitoring": watched}
    every = starts | views | models | watched
    chosen = groups.get(target) or {key: start for key, start in every.items() if key == target}
    if not chosen:
        known = [*groups, *every]
        close = get_close_matches(target, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise StackError(
            f"backfill {target}", f"there is nothing of this name to make again{hint}", f"one of {', '.join(known)}"
        )
    if not min(chosen.values()) <= first <= last <= today:
        problem = f"--from {first} --to {last} is not a range within {min(chosen.values())} to {today}"
        raise StackError(f"backfill {target}", problem, "choose other --from and --to")
    return {key: (max(start, first), last) for key, start in chosen.items() if start <= last}


def make(settings: Settings, lake: Lake, days: Days) -> bool:
    """Have days made, wait, and print what became of them; True if all were."""
    api, asked = DagsterApi.at(settings), {key: list(day_range(*bounds)) for key, bounds in days.items()}
    # Every write gives a partition files of a new name, so what was written can be told without anybody's clock.
    before = {key: lake.manifests(key, wanted) for key, wanted in asked.items()}
    with console.status("asking Dagster") as status:
        ended = api.make(days, lambda seen: status.update(progress(seen)))
    for key, wanted in asked.items():
        after = lake.manifests(key, wanted)
        made = sum(day in after and after[day] != before[key].get(day) for day in wanted)
        runs = [run for run in ended.runs if key in run.assets]
        # Features that come out as they were are not written again.
        rest = "unchanged" if runs and all(run.status == "SUCCESS" for run in runs) else "broken"
        names = ", ".join(run.id for run in runs) or "none was started"
        print(f"{key}: days asked {len(wanted)}, made {made}, {rest} {len(wanted) - made}; run {names}")
    for run in ended.runs:
        if run.status != "SUCCESS":
            page = f"{settings.dagster_url}/runs/{run.id}"
            console.print(f"the run has ended as {run.status}: {page}", style="red", markup=False, soft_wrap=True)
    if ended.error:
        console.print(f"the backfill has failed: {ended.error}", style="red", markup=False, soft_wrap=True)
    return ended.succeeded


def progress(seen: Backfill) -> str:
    runs = ", ".join(f"run {run.id[:8]} {run.status.lower()}" for run in seen.runs)
    return f"backfill {seen.id}: {runs or 'waiting for the Dagster daemon, up to 30 s'}"
