"""`ml-platform alerts ...`: what is wrong and who was told, silences, and whether channels work."""

import getpass
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from ml_platform.cli.tables import Json, print_table
from ml_platform.cli.world import world
from ml_platform.core.catalog import survey_at
from ml_platform.core.errors import SettingsError
from ml_platform.core.project import find_projects
from ml_platform.core.spec import AlertsSpec, seconds
from ml_platform.core.spec.base import Duration
from ml_platform.monitoring.alerts import Alert, Message, Open, explanations
from ml_platform.monitoring.messages import moment, span
from ml_platform.resources.alert_book import WRITERS, AlertBook
from ml_platform.resources.notify import Notifier

app = typer.Typer(no_args_is_help=True, help="What is wrong, who was told of it, and silences.")


@app.command(name="list")
def list_alerts(as_json: Json = False) -> None:
    """Everything that is wrong now, and the silences. Status 1 if something is critical."""
    now, found, silences = time.time(), list[dict[str, Any]](), list[dict[str, Any]]()
    for project, _, book in _books():
        held = book.silences(now)
        silences += [{"project": project, **asdict(one)} for one in held]
        for who in WRITERS:
            state = book.of(who).state()
            waiting = explanations(state, now)
            for one in state.open.values():
                hushed = next((silence.id for silence in held if silence.covers(one.alert, now)), "")
                cause = waiting[one.alert.id].subject if one.alert.id in waiting else ""
                found.append({"project": project, **_row(one), "explained_by": cause, "silenced_by": hushed})
    if as_json:
        print(json.dumps({"alerts": found, "silences": silences}, indent=1))
    else:
        _print(found, silences)
    if any(one["severity"] == "critical" and not one["over"] for one in found):
        raise typer.Exit(1)


@app.command()
def silence(
    matches: Annotated[
        str, typer.Argument(help="an alert's id, or a kind, subject, source, view or model; * is anything")
    ],
    reason: Annotated[str, typer.Option(help="why; others see it")] = "",
    lasts: Annotated[str, typer.Option("--for", help="how long: 30m, 4h, 2d")] = "",
    end: Annotated[bool, typer.Option("--end", help="end the silence of this id now")] = False,
    as_json: Json = False,
) -> None:
    """Tell nobody of some alerts for a time. What was told already is still said to be over."""
    books = [book for _, _, book in _books()]
    if end:
        if not any(book.end_silence(matches) for book in books):
            raise SettingsError(f"silence {matches}", "there is none of this id", "ml-platform alerts list")
        print(json.dumps({"ended": matches}) if as_json else f"silence {matches} has ended")
        return
    if not reason or not lasts:
        raise SettingsError("alerts silence", "a silence has an end and a reason", "add --for 4h --reason ...")
    until = time.time() + seconds(_duration(lasts))
    for made in [book.silence(matches, until, getpass.getuser(), reason) for book in books]:
        words = f"silence {made.id}: nobody is told of {matches} until {moment(until)}"
        print(json.dumps(asdict(made)) if as_json else f"{words}; ml-platform alerts silence {made.id} --end")


@app.command(name="test")
def try_channels(
    channel: Annotated[str, typer.Option(help="this one only")] = "",
    as_json: Json = False,
) -> None:
    """Send a message to every channel, by the addresses that this command's environment has. Status 1 if one fails."""
    alert = Alert("test", "ml-platform alerts test", f"{getpass.getuser()} tries out this channel", next_step="nothing")
    results: dict[str, str] = {}
    for _, spec, _ in _books():
        notifier = Notifier(spec, os.environ)
        for name in [channel] if channel in spec.channels else [] if channel else spec.channels:
            message = Message(name, False, (Open(alert, time.time(), None),))
            results[name] = notifier.send(message)
    if not results:
        problem = f"there is no channel {channel}" if channel else "no channel is declared"
        raise SettingsError("alerts", problem, "declare it in the Alerts component (docs/alerts.md)")
    if as_json:
        print(json.dumps({name: error or "took it" for name, error in results.items()}))
    else:
        for name, error in results.items():
            print(f"{name}: {error or 'took it'}")
    if any(results.values()):
        raise typer.Exit(1)


def _books() -> Iterator[tuple[str, AlertsSpec, AlertBook]]:
    """Of each project its alerts."""
    settings, _, lake = world()
    for project in find_projects(settings.project):
        spec = survey_at(settings, project).catalog.alerts or AlertsSpec()
        yield project.package, spec, AlertBook(lake, project.package)


def _row(one: Open) -> dict[str, Any]:
    alert = one.alert
    names = ("kind", "subject", "severity", "reason", "value", "limit", "link", "next_step")
    names_of_lists = ("parts", "about", "owners")
    return {
        "id": alert.id,
        **{name: getattr(alert, name) for name in names},
        **{name: list(getattr(alert, name)) for name in names_of_lists},
        "since": one.since,
        "over": one.gone is not None,
        "told": sorted(one.told),
        "owed": sorted(one.owed),
    }


def _print(found: list[dict[str, Any]], silences: list[dict[str, Any]]) -> None:
    table = Table("id", "severity", "what", "about", "since", "told", "", "why", "next")
    for one in found:
        notes = [
            f"follows from {one['explained_by']}" if one["explained_by"] else "",
            f"silenced by {one['silenced_by']}" if one["silenced_by"] else "",
            f"not taken yet by {', '.join(one['owed'])}" if one["owed"] else "",
            "is over" if one["over"] else "",
        ]
        words = "; ".join(filter(None, notes))
        about, told = f"{one['subject']}{span(one['parts'])}", ", ".join(one["told"])
        what = one["kind"].replace("_", " ")
        table.add_row(
            one["id"], one["severity"], what, about, moment(one["since"]), told, words, one["reason"], one["next_step"]
        )
    if found:
        print_table(table)
    else:
        print("nothing is wrong")
    for one in silences:
        print(f"silence {one['id']}: {one['matches']} until {moment(one['until'])}, by {one['by']}: {one['reason']}")


def _duration(text: str) -> str:
    try:
        return TypeAdapter(Duration).validate_python(text)
    except ValidationError as error:
        problem = f"{text!r} is no duration, such as 30m, 4h or 2d"
        raise SettingsError("--for", problem, "ml-platform alerts silence ... --for 4h") from error
