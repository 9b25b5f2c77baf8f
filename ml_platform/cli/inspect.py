"""`ml-platform inspect ASSET [PARTITION]`: the result of any step, without a browser."""

import base64
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ml_platform.cli.tables import Json, print_table
from ml_platform.cli.world import world
from ml_platform.core.errors import SettingsError, StackError
from ml_platform.core.settings import Settings
from ml_platform.resources.dagster_api import DagsterApi
from ml_platform.resources.dagster_results import Known, known_of
from ml_platform.resources.inspected import CURRENT, InputState, Inspection
from ml_platform.resources.inspection import files_of
from ml_platform.resources.inspection import inspect as inspected
from ml_platform.training.profile import shown

SHOWN = 20  # inputs, those that are not current first
MOST_WORDS = 400  # characters of what a file says, or of a metadata entry
EXACT = 2**53  # below, a whole number in a float is that number
_PICTURE = re.compile(r"!\[[^\]]*\]\(data:image/png;base64,([^)]+)\)")


def inspect(
    asset: Annotated[str, typer.Argument(help="as in the graph: transactions/raw, fraud_detection/evaluation")],
    partition: Annotated[
        str, typer.Argument(metavar="[PARTITION]", help="a day, YYYY-MM-DD; default: the newest")
    ] = "",
    rows: Annotated[int, typer.Option(min=0, help="how many rows to show")] = 5,
    save: Annotated[Path | None, typer.Option(metavar="FOLDER", help="write its files and plots there")] = None,
    as_json: Json = False,
) -> None:
    """What a step has made: manifest, inputs and whether they are still current, metadata, checks, columns, rows, files."""
    settings, catalog, lake = world()
    found = inspected(settings, catalog, lake, asset, partition, rows)
    known = _known(settings, found)
    pictures = {}
    if isinstance(known, Known):
        pictures = {f"{name}.png": png for name, value in known.metadata.items() for png in _pictures(value)}
    saved: list[str] = []
    if save:
        saved = _write(save, {**pictures, **files_of(settings, catalog, lake, found)})
    if as_json:
        print(json.dumps(_plain(_as_dict(found, known, saved)), indent=1))
        return
    _print_facts(found)
    _print_known(known, settings.dagster_url)
    _print_inputs(found.inputs)
    _print_contents(found)
    for path in saved:
        print(f"saved {path}")
    if save and not saved:
        print("there is nothing to save")


def _known(settings: Settings, found: Inspection) -> Known | str:
    """What Dagster has of it, or why that is not known."""
    if not found.in_graph:
        return f"{found.asset} is no asset of the graph"
    try:
        return known_of(DagsterApi.at(settings), found.asset, found.day)
    except StackError as error:
        return str(error)


def _write(folder: Path, files: Mapping[str, bytes]) -> list[str]:
    paths = {folder / name.replace("/", "_"): content for name, content in files.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in paths.items():
            path.write_bytes(content)
    except OSError as error:
        raise SettingsError("--save", str(error), "name a folder that can be written") from error
    return [str(path) for path in paths]


# --- for programs -----------------------------------------------------------------------------------------------------


def _as_dict(found: Inspection, known: Known | str, saved: list[str]) -> dict[str, Any]:
    dagster = {"problem": known} if isinstance(known, str) else asdict(known)
    return {
        "asset": found.asset,
        "partition": found.day,
        **found.facts,
        "notes": found.notes,
        "dagster": dagster,
        "inputs": [asdict(one) for one in found.inputs],
        "rows_profiled": found.rows.profiled if found.rows else None,
        "columns": found.rows.columns if found.rows else [],
        "sample": found.rows.sample if found.rows else [],
        "files": [asdict(one) for one in found.files],
        "saved": saved,
    }


def _plain(value: Any) -> Any:
    """As JSON has it, which knows no NaN; without pictures."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _PICTURE.sub("(a picture)", value)
    return value if value is None or isinstance(value, bool | int) else str(value)


# --- for people -------------------------------------------------------------------------------------------------------


def _print_facts(found: Inspection) -> None:
    print(found.name)
    table = Table(show_header=False)
    for name, value in _flat(found.facts):
        table.add_row(name.replace("_", " "), value)
    print_table(table)
    for note in found.notes:
        print(f"note: {note}")


def _print_known(known: Known | str, url: str) -> None:
    if isinstance(known, str):
        print(f"nothing from Dagster: {known}")
        return
    if known.at:
        by = f"made by {url}/runs/{known.run_id}" if known.run_id else "reported"
        print(f"{by} at {known.at:%Y-%m-%d %H:%M:%S} UTC")
    else:
        print("Dagster has no materialization of it")
    metadata = Table("metadata", "value")
    for name, value in known.metadata.items():
        metadata.add_row(name, _short(value))
    checks = Table("check", "result", "why", "figures")
    for one in known.checks:
        figures = ", ".join(f"{name} {_short(value)}" for name, value in one.metadata.items() if not _pictures(value))
        checks.add_row(one.check, one.outcome, one.description, figures)
    for table in (metadata, checks):
        if table.row_count:
            print_table(table)


def _print_inputs(inputs: tuple[InputState, ...]) -> None:
    if not inputs:
        return
    odd = sorted(inputs, key=lambda one: one.state == CURRENT)
    print(f"{sum(one.state == CURRENT for one in inputs)} of {len(inputs)} inputs are current")
    table = Table("made from", "version", "size", "now")
    for one in odd[:SHOWN]:
        table.add_row(one.name, one.version[:16], f"{one.size:,}" if one.size is not None else "", one.state)
    print_table(table)
    if len(odd) > SHOWN:
        print(f"and {len(odd) - SHOWN} more; --json has all")


def _print_contents(found: Inspection) -> None:
    if found.rows and found.rows.columns:
        print(f"figures of {found.rows.profiled:,} rows")
        names = list(dict.fromkeys(name for column in found.rows.columns for name in column))
        columns = Table(*names)
        for one in found.rows.columns:
            columns.add_row(*(_cell(one.get(name)) for name in names))
        print_table(columns)
    for names, alike in groupby(found.rows.sample if found.rows else (), key=tuple):
        rows = list(alike)  # each in a column of its own, since tables have more columns than screens are wide
        sample = Table("", *(f"row {number}" for number in range(1, len(rows) + 1)))
        for name in names:
            sample.add_row(name, *(_cell(row[name]) for row in rows))
        print_table(sample)
    files = Table("file", "bytes", "says")
    for one in found.files:
        files.add_row(one.name, f"{one.size:,}", _words(one.content))
    if files.row_count:
        print_table(files)


def _cell(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return f"{value:.0f}"
    return "" if value is None else str(shown(value))[:MOST_WORDS]


def _flat(facts: Any, within: str = "") -> Iterator[tuple[str, str]]:
    """Facts by name, nested ones as `outer inner`."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{within}{name} ")
        elif value in ("", None):
            continue
        elif isinstance(value, list):
            text = "\n".join(_inline(one.items()) if isinstance(one, Mapping) else str(one) for one in value)
            yield f"{within}{name}", text
        else:
            yield f"{within}{name}", f"{value:,}" if isinstance(value, int) else _cell(value)


def _inline(pairs: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(f"{name} {_cell(value)}" for name, value in pairs)


def _words(content: Any) -> str:
    """The beginning of what a file says."""
    if isinstance(content, Mapping):
        outer = ((n, f"({len(v)})" if isinstance(v, Mapping | list) else v) for n, v in content.items())
        return _cut(_inline(outer))
    return _cut(content.strip().partition("\n")[0]) if isinstance(content, str) else ""


def _short(value: Any) -> str:
    return _cut(_PICTURE.sub("a picture; --save FOLDER writes it", str(shown(value))))


def _cut(text: str) -> str:
    return text if len(text) <= MOST_WORDS else f"{text[:MOST_WORDS]}..."


def _pictures(value: Any) -> list[bytes]:
    return [base64.b64decode(data) for data in _PICTURE.findall(value)] if isinstance(value, str) else []
