"""`ml-platform quarantine ...`: look at what was kept out of the raw partitions, and decide about it."""

import getpass
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from ml_platform.cli.backfill import make
from ml_platform.cli.tables import print_table
from ml_platform.cli.world import world
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import LakeError, StackError
from ml_platform.core.spec import SourceSpec
from ml_platform.data.quarantine import Decision
from ml_platform.resources.origins import Origins
from ml_platform.resources.quarantine import Quarantine, days_in_quarantine, decide_about, in_quarantine

app = typer.Typer(no_args_is_help=True, help="What was kept out of the raw partitions, and decisions about it.")
Source = Annotated[str, typer.Argument(help="the source's name")]
Day = Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"], help="YYYY-MM-DD")]
Reason = Annotated[str, typer.Option(help="why; it is kept with the decision and shown with the checks")]


@app.command(name="list")
def list_days(source: Annotated[str, typer.Option(help="of this source only")] = "") -> None:
    """All days that have something in quarantine."""
    _, catalog, lake = world()
    table = Table("source", "day", "quality", "objects", "rows", "why", "since")
    for name in [_spec(catalog, source).name] if source else catalog.feeds:
        for found in days_in_quarantine(lake, name):
            kept, since = found.kept, found.since[:16].replace("T", " ")
            why = kept.words.replace(", ", "\n")
            table.add_row(name, str(found.day), found.quality, f"{kept.objects:,}", f"{kept.rows:,}", why, since)
    if table.row_count:
        print_table(table)
    else:
        print("nothing is in quarantine")


@app.command()
def show(
    source: Source, day: Day, rows: Annotated[int, typer.Option(min=0, help="how many rows to show")] = 10
) -> None:
    """One day: what became of every object, and the first rows with what they broke."""
    _, catalog, lake = world()
    found = in_quarantine(lake, _spec(catalog, source).name, day.date())
    print(f"{found.subject}: {found.quality}, since {found.since}; {found.kept.words}")
    table = Table("object", "bytes", "rows", "written", "quarantined", "discarded", "held, because")
    for one in found.accounts:
        counts = (one.bytes, one.rows, one.written, one.quarantined, one.discarded)
        table.add_row(one.object, *(f"{count:,}" for count in counts), one.held)
    print_table(table)
    for row in found.rows.head(rows).to_pylist() if found.rows is not None else ():
        place = "a line that is no row" if row["_row"] is None else f"row {row['_row']}"
        print(f"{row['_object']} {place}: {row['_reasons']}")
        print(f"    {_values(row)}")


@app.command()
def release(source: Source, day: Day, reason: Reason) -> None:
    """Take what is in quarantine into the raw partition after all."""
    _decide("release", source, day.date(), reason)


@app.command()
def discard(source: Source, day: Day, reason: Reason) -> None:
    """Go on without what is in quarantine, and keep it no longer."""
    _decide("discard", source, day.date(), reason)


def _decide(action: Literal["release", "discard"], source: str, day: date, reason: str) -> None:
    """Write the decision down and have the day made again."""
    settings, catalog, lake = world()
    spec = _spec(catalog, source)
    found = in_quarantine(lake, spec.name, day)
    now = datetime.now(UTC).isoformat()
    decision = Decision(action, found.fingerprint, found.failed, reason, getpass.getuser(), now)
    decide_about(lake, Origins.at(settings).of(spec), spec, found, decision)
    raw = keys.partition(keys.raw(spec.name), day)
    print(f"{found.subject}: {action} is decided by {decision.by}: {reason}")
    if action == "release":
        _tell_what_stays(found)
    try:
        made = make(settings, lake, {keys.raw(spec.name): (day, day)})
    except StackError as error:
        print(f"the decision takes effect when {raw} is materialized; that could not be started now: {error}")
        return
    if not made:
        raise typer.Exit(1)


def _tell_what_stays(found: Quarantine) -> None:
    kept = found.kept
    if kept.stuck_objects or kept.stuck_rows:
        print(
            f"objects {kept.stuck_objects:,} and rows {kept.stuck_rows:,} stay in quarantine: they do not have the declared"
            " columns and types, and can only be landed mended or be discarded"
        )


def _spec(catalog: Catalog, source: str) -> SourceSpec:
    if source not in catalog.feeds:
        raise LakeError(f"quarantine/{source}", "there is no such source", f"one of {', '.join(catalog.feeds)}")
    return catalog.feeds[source]


def _values(row: dict[str, Any]) -> str:
    """A row's values as they were handed over."""
    if row["_text"] is not None:
        return row["_text"]
    return ", ".join(f"{name}={value}" for name, value in row.items() if not name.startswith("_"))
