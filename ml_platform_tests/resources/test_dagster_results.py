"""What Dagster has of a partition: asked of a real webserver over what real runs have left."""

from collections.abc import Iterator
from datetime import UTC, date, datetime

import dagster as dg
import pytest

from ml_platform.core.errors import StackError
from ml_platform.resources.dagster_api import DagsterApi
from ml_platform.resources.dagster_results import known_of
from ml_platform_tests.processes import BIN, free_port
from ml_platform_tests.servers import server

DAY, OTHER, UNMADE = date(2018, 4, 1), date(2018, 4, 2), date(2018, 4, 3)
CODE = """
import dagster as dg

days = dg.DailyPartitionsDefinition("2018-04-01", end_date="2018-05-01")


def outcome(context, name, severity=dg.AssetCheckSeverity.ERROR):
    bad = context.partition_key == "2018-04-02"
    return dg.AssetCheckResult(check_name=name, passed=not bad, severity=severity, description=f"of {context.partition_key}",
                               metadata={"rows": 3})


@dg.asset(key=["shop", "sales"], partitions_def=days, check_specs=[
    dg.AssetCheckSpec(name, asset=dg.AssetKey(["shop", "sales"]), partitions_def=days) for name in ("right", "usual", "silent")
])
def sales(context):
    metadata = {
        "text": "words", "table": dg.MetadataValue.md("| a |"), "link": dg.MetadataValue.url("http://a"),
        "count": 7, "large": 2**40, "share": 0.5, "nothing": float("nan"), "good": True,
        "json": {"a": [1]}, "at": dg.MetadataValue.timestamp(0.0),
    }
    yield dg.MaterializeResult(metadata=metadata, check_results=[
        outcome(context, "right"), outcome(context, "usual", dg.AssetCheckSeverity.WARN),
        dg.AssetCheckResult(check_name="silent", passed=True),
    ])


@dg.asset(key=["shop", "store"])
def store():
    return dg.MaterializeResult(metadata={"of": "all days"})


defs = dg.Definitions([sales, store])
"""


@pytest.fixture(scope="module")
def api(processes: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterApi]:
    home, port = tmp_path_factory.mktemp("dagster"), free_port()
    (home / "shop_code.py").write_text(CODE)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(home)
        import shop_code  # pyright: ignore[reportMissingImports]  # written above

        with dg.DagsterInstance.from_config(str(home)) as instance:
            for day in (DAY, OTHER):
                assert dg.materialize([shop_code.sales], partition_key=str(day), instance=instance).success
            assert dg.materialize([shop_code.store], instance=instance).success
            reported = dg.AssetMaterialization(["shop", "sales"], partition="2018-04-05", metadata={"text": "by hand"})
            instance.report_runless_asset_event(reported)
    command = [str(BIN / "dagster-webserver"), "-f", str(home / "shop_code.py"), "-h", "127.0.0.1", "-p", str(port)]
    with server(command, f"http://127.0.0.1:{port}/server_info", home / "log", {"DAGSTER_HOME": str(home)}):
        yield DagsterApi(f"http://127.0.0.1:{port}")


def test_metadata_of_every_kind_comes_as_what_it_is(api: DagsterApi) -> None:
    found = known_of(api, "shop/sales", DAY)
    assert len(found.run_id) == 36
    assert found.at
    assert (datetime.now(UTC) - found.at).total_seconds() < 3_600
    assert {name: value for name, value in found.metadata.items() if not name.startswith("dagster/")} == {
        "text": "words",
        "table": "| a |",
        "link": "http://a",
        "count": 7,
        "large": str(2**40),
        "share": 0.5,
        "nothing": "nan",
        "good": True,
        "json": {"a": [1]},
        "at": "1970-01-01T00:00:00+00:00",
    }


def test_checks_are_those_of_the_partition_and_warnings_are_no_failures(api: DagsterApi) -> None:
    good, bad = (known_of(api, "shop/sales", day) for day in (DAY, OTHER))
    assert {one.check: one.outcome for one in good.checks} == {"right": "passed", "usual": "passed", "silent": "passed"}
    assert {one.check: one.outcome for one in bad.checks} == {"right": "failed", "usual": "warned", "silent": "passed"}
    assert {one.description for one in bad.checks} == {"of 2018-04-02", ""}
    (right,) = [one for one in bad.checks if one.check == "right"]
    assert right.metadata == {"rows": 3}
    assert right.run_id == bad.run_id


def test_partition_that_was_never_made_has_nothing(api: DagsterApi) -> None:
    found = known_of(api, "shop/sales", UNMADE)
    assert (found.run_id, found.at, found.metadata, found.checks) == ("", None, {}, ())


def test_what_a_sensor_reported_has_a_moment_and_no_run(api: DagsterApi) -> None:
    found = known_of(api, "shop/sales", date(2018, 4, 5))
    assert (found.run_id, found.metadata) == ("", {"text": "by hand"})
    assert found.at


def test_asset_without_partitions_is_asked_for_as_such(api: DagsterApi) -> None:
    assert known_of(api, "shop/store", None).metadata["of"] == "all days"


def test_asset_that_is_not_in_the_graph_is_an_error_that_says_so(api: DagsterApi) -> None:
    with pytest.raises(StackError, match="does not know shop/nothing"):
        known_of(api, "shop/nothing", DAY)
