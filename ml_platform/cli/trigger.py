"""`ml-platform trigger`: a training by hand."""

import getpass
import json
from datetime import datetime
from typing import Annotated, Any

import typer
import yaml

from ml_platform.cli.tables import Json
from ml_platform.cli.world import world
from ml_platform.core.errors import SpecError
from ml_platform.resources.dagster_api import DagsterApi
from ml_platform.resources.triggers import Request, checked, model_named, newest_date, training_assets
from ml_platform.training.overrides import defaults, run_config


def trigger(
    model: Annotated[str, typer.Argument(help="the model's name")],
    reason: Annotated[str, typer.Option(help="why; it is kept with the run")] = "",
    priority: Annotated[int, typer.Option(help="runs of a higher one start first; all others have 0")] = 0,
    settings_of_run: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="otherwise for this run: training.window_days=14; repeatable"
        ),
    ] = None,
    as_of: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="the training date; default: the newest")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a model now, whatever is due: from its training set to its deployment, as one run of Dagster."""
    settings, catalog, lake = world()
    spec = model_named(catalog, model)
    day = as_of.date() if as_of else newest_date(lake, spec)
    given = dict(_setting(text, [*defaults(spec)]) for text in settings_of_run or ())
    why = reason or f"by hand of {getpass.getuser()}"
    request = checked(catalog, lake, Request(model, day, "hand", why, priority, given))
    tags, config = request.tags(catalog.cluster), run_config(model, request.overrides)
    run = DagsterApi.at(settings).launch_run(training_assets(spec), day, tags, config)
    url = f"{settings.dagster_url}/runs/{run}"
    if as_json:
        said = {"run": run, "url": url, "model": model, "as_of": day.isoformat(), "priority": priority}
        print(json.dumps({**said, "overrides": dict(request.overrides)}))
    else:
        print(f"a training of {model} as of {day} has been asked for: {url}")


def _setting(text: str, known: list[str]) -> tuple[str, Any]:
    """FIELD=VALUE, with the value as YAML has it."""
    name, found, value = text.partition("=")
    if not found:
        raise SpecError(f"--set {text}", "is no FIELD=VALUE", f"such as --set {known[0] if known else 'FIELD'}=14")
    try:
        return name.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise SpecError(f"--set {text}", f"has a value that is no YAML: {error}", "mend the value") from error
