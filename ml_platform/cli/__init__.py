"""The command line: `ml-platform ...`."""

import sys
from datetime import date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from ml_platform.cli import (
    alerts,
    backfill,
    check,
    cost,
    feast,
    init,
    inspect,
    migrate,
    models,
    provenance,
    quarantine,
    reproduce,
    retention,
    schema,
    spin,
    status,
    trigger,
)
from ml_platform.core.catalog import catalog_at
from ml_platform.core.errors import PlatformError
from ml_platform.core.project import find_projects
from ml_platform.core.settings import load_settings

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
GROUPS = {  # of the help, by what people want; `dev`, `demo` and `land` are below
    "Look": (
        status.status,
        inspect.inspect,
        models.models,
        models.versions,
        models.show,
        models.diff,
        provenance.explain,
        provenance.recall,
        cost.cost,
    ),
    "Project": (init.init, check.check, schema.schema, spin.spin),
    "Data": (backfill.backfill, feast.feast),
    "Models": (trigger.trigger, models.promote, models.rollback),
    "Run": (migrate.migrate,),
}
for group, commands in GROUPS.items():
    for command in commands:
        app.command(rich_help_panel=group)(command)
app.command("reproduce", rich_help_panel="Models")(reproduce.reproduce_version)
app.add_typer(alerts.app, name="alerts", rich_help_panel="Look")
app.add_typer(quarantine.app, name="quarantine", rich_help_panel="Data")
app.add_typer(retention.app, name="retention", rich_help_panel="Data")
console = Console(stderr=True)

InputFolder = Annotated[
    Path | None,
    typer.Option("--input", help="land these files: <source>/YYYY-MM-DD/<files>, or what the project's producer takes"),
]
First = Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="first day")]
Last = Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="last day, with --input")]
Days = Annotated[int, typer.Option(min=1, help="how many days to simulate")]


def _version(wanted: bool) -> None:
    if wanted:
        print(version("ml-platform"))
        raise typer.Exit


@app.callback()
def about(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="say the version")] = False,
) -> None:
    """Declare a model in one YAML file and get its production lineage graph on Dagster."""


@app.command(rich_help_panel="Run")
def dev() -> None:
    """Run the embedded stack (S3, MLflow, model server, Dagster) until Ctrl-C."""
    from ml_platform.local import stack

    stack.run(load_settings(), lambda text: print(text, flush=True))


@app.command(rich_help_panel="Data")
def land(
    input_folder: InputFolder = None,
    first: First = None,
    last: Last = None,
    days: Days = 60,
    size: Annotated[
        int | None, typer.Option(min=1, help="how large a world to simulate, in its producer's units")
    ] = None,
    seed: int = 7,
    drift: Annotated[
        str, typer.Option(help="make the last week drift, by a kind that the producer knows: amounts, unit, labels")
    ] = "",
) -> None:
    """Put simulated days, or the files of a folder, into the landing bucket, as producers would."""
    from ml_platform.local import producer
    from ml_platform.resources.object_store import ObjectStore

    settings = load_settings()
    order = producer.Order(input_folder, _date(first), _date(last), days, size, seed, drift)
    files = producer.daily_files(find_projects(settings.project), catalog_at(settings), order)
    landed = producer.land(files, ObjectStore.at(settings))
    count = sum(1 for _ in track(landed, "landing", len(files), console=console))
    of = {source: sum(1 for name, _, _ in files if name == source) for source, _, _ in files}
    console.print(
        f"landed {count} files in {settings.landing}: {', '.join(f'{n} of {name}' for name, n in of.items())}"
    )


@app.command(rich_help_panel="Run")
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
