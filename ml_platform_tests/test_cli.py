"""Commands as a user gives them, on a real lake and a real landing bucket."""

import io
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner, Result

from ml_platform.cli import app, backfill
from ml_platform.cli import world as cli_world
from ml_platform.components.source import ingest_day
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import PlatformError, RegistryError, SpecError, StackError
from ml_platform.core.settings import Settings
from ml_platform.core.spec import PolicySpec, SourceSpec
from ml_platform.resources.dagster_api import Backfill, Run
from ml_platform.resources.lake import Lake
from ml_platform.resources.ledger import QUALITY, REMOVED
from ml_platform.resources.object_store import ObjectStore
from ml_platform.resources.origins import Origins
from ml_platform_tests.conftest import FIRST_DAY
from ml_platform_tests.processes import free_port
from ml_platform_tests.stores import S3

RAW, TODAY = keys.raw("transactions"), date(2018, 5, 1)
HEADER = "transaction_id,tx_datetime,customer_id,terminal_id,tx_amount"
GOOD, NEGATIVE = "1,2018-04-01T08:00:00,1,1,5", "2,2018-04-01T08:00:00,1,1,-5"
NO_AMOUNT = "3,2018-04-01T08:00:00,1,1,much"

Ingest = Callable[..., None]


@pytest.fixture(params=["folder", S3])
def world(
    request: pytest.FixtureRequest, s3_port: int, environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """A lake in a folder or in a bucket, and nobody at the address of Dagster."""
    monkeypatch.setenv("ML_PLATFORM_DAGSTER_PORT", str(free_port()))
    landing = environment.landing
    ObjectStore.at(environment).ensure_bucket()
    if request.param == "folder":
        return environment
    monkeypatch.setenv("ML_PLATFORM_LAKE", f"{landing}-lake")
    ObjectStore.at(environment.model_copy(update={"landing": f"{landing}-lake"})).ensure_bucket()
    return environment.model_copy(update={"lake": f"{landing}-lake"})


@pytest.fixture
def spec(catalog: Catalog) -> SourceSpec:
    checks = ("values_are_allowed", "values_fit_their_types", "objects_are_readable", "schema_conforms")
    policies = {check: PolicySpec(on_failure="quarantine", up_to=0.8) for check in checks}
    return catalog.sources["transactions"].model_copy(update={"policies": policies})


@pytest.fixture
def ingest(world: Settings, spec: SourceSpec, catalog: Catalog) -> Ingest:
    """Land objects of the first day, given as name=lines, and make the day of all that is landed."""
    store, lake = ObjectStore.at(world), Lake.at(world)

    def land_and_make(**objects: tuple[str, ...] | bytes) -> None:
        for name, lines in objects.items():
            content = lines if isinstance(lines, bytes) else "\n".join([HEADER, *lines]).encode()
            store.write(f"transactions/{FIRST_DAY}/{name}.{'parquet' if isinstance(lines, bytes) else 'csv'}", content)
        ingest_day(spec, FIRST_DAY, catalog, Origins(store), lake)

    return land_and_make


def parquet(**columns: list[Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def said(*arguments: str) -> str:
    """What a command that succeeds says."""
    done = run(*arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def error(*arguments: str) -> str:
    """The error that a command ends with."""
    done = run(*arguments)
    assert isinstance(done.exception, PlatformError), (done.output, done.exception)
    return str(done.exception)


DAY = str(FIRST_DAY)


# --- quarantine -------------------------------------------------------------------------------------------------------


def test_list_says_what_is_in_quarantine_and_why(ingest: Ingest) -> None:
    assert said("quarantine", "list") == "nothing is in quarantine\n"
    ingest(a=(GOOD, NEGATIVE, NO_AMOUNT), b=parquet(transaction_id=[7]), c=b"no parquet")
    (row,) = [line for line in said("quarantine", "list", "--source", "transactions").splitlines() if DAY in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:5] == ["transactions", DAY, "degraded", "2", "2"]
    listed = said("quarantine", "list")
    for why in (
        "objects_are_readable: 1 object",
        "schema_conforms: 1 object",
        "values_are_allowed: 1 row",
        "values_fit_their_types: 1 row",
    ):
        assert why in listed
    assert said("quarantine", "list", "--source", "fraud_labels") == "nothing is in quarantine\n"
    assert "there is no such source" in error("quarantine", "list", "--source", "nobody")


def test_object_may_be_called_as_long_as_s3_allows(world: Settings, ingest: Ingest) -> None:
    """Its file in quarantine is not: file systems take fewer bytes than S3."""
    long = "ä" * 120
    ingest(**{long: b"no parquet"})
    assert list(Lake.at(world).read_files(keys.quarantine("transactions"), FIRST_DAY).values()) == [b"no parquet"]
    assert said("quarantine", "list", "--source", "transactions")


def test_show_says_what_became_of_objects_and_rows(ingest: Ingest) -> None:
    ingest(a=(GOOD, NEGATIVE, NO_AMOUNT), b=parquet(transaction_id=[7]))
    shown = said("quarantine", "show", "transactions", DAY)
    (account,) = [line for line in shown.splitlines() if "a.csv" in line and "│" in line]
    assert [cell.strip() for cell in account.strip("│").split("│")][2:6] == ["3", "1", "2", "0"]
    assert "b.parquet" in shown
    assert "schema_conforms: column 'tx_datetime' is missing" in shown
    assert "a.csv row 1: values_are_allowed: tx_amount: less than min, 0.0" in shown
    assert "tx_amount=much" in shown
    assert " row " not in said("quarantine", "show", "transactions", DAY, "--rows", "0")
    assert "nothing of this day is in quarantine" in error("quarantine", "show", "transactions", "2018-04-09")


def test_released_rows_are_in_the_day_when_it_is_made_again(world: Settings, ingest: Ingest) -> None:
    ingest(a=(GOOD, NEGATIVE, NO_AMOUNT))
    output = said("quarantine", "release", "transactions", DAY, "--reason", "it was a refund")
    assert "release is decided by" in output
    assert "objects 0 and rows 1 stay in quarantine" in output
    assert f"takes effect when {RAW} [{DAY}] is materialized" in output
    assert "no Dagster answers" in output
    ingest()
    lake = Lake.at(world)
    assert sorted(lake.read_table(RAW, [FIRST_DAY])["tx_amount"].to_pylist()) == [-5, 5]
    assert "values_fit_their_types: 1 row" in said("quarantine", "list")
    assert "values_are_allowed" not in said("quarantine", "list")
    assert "none of it has rows that could be released" in error(
        "quarantine", "release", "transactions", DAY, "--reason", "again"
    )


def test_discarded_rows_are_gone_when_the_day_is_made_again(world: Settings, ingest: Ingest) -> None:
    ingest(a=(GOOD, NEGATIVE), b=b"no parquet")
    said("quarantine", "discard", "transactions", DAY, "--reason", "a test till")
    ingest()
    assert Lake.at(world).read_table(RAW, [FIRST_DAY])["tx_amount"].to_pylist() == [5]
    assert said("quarantine", "list") == "nothing is in quarantine\n"


def test_day_that_was_stopped_can_be_released(world: Settings, ingest: Ingest) -> None:
    ingest(a=(NEGATIVE, NEGATIVE.replace("2,", "3,", 1)))
    assert "bad" in said("quarantine", "list")
    said("quarantine", "release", "transactions", DAY, "--reason", "all of them are refunds")
    ingest()
    assert Lake.at(world).require(RAW, FIRST_DAY).rows == 2


def test_what_has_no_rows_cannot_be_released(ingest: Ingest) -> None:
    ingest(a=(GOOD,), b=b"no parquet")
    said_no = error("quarantine", "release", "transactions", DAY, "--reason", "please")
    assert "none of it has rows that could be released (objects_are_readable: 1 object)" in said_no
    assert "Next: land mended files, or ml-platform quarantine discard" in said_no


@pytest.mark.parametrize("action", ["release", "discard"])
def test_decision_needs_something_to_decide_about(world: Settings, ingest: Ingest, action: str) -> None:
    arguments = ("quarantine", action, "transactions", DAY, "--reason", "why not")
    assert "nothing of this day is in quarantine" in error(*arguments)
    ingest(a=(GOOD, NEGATIVE))
    ObjectStore.at(world).write(f"transactions/{DAY}/late.csv", b"more")
    assert "has changed since it was judged; it is judged anew by itself" in error(*arguments)
    assert Lake.at(world).days(keys.decisions("transactions")) == []


# --- backfill ---------------------------------------------------------------------------------------------------------


def test_range_of_a_group_gives_every_asset_the_days_that_it_has(catalog: Catalog) -> None:
    first, last = date(2018, 4, 1), date(2018, 4, 3)
    assert backfill.days_of(catalog, "raw", first, last, TODAY) == {
        "fraud_labels/raw": (first, last),
        "transactions/raw": (first, last),
    }
    start = date(2018, 4, 2)
    assert backfill.days_of(catalog, "features/customer_activity", start, last, TODAY) == {
        "features/customer_activity": (start, last)
    }
    late = catalog.sources["fraud_labels"].model_copy(update={"start_date": date(2018, 4, 2)})
    later = Catalog({**catalog.sources, "fraud_labels": late}, catalog.views, catalog.models)
    assert backfill.days_of(later, "raw", first, last, TODAY)["fraud_labels/raw"] == (date(2018, 4, 2), last)
    assert [*backfill.days_of(later, "raw", first, first, TODAY)] == ["transactions/raw"]


@pytest.mark.parametrize(
    ("first", "last"), [("2018-03-31", "2018-04-02"), ("2018-04-02", "2018-05-02"), ("2018-04-03", "2018-04-02")]
)
def test_days_that_there_are_not_are_refused_with_those_that_there_are(catalog: Catalog, first: str, last: str) -> None:
    with pytest.raises(StackError, match="not a range within 2018-04-01 to 2018-05-01"):
        backfill.days_of(catalog, RAW, date.fromisoformat(first), date.fromisoformat(last), TODAY)


def test_unknown_target_is_answered_with_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(StackError, match="did you mean transactions/raw"):
        backfill.days_of(catalog, "transaction/raw", FIRST_DAY, FIRST_DAY, TODAY)


@pytest.mark.parametrize(("ended", "rest"), [("SUCCESS", "unchanged"), ("FAILURE", "broken")])
def test_day_that_was_not_written_is_unchanged_or_broken_by_how_its_run_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ended: str, rest: str
) -> None:
    """Features that come out as they were are kept."""
    lake, settings = Lake.at(Settings(home=tmp_path)), Settings(home=tmp_path)
    key, second = "features/customer_activity", FIRST_DAY + timedelta(days=1)

    class Api:
        @classmethod
        def at(cls, settings: Settings) -> "Api":
            return cls()

        def make(self, days: Any, on_look: Any) -> Backfill:
            lake.write_table(key, second, pa.table({"a": [1]}), [])
            return Backfill("one", "COMPLETED", (Run("run", ended, (key,)),), "")

    monkeypatch.setattr(backfill, "DagsterApi", Api)
    backfill.make(settings, lake, {key: (FIRST_DAY, second)})
    assert f"days asked 2, made 1, {rest} 1; run run" in capsys.readouterr().out


def test_backfill_without_dagster_names_the_url_and_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("ML_PLATFORM_DAGSTER_PORT", str(port))
    message = error("backfill", RAW, "--from", DAY, "--to", DAY, "--no-wait")
    assert f"no Dagster answers at http://127.0.0.1:{port}" in message
    assert "make dev" in message


# --- retention --------------------------------------------------------------------------------------------------------


@pytest.fixture
def three_days(
    world: Settings, spec: SourceSpec, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Lake:
    """A source that is kept for one day, with three days; an empty registry."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
    source = spec.model_copy(update={"keep_days": 1, "unique_within_days": 1})
    alone, lake, store = Catalog({"transactions": source}, {}, {}), Lake.at(world), ObjectStore.at(world)
    monkeypatch.setattr("ml_platform.cli.world.catalog_at", lambda settings: alone)
    for day in ("2018-04-01", "2018-04-02", "2018-04-03"):
        store.write(f"transactions/{day}/a.csv", f"{HEADER}\n1,{day}T08:00:00,1,1,5\n2,{day}T08:00:00,1,1,-5".encode())
        ingest_day(source, date.fromisoformat(day), alone, Origins(store), lake)
    return lake


def test_plan_says_what_would_be_removed_and_removes_nothing(three_days: Lake) -> None:
    output = said("retention", "plan")
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if RAW in line]
    assert [[*row[:4], *row[5:]] for row in rows] == [
        [RAW, "2018-04-01", "2018-04-02", "2", "remove", "older than keep_days, 1"],
        [RAW, "2018-04-03", "2018-04-03", "1", "keep", "within keep_days, 1"],
    ]
    assert "remove: 2 partitions, " in output
    assert len(three_days.days(RAW)) == 3


def test_apply_asks_and_takes_no_for_an_answer(three_days: Lake) -> None:
    done = CliRunner().invoke(app, ["retention", "apply"], input="n\n")
    assert done.exit_code == 1
    assert len(three_days.days(RAW)) == 3
    assert len(three_days.days(keys.quarantine("transactions"))) == 3


def test_apply_removes_what_the_plan_said(three_days: Lake) -> None:
    lost = f"{three_days.root}/{RAW}/date=2018-04-03/part-lost.parquet"
    three_days.write_file(lost, b"12345")
    output = said("retention", "apply", "--yes")
    assert "removed 2 partitions and 0 leftover files" in output, "the file is younger than a day"
    assert "Dagster goes on showing them as materialized" in output
    assert [str(day) for day in three_days.days(RAW)] == ["2018-04-03"]
    assert [str(day) for day in three_days.days(keys.quarantine("transactions"))] == ["2018-04-03"]
    assert three_days.require(keys.ledger("transactions"), FIRST_DAY).tags[QUALITY] == REMOVED
    assert "remove: 0 partitions, 0 bytes" in said("retention", "apply", "--yes")
    assert "nothing of this day is in quarantine" in error("quarantine", "show", "transactions", DAY)


def test_nothing_is_removed_while_the_registry_cannot_be_asked(
    three_days: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = run("retention", "apply", "--yes")
    assert isinstance(done.exception, RegistryError)
    assert len(three_days.days(RAW)) == 3


def test_nothing_is_removed_while_a_file_is_broken(three_days: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file would have needed is not known."""
    _, whole, _ = cli_world.world()
    mistake = SpecError("defs/models/units/defs.yaml:3", "there is no field `gate`", "did you mean `gates`?")
    broken = replace(whole, broken={Path("defs/models/units/defs.yaml"): mistake})
    monkeypatch.setattr(cli_world, "catalog_at", lambda settings: broken)
    assert "remove: 2 partitions, " in said("retention", "plan")
    done = run("retention", "apply", "--yes")
    assert done.exception is mistake
    assert len(three_days.days(RAW)) == 3


# --- feast ------------------------------------------------------------------------------------------------------------


def test_feast_writes_its_two_files_again_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    folder = tmp_path / "its" / "repository"
    output = said("feast", str(folder))
    assert "features/online_store goes to a store of its own, which Feast cannot read" in output
    assert f"next: cd {folder} && feast apply" in output
    (folder / "features.py").write_text("# Generated by `ml-platform feast`, long ago")
    (folder / "mine.py").write_text("mine")
    said("feast", str(folder))
    compile((folder / "features.py").read_text(), "features.py", "exec")
    assert (folder / "mine.py").read_text() == "mine"
    assert {path.name for path in folder.iterdir()} == {"feature_store.yaml", "features.py", "mine.py"}
    (folder / "feature_store.yaml").write_text("project: mine")
    assert "feature_store.yaml: is not a file that this command has written" in error("feast", str(folder))
    assert (folder / "feature_store.yaml").read_text() == "project: mine"


def test_feast_writes_down_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ML_PLATFORM_ONLINE_STORE", "rediss://me:secret@somewhere/2")
    monkeypatch.setenv("ML_PLATFORM_FEAST_REGISTRY", "postgresql+psycopg://me:secret@somewhere/registry")
    output = said("feast", str(tmp_path))
    assert "export REDIS_PASSWORD=..." in output
    settings = yaml.safe_load((tmp_path / "feature_store.yaml").read_text())
    address = settings["online_store"]["connection_string"].split(",")
    assert address[:2] == ["somewhere:6379", "db=2"]
    assert {"ssl=true", 'username="me"', "password=${REDIS_PASSWORD}"} <= set(address)
    assert settings["registry"]["registry_type"] == "sql"
    assert settings["registry"]["path"] == "${ML_PLATFORM_FEAST_REGISTRY}"
    assert "secret" not in output + "".join(path.read_text() for path in tmp_path.glob("feat*"))


def test_feast_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "feast", None)
    assert "Next: pip install 'ml-platform[feast]'" in error("feast", str(tmp_path))
    assert not list(tmp_path.iterdir())
