"""The command line: `ml-platform ...`."""

import sys
from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from ml_platform.cli import backfill, check, feast, init, migrate, models, quarantine, reproduce, retention, status
from ml_platform.core.catalog import catalog_at
from ml_platform.core.errors import PlatformError
from ml_platform.core.project import find_projects
from ml_platform.core.settings import load_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(backfill.backfill)
app.command()(feast.feast)
app.command()(init.init)
app.command()(check.check)
app.command()(migrate.migrate)
app.command()(status.status)
app.command("reproduce")(reproduce.reproduce_version)
for command in (models.models, models.versions, models.show, models.diff, models.promote, models.rollback):
    app.command()(command)
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(retention.app, name="retention")
console = Console(stderr=True)

InputFolder = Annotated[
    Path | None,
    typer.Option("--input", help="land these files: <source>/YYYY-MM-DD/<files>, or what the project's producer takes"),
]
First = Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="first day")]
Last = Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="last day, with --input")]
Days = Annotated[int, typer.Option(min=1, help="how many days to simulate")]


@app.command()
def dev() -> None:
    """Run the embedded stack (S3, MLflow, model server, Dagster) until Ctrl-C."""
    from ml_platform.local import stack

    stack.run(load_settings(), lambda text: print(text, flush=True))


@app.command()
def land(
    input_folder: InputFolder = None,
    first: First = None,
    last: Last = None,
    days: Days = 60,
    size: Annotated[
        int | None, typer.Option(min=1, help="how large a world to simulate, in its producer's units")
    ] = None,
    seed: int = 7,
) -> None:
    """Put simulated days, or the files of a folder, into the landing bucket, as producers would."""
    from ml_platform.local import producer
    from ml_platform.resources.object_store import ObjectStore

    settings = load_settings()
    order = producer.Order(input_folder, _date(first), _date(last), days, size, seed)
    files = producer.daily_files(find_projects(settings.project), catalog_at(settings), order)
    landed = producer.land(files, ObjectStore.at(settings))
    count = sum(1 for _ in track(landed, "landing", len(files), console=console))
    of = {source: sum(1 for name, _, _ in files if name == source) for source, _, _ in files}
    console.print(
        f"landed {count} files in {settings.landing}: {', '.join(f'{n} of {name}' for name, n in of.items())}"
    )


@app.command()
def demo(
    input_folder: InputFolder = None,
    first: First = None,
    last: Last = None,
    days: Days = 60,
    model: Annotated[str, typer.Option(help="the model to watch, where the project has several")] = "",
) -> None:
    """Land files and watch the platform train, gate, deploy and answer. Status 0 only if all of it came true."""
    from ml_platform.local import demo as story
    from ml_platform.local import producer

    settings = load_settings()
    if first is not None:  # the sources' calendar begins where the files do
        settings = settings.model_copy(update={"first_day": first.date()})
    order = producer.Order(input_folder, _date(first), _date(last), days)
    files = producer.daily_files(find_projects(settings.project), catalog_at(settings), order)
    if not story.tell(settings, model, files, Console()):
        raise typer.Exit(1)


def _date(value: datetime | None) -> date | None:
    return value.date() if value else None


def main() -> None:
    """Entry point: an error that a user can cause is one line, not a traceback."""
    try:
        app()
    except PlatformError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
