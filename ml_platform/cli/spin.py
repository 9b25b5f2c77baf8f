"""`ml-platform spin`: a day of a feature view on the real inputs, in this process, for whoever is writing it; the lake stays as it is."""

import json
import tempfile
import time
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ml_platform.cli.tables import Json, print_table
from ml_platform.cli.world import world
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import LakeError, SpecError
from ml_platform.core.mistakes import nearest
from ml_platform.core.spec import FeatureViewSpec
from ml_platform.resources.lake import Lake


def spin(
    name: Annotated[str, typer.Argument(metavar="VIEW", help="a feature view: NAME or features/NAME")],
    day: Annotated[
        datetime | None,
        typer.Argument(formats=["%Y-%m-%d"], help="default: the newest whose inputs are all there", show_default=False),
    ] = None,
    rows: Annotated[int, typer.Option(min=0, help="rows to show")] = 5,
    save: Annotated[
        Path | None, typer.Option(help="a folder for the rows (features.parquet) and the plot (drift.png)")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compute a day of a feature view as it stands, and say what its checks say and how it differs from the lake's. Writes nothing there.

    Exits 1 if a check that blocks has failed.
    """
    from ml_platform.features.health import BLOCKING
    from ml_platform.features.plots import distributions
    from ml_platform.resources.spark import engine_at
    from ml_platform.resources.view_day import computed

    began = time.perf_counter()
    settings, catalog, lake = world()
    view = _view(name.removeprefix("features/"), catalog)
    wanted = day.date() if day else _newest(view, catalog, lake)
    subject = keys.partition(keys.feature_view(view.name), wanted)
    with tempfile.TemporaryDirectory(prefix="ml_platform-") as scratch:
        folder = save or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        made = computed(view, wanted, catalog, lake, engine_at(settings), folder / "features.parquet")
        table = made.staged.dataset().to_table()
        if save and made.shifted:
            (save / "drift.png").write_bytes(distributions(made.shifted, subject))
    changes = _changes(view, catalog, lake, wanted, table)
    figures = _figures(table, changes)
    failed = [check for check, verdict in made.verdicts.items() if not verdict.passed]
    if as_json:
        checks = {check: {"passed": one.passed, "words": one.words} for check, one in made.verdicts.items()}
        told = {"view": view.name, "day": wanted, "rows": table.num_rows, "checks": checks, "features": figures}
        sample = table.slice(0, rows).to_pylist()
        print(json.dumps({**told, "lake": changes, "sample": sample}, indent=1, default=str))
    else:
        _print(subject, figures, table.slice(0, rows).to_pylist())
        for check, verdict in made.verdicts.items():
            print(f"{'ok    ' if verdict.passed else 'FAILED'} {check}{f': {verdict.words}' if verdict.words else ''}")
        seconds = time.perf_counter() - began
        print(f"{table.num_rows:,} rows in {seconds:.1f} s; {changes['words']}{f'; {save}' if save else ''}")
    if set(failed) & set(BLOCKING):
        raise typer.Exit(1)


def _view(name: str, catalog: Catalog) -> FeatureViewSpec:
    daily = {view.name: view for view in catalog.daily_views()}
    if name not in daily:
        is_request = name in catalog.views
        problem = "is computed in the request, and has no days" if is_request else "there is no such feature view"
        raise SpecError(f"features/{name}", f"{problem}{nearest(name, daily)}", f"one of {', '.join(daily)}")
    return daily[name]


def _newest(view: FeatureViewSpec, catalog: Catalog, lake: Lake) -> date:
    """The newest day whose inputs are all there."""
    from ml_platform.features.views import input_days

    there = {source: set(lake.days(keys.raw(source))) for source in view.inputs}
    if all(there.values()):
        last = min(map(max, there.values()))
        for day in (last + timedelta(days=2 - back) for back in range(10)):
            needed = {source: input_days(view, catalog.sources[source], day) for source in view.inputs}
            if any(needed.values()) and all(there[source].issuperset(days) for source, days in needed.items()):
                return day
    raise LakeError(
        keys.feature_view(view.name), "no day of the newest has all its inputs", f"ml-platform spin {view.name} DAY"
    )


def _changes(view: FeatureViewSpec, catalog: Catalog, lake: Lake, day: date, now: Any) -> dict[str, Any]:
    """How the day differs from what the lake has: by feature the rows that differ, new features, and that in words."""
    from ml_platform.features.health import differing

    key = keys.feature_view(view.name)
    if lake.manifest(key, day) is None:
        return {"words": "the lake does not have the day", "differ": {}, "new": []}
    before = lake.read_table(key, [day])
    identity = [str(view.entity)] if view.kind == "snapshot" else list(catalog.sources[view.rows or ""].key)
    shared = [name for name in view.features if name in before.column_names]
    both, differ = differing(identity, shared, before, now)
    new = [name for name in view.features if name not in before.column_names]
    words = [f"{both:,} of the lake's {before.num_rows:,} rows"]
    words += [f"{len(differ)} features differ" if differ else "the same values"] + (
        [f"{len(new)} are new"] if new else []
    )
    return {"words": ", ".join(words), "differ": differ, "new": new}


def _figures(table: Any, changes: Mapping[str, Any]) -> list[dict[str, Any]]:
    from ml_platform.training.profile import frame_of, profile

    found: list[dict[str, Any]] = profile(frame_of(table)).to_dict("records")
    for one in found:
        count = changes["differ"].get(one["column"], 0)
        one["lake"] = "new" if one["column"] in changes["new"] else f"{count:,} rows differ" if count else ""
    return found


def _print(subject: str, figures: list[dict[str, Any]], sample: list[dict[str, Any]]) -> None:
    from ml_platform.training.profile import shown

    for title, lines in ((subject, figures), ("first rows", sample)):
        if lines:
            table = Table(*map(str, lines[0]), title=title)
            for line in lines:
                table.add_row(*(str(shown(value)) for value in line.values()))
            print_table(table)
