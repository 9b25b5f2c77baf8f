"""`ml-platform alerts`: on a real lake and a real HTTP server."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ml_platform.cli import app
from ml_platform.core.catalog import load_catalog
from ml_platform.core.catalog.reading import read
from ml_platform.core.errors import SettingsError, SpecError
from ml_platform.core.settings import Settings
from ml_platform.monitoring.alerts import Alert, Open, State
from ml_platform.resources.alert_book import AlertBook
from ml_platform.resources.lake import Lake
from ml_platform_tests.inbox import http_inbox

DEFS = """
type: ml_platform.components.Alerts
attributes:
  channels:
    ops: {url_variable: OPS_CHANNEL}
    pager: {type: alertmanager, url_variable: PAGER}
"""
LATE = Alert(
    "data_late", "transactions/raw", "day 2018-04-05 is not there", parts=("2018-04-05",), about=("transactions",)
)
VIEW = Alert("data_late", "features/cards", "it is late", follows_from=("features/cards", "transactions/raw"))


@pytest.fixture
def book(environment: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlertBook:
    """The alerts of a project of one file."""
    folder = tmp_path / "my_team"
    (folder / "defs" / "platform").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "defs" / "platform" / "defs.yaml").write_text(DEFS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_team", raising=False)
    monkeypatch.setenv("ML_PLATFORM_PROJECT", "my_team")
    monkeypatch.delenv("OPS_CHANNEL", raising=False)
    return AlertBook(Lake.at(environment), "my_team")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["alerts", *arguments])


def test_nothing_wrong_is_status_zero(book: AlertBook) -> None:
    done = run("list")
    assert (done.exit_code, done.output) == (0, "nothing is wrong\n")


def test_list_says_what_is_wrong_who_was_told_and_what_waits(book: AlertBook) -> None:
    told = {"ops": 1_700_000_000.0}
    opened = [
        Open(LATE, 1_700_000_000.0, 1_700_000_000.0, owed=("pager",), told=told),
        Open(VIEW, 1_700_000_000.0, None),
    ]
    book.keep(State({one.alert.id: one for one in opened}))
    book.of("exporter").keep(State({"d": Open(Alert("daemon_dead", "daemon", "no heartbeat"), 1.0, 1.0)}))
    done = run("list")
    assert done.exit_code == 1, "something is critical"
    for words in (
        "transactions/raw [2018-04-05]",
        "not taken yet by pager",
        "follows from transactions/raw",
        "no heartbeat",
    ):
        assert words in done.output
    rows = {one["subject"]: one for one in json.loads(run("list", "--json").output)["alerts"]}
    assert rows["transactions/raw"]["told"] == ["ops"]
    assert rows["features/cards"]["explained_by"] == "transactions/raw"


def test_silence_has_an_end_and_a_reason(book: AlertBook) -> None:
    book.keep(State({LATE.id: Open(LATE, 1.0, 1.0)}))
    made = json.loads(run("silence", "transactions", "--for", "4h", "--reason", "known", "--json").output)
    assert made["reason"] == "known"
    (listed,) = json.loads(run("list", "--json").output)["alerts"]
    assert listed["silenced_by"] == made["id"]
    assert "silence " + made["id"] in run("list").output
    assert run("silence", made["id"], "--end").exit_code == 0
    assert json.loads(run("list", "--json").output)["silences"] == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("silence", "x"), "a silence has an end and a reason"),
        (("silence", "x", "--for", "soon", "--reason", "y"), "'soon' is no duration"),
        (("silence", "x", "--end"), "there is none of this id"),
        (("test", "--channel", "opps"), "there is no channel opps"),
    ],
)
def test_mistakes_are_named(book: AlertBook, arguments: tuple[str, ...], problem: str) -> None:
    done = run(*arguments)
    assert isinstance(done.exception, SettingsError)
    assert problem in str(done.exception)


def test_channels_are_tried(book: AlertBook, monkeypatch: pytest.MonkeyPatch) -> None:
    with http_inbox() as inbox:
        monkeypatch.setenv("OPS_CHANNEL", f"json://{inbox.address}/ops")
        done = run("test")
        assert done.exit_code == 1
        assert "ops: took it" in done.output
        assert "PAGER: is not set, and channel pager needs it" in done.output
        assert json.loads(run("test", "--channel", "ops", "--json").output) == {"ops": "took it"}
        assert inbox.titles == ["warning: test: ml-platform alerts test"] * 2


@pytest.mark.parametrize(
    ("yaml", "problem"),
    [
        ("routes: [{channels: [opps]}]", "no channel 'opps'; did you mean `ops`?"),
        ("routes: [{channels: [ops], kinds: [data_lat]}]", "routes.0.kinds.0"),
        ("routes: [{channels: []}]", "routes.0.channels"),
    ],
)
def test_mistakes_in_the_file_are_named_with_their_line(tmp_path: Path, yaml: str, problem: str) -> None:
    (error,) = read(tmp_path / "defs.yaml", f"{DEFS}  {yaml}\n").errors
    assert problem in str(error)
    assert "defs.yaml:7" in str(error)


def test_route_for_a_model_that_is_none_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "defs.yaml").write_text(f"{DEFS}  routes: [{{channels: [ops], models: [fraud]}}]\n")
    with pytest.raises(SpecError, match=r"defs.yaml:7: `routes.0.models`: no model 'fraud'"):
        load_catalog(tmp_path)


def test_project_has_its_alerts_once(tmp_path: Path) -> None:
    (tmp_path / "defs.yaml").write_text(f"{DEFS}---{DEFS}")
    with pytest.raises(SpecError, match="there are Alerts already in"):
        load_catalog(tmp_path)
