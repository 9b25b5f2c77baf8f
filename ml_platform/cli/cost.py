"""`ml-platform cost`: what models, versions, teams and tables have cost."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import typer
from rich.table import Table

from ml_platform.cli.tables import Json, print_table
from ml_platform.cli.world import world
from ml_platform.core.catalog import Catalog
from ml_platform.monitoring.cost import HOUR, NOBODY, Account, Spent
from ml_platform.resources.dagster_api import DagsterApi
from ml_platform.resources.release import utc_now
from ml_platform.resources.spending import accounts, prices_of, spending

By = Literal["model", "version", "team", "table"]
USUALLY = timedelta(days=30)


def cost(
    by: Annotated[By, typer.Option(help="what each line is about")] = "model",
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="runs that ended since then; default: 30 days")
    ] = None,
    as_json: Json = False,
) -> None:
    """What was spent on steps, at the prices of the cluster: own work, the part of what is shared, and of the model server."""
    settings, catalog, lake = world()
    prices, now = prices_of(catalog), utc_now()
    began = since.replace(tzinfo=UTC) if since else now - USUALLY
    spent = spending(catalog, lake, DagsterApi.at(settings), began)
    lines = _by_table(spent) if by == "table" else _named(by, accounts(catalog, lake, spent, began, now), catalog)
    if as_json:
        told = [{by: name, **asdict(one), "total": one.total} for name, one in lines.items()]
        print(json.dumps({"since": began.isoformat(), "currency": prices.currency, "lines": told}, indent=1))
        return
    table = Table(by, "hours of steps", "own", "of it lost", "shared", "serving", f"total, {prices.currency}")
    for name, one in [*lines.items(), ("all", sum(lines.values(), Account()))]:
        figures = (one.seconds / HOUR, one.own, one.lost, one.shared, one.serving, one.total)
        table.add_row(name, *map(_shown, figures))
    print_table(table)
    print(
        "lost: tries that came to nothing. shared: sources, features and the online store, by the trainings that rest on them"
    )


def _shown(figure: float) -> str:
    return f"{figure:,.2f}" if figure >= 1 or not figure else f"{figure:.2g}"


def _by_table(spent: Sequence[Spent]) -> dict[str, Account]:
    found: dict[str, Account] = defaultdict(Account)
    for one in spent:
        found[one.table] += one.account
    return _dearest_first(found)


def _named(by: By, paid: Mapping[tuple[str, str], Account], catalog: Catalog) -> dict[str, Account]:
    found: dict[str, Account] = defaultdict(Account)
    for (model, day), account in paid.items():
        if by == "team":
            owners = catalog.models[model].owners if model != NOBODY else ()
            for owner in owners or (NOBODY,):
                found[owner] += account.part(1 / max(1, len(owners)))
        else:
            found[f"{model} {day or '(daily)'}" if by == "version" and model != NOBODY else model] += account
    return _dearest_first(found)


def _dearest_first(found: Mapping[str, Account]) -> dict[str, Account]:
    return dict(sorted(found.items(), key=lambda one: -one[1].total))
