"""The command line: `ml-platform ...`."""

import sys
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from ml_platform.cli import backfill, feast, migrate, models, quarantine, reproduce, retention, status
from ml_platform.core.catalog import catalog_at
from ml_platform.core.errors import PlatformError
from ml_platform.core.settings import Settings, load_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(backfill.backfill)
app.command()(feast.feast)
app.command()(migrate.migrate)
app.command()(status.status)
app.command("reproduce")(reproduce.reproduce_version)
for command in (models.models, models.versions, models.show, models.diff, models.promote, models.rollback):
    app.command()(command)
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(retention.app, name="retention")
console = Console(stderr=True)

InputFolder = Annotated[Path | None, typer.Option("--input", help="land these daily files instead of simulated ones")]
DEMO_DAYS, DEMO_CUSTOMERS, DEMO_SEED = 60, 2_000, 7


@app.command()
def dev() -> None:
    """Run the embedded stack (S3, MLflow, model server, Dagster) until Ctrl-C."""
    from ml_platform.local import stack

    stack.run(load_settings(), Path("workspace.yaml"), lambda text: print(text, flush=True))


@app.command()
def land(
    input_folder: InputFolder = None,
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="first day")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="last day, with --input")] = None,
    days: Annotated[int, typer.Option(min=1, help="how many days to simulate")] = DEMO_DAYS,
    customers: Annotated[int, typer.Option(min=1, help="how many customers to simulate")] = DEMO_CUSTOMERS,
    seed: int = DEMO_SEED,
) -> None:
    """Put simulated days, or a folder of daily files, into the landing bucket, as producers would."""
    from ml_platform.local import producer
    from ml_platform.resources.object_store import ObjectStore

    settings = load_settings()
    files = daily_files(settings, input_folder, _date(first), _date(last), days, customers, seed)
    store = ObjectStore.at(settings)
    rows = sum(
        table.num_rows for _, _, table in track(producer.land(files, store), "landing", len(files), console=console)
    )
    console.print(f"landed {len(files)} files with {rows:,} rows in {settings.landing}")


@app.command()
def demo(
    input_folder: InputFolder = None,
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="first day")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="last day, with --input")] = None,
    days: Annotated[int, typer.Option(min=1, help="how many days to simulate")] = DEMO_DAYS,
) -> None:
    """Land files and watch the platform train, gate, deploy and answer. Status 0 only if all of it came true."""
    from ml_platform.local import demo as story

    settings = load_settings()
    if first is not None:  # the sources' calendar begins where the files do
        settings = settings.model_copy(update={"first_day": first.date()})
    files = daily_files(settings, input_folder, _date(first), _date(last), days, DEMO_CUSTOMERS, DEMO_SEED)
    if not story.tell(settings, files, Console()):
        raise typer.Exit(1)


def daily_files(
    settings: Settings, folder: Path | None, first: date | None, last: date | None, days: int, customers: int, seed: int
) -> list:
    """The files to land: from a folder, or simulated."""
    from ml_platform.local import producer

    catalog = catalog_at(settings)
    delay = timedelta(days=catalog.sources["fraud_labels"].delay_days)
    if folder:
        return producer.from_folder(folder, first, last, delay)
    return producer.simulated(days, customers, first or catalog.sources["transactions"].start_date, seed, delay)


def _date(value: datetime | None) -> date | None:
    return value.date() if value else None


def main() -> None:
    """Entry point: an error that a user can cause is one line, not a traceback."""
    try:
        app()
    except PlatformError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
