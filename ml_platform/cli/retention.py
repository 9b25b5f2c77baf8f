"""`ml-platform retention ...`: what `keep_days` says of the lake."""

from datetime import date
from typing import Annotated

import typer
from rich.table import Table

from ml_platform.cli.tables import print_table
from ml_platform.cli.world import world
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import consecutive_ranges
from ml_platform.core.errors import StackError
from ml_platform.core.settings import Settings
from ml_platform.registry.retention import Span
from ml_platform.resources import retention
from ml_platform.resources.dagster_api import DagsterApi
from ml_platform.resources.lake import Lake
from ml_platform.resources.leftovers import leftovers, remove_leftovers
from ml_platform.resources.registry import Registry

app = typer.Typer(no_args_is_help=True, help="Remove days that are older than keep_days, and that nothing needs.")


@app.command()
def plan() -> None:
    """What would be removed, and what is kept and why. Removes nothing."""
    settings, catalog, lake = world()
    _show(retention.plan(lake, catalog, Registry.at(settings)), _leftovers(lake, catalog))


@app.command()
def apply(yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
    """Remove what the plan says; nothing, while a file has mistakes."""
    settings, catalog, lake = world()
    catalog.require_whole()
    registry = Registry.at(settings)
    shown, leftovers = retention.plan(lake, catalog, registry), _leftovers(lake, catalog)
    _show(shown, leftovers)
    if not leftovers and not any(span.remove for span in shown):
        return
    if not yes:
        typer.confirm("remove this?", abort=True)
    removed = retention.apply(lake, catalog, registry, shown)
    for key in retention.all_keys(catalog):
        remove_leftovers(lake, key, retention.LEFTOVER_AGE)
    print(f"removed {len(removed):,} partitions and {len(leftovers):,} leftover files")
    if removed:
        _tell_dagster(settings, removed)


def _tell_dagster(settings: Settings, removed: set[tuple[str, date]]) -> None:
    """Make Dagster forget what is gone, as far as it can."""
    days: dict[str, list[date]] = {}
    for key, day in sorted(removed):
        days.setdefault(key, []).append(day)
    ranges = [(key, *bounds) for key, gone in days.items() for bounds in consecutive_ranges(gone)]
    try:
        forgot = DagsterApi.at(settings).wipe_partitions(ranges)
    except StackError as error:
        print(f"Dagster goes on showing them as materialized: {error}")
        return
    if not forgot:
        print("Dagster goes on showing them as materialized: its storage cannot forget single partitions")


def _leftovers(lake: Lake, catalog: Catalog) -> dict[str, int]:
    found: dict[str, int] = {}
    for key in retention.all_keys(catalog):
        found |= leftovers(lake, key, retention.LEFTOVER_AGE)
    return found


def _show(spans: list[Span], leftovers: dict[str, int]) -> None:
    table = Table("table", "from", "to", "partitions", "bytes", "", "why")
    for span in spans:
        fate = "remove" if span.remove else "keep"
        table.add_row(
            span.key, str(span.first), str(span.last), f"{len(span.days):,}", f"{span.bytes:,}", fate, span.why
        )
    print_table(table)
    for fate, chosen in (("remove", True), ("keep", False)):
        of_kind = [span for span in spans if span.remove is chosen]
        partitions, size = sum(len(span.days) for span in of_kind), sum(span.bytes for span in of_kind)
        print(f"{fate}: {partitions:,} partitions, {size:,} bytes")
    if leftovers:
        print(f"remove: {len(leftovers):,} leftover files of writers that died, {sum(leftovers.values()):,} bytes")
