"""What any step has made, as it is found in a real lake, landing bucket and registry."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pytest

from ml_platform.components.source import ingest_day
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import ONE_DAY, start_of
from ml_platform.core.errors import LakeError
from ml_platform.core.settings import Settings
from ml_platform.core.spec.search import SearchSpec
from ml_platform.definitions import defs
from ml_platform.resources import inspected, inspection
from ml_platform.resources.inspected import Inspection, looked_into
from ml_platform.resources.lake import Lake
from ml_platform.resources.ledger import QUALITY
from ml_platform.resources.object_store import ObjectStore
from ml_platform.resources.online_store import online_store_at
from ml_platform.resources.origins import Origins
from ml_platform.resources.registry import Registry
from ml_platform_tests.conftest import FIRST_DAY
from ml_platform_tests.resources.test_provenance import DAYS, MODEL, VIEW, answer, lake, register, registry, rows

__all__ = ["lake", "registry"]  # fixtures

HEADER = "transaction_id,tx_datetime,customer_id,terminal_id,tx_amount"
GOOD, NEGATIVE = "1,2018-04-01T08:00:00,1,1,5", "2,2018-04-01T08:00:00,1,1,-5"
RAW = keys.raw("transactions")

Look = Callable[..., Inspection]


@pytest.fixture
def look(settings: Settings, catalog: Catalog, lake: Lake) -> Look:
    """Inspects in the lake that has ten raw days, a view of them and two training sets."""
    return lambda asset, partition="", rows=5: inspection.inspect(settings, catalog, lake, asset, partition, rows)


def states(found: Inspection) -> dict[str, str]:
    return {one.name: one.state for one in found.inputs}


def test_every_asset_of_the_graph_can_be_inspected(catalog: Catalog) -> None:
    graph = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    assert graph <= set(inspection.assets(catalog))


def test_segments_and_trials_are_assets_where_there_are_any(catalog: Catalog) -> None:
    source, model = catalog.sources["transactions"], catalog.models[MODEL]
    search = SearchSpec.model_validate({"space": {"epochs": [1, 2]}, "trials": 2})
    searched = model.candidates[0].model_copy(update={"search": search})
    other = replace(
        catalog,
        sources={**catalog.sources, "transactions": source.model_copy(update={"segments": ("de", "fr")})},
        models={MODEL: model.model_copy(update={"candidates": (searched,)})},
    )
    more = set(inspection.assets(other)) - set(inspection.assets(catalog))
    assert {keys.trials(MODEL), keys.landed("transactions/de"), keys.quarantine("transactions/fr")} <= more
    assert {*inspection.assets(other)} >= {RAW, keys.raw("transactions/de")}
    assert keys.landed("transactions") not in inspection.assets(other)


def test_what_is_kept_beside_the_graph_is_told_from_its_assets(look: Look, lake: Lake, catalog: Catalog) -> None:
    graph = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    beside = [keys.ledger("transactions"), keys.quarantine("transactions")]
    assert graph.isdisjoint(beside)
    for table in (*beside, RAW):
        lake.write_table(table, DAYS[0], rows(1), [], {QUALITY: "good"})
        assert look(table, str(DAYS[0])).in_graph == (table in graph)


def test_newest_partition_is_the_default_and_its_manifest_is_told(look: Look, lake: Lake) -> None:
    found, manifest = look(RAW), lake.require(RAW, DAYS[-1])
    assert found.name == keys.partition(RAW, DAYS[-1])
    assert found.facts["rows"] == 1
    assert found.facts["content_hash"] == manifest.content_hash
    assert found.facts["written_at"] == manifest.written_at
    assert found.facts["bytes"] == lake.sizes(RAW)[DAYS[-1]] - len(manifest.to_json()) == found.files[0].size
    assert found.rows
    assert found.rows.sample == [{"n": 9}]


def test_inputs_that_were_replaced_or_removed_since_are_told_from_those_that_are_current(
    look: Look, lake: Lake
) -> None:
    view = keys.feature_view(VIEW)
    assert set(states(look(view, str(DAYS[3]))).values()) == {"current"}
    new = lake.write_table(RAW, DAYS[0], rows(999), [])
    lake.remove(RAW, DAYS[1])
    assert list(states(look(view, str(DAYS[3]))).values()) == [
        f"has changed: is {new.content_hash}",
        "is gone",
        "current",
    ]


@pytest.mark.parametrize(
    ("asset", "partition", "words"),
    [
        ("transaction/raw", "", r"there is no such asset; did you mean `transactions/raw`\?"),
        (
            "transactions/row",
            "",
            r"did you mean `transactions/raw`.*Next: one of transactions/landed, transactions/raw",
        ),
        ("nobody", "", "there is no such asset. Next: OWNER/NAME, of "),
        (RAW, "2018-05-01", r"\[2018-05-01\]: is not there; nearest: 2018-04-10. Next"),
        (keys.training_set(MODEL), "2018-04-07", "is not there; nearest: 2018-04-06 and 2018-04-10"),
        (RAW, "yesterday", "'yesterday' is no partition; they are days, from 2018-04-01 to 2018-04-10"),
        (keys.monitoring(MODEL), "", "has no partition yet"),
        (
            keys.ONLINE_STORE,
            "2018-04-01",
            "has no partitions, only the newest rows. Next: ml-platform inspect features/",
        ),
        (keys.monitoring(MODEL), "2018-04-01", "is not there, nor any other"),
    ],
)
def test_wrong_names_and_days_get_the_nearest_that_there_are(
    look: Look, asset: str, partition: str, words: str
) -> None:
    with pytest.raises(LakeError, match=words):
        look(asset, partition)


def test_landing_that_cannot_be_reached_is_said_and_hides_nothing(look: Look) -> None:
    found = look(RAW)
    assert list(states(found).values()) == ["not looked up"]
    assert "what is landed was not looked up" in found.notes[0]
    assert found.rows


# --- a day of a source ------------------------------------------------------------------------------------------------


@pytest.fixture
def land(settings: Settings, catalog: Catalog, s3_port: int) -> Callable[..., None]:
    """Lands objects of the first day, given as name=lines."""
    store = ObjectStore.at(settings)
    store.ensure_bucket()

    def put(**objects: tuple[str, ...]) -> None:
        for name, lines in objects.items():
            store.write(f"transactions/{FIRST_DAY}/{name}.csv", "\n".join([HEADER, *lines]).encode())

    return put


@pytest.fixture
def make(settings: Settings, catalog: Catalog) -> Callable[[], Any]:
    source = catalog.sources["transactions"]
    return lambda: ingest_day(source, FIRST_DAY, catalog, Origins.at(settings), Lake.at(settings))


@pytest.fixture
def own(settings: Settings, catalog: Catalog) -> Look:
    """Inspects in the lake of the settings."""
    return lambda asset, partition="", rows=5: inspection.inspect(
        settings, catalog, Lake.at(settings), asset, partition, rows
    )


def test_landed_objects_are_held_against_what_is_landed_now(
    land: Callable[..., None], make: Callable[[], Any], own: Look
) -> None:
    land(a=(GOOD,), b=(GOOD.replace("1,", "7,", 1),))
    make()
    assert list(states(own(RAW)).values()) == ["current", "current"]
    land(a=(GOOD.replace(",5", ",6"),), c=(GOOD.replace("1,", "8,", 1),))
    a, b, c = states(own(RAW)).values()
    assert a.startswith("has changed: is ")
    assert (b, c) == ("current", "has landed since")


def test_landed_day_says_what_became_of_each_object(
    land: Callable[..., None], make: Callable[[], Any], own: Look
) -> None:
    land(a=(GOOD,))
    before = own(keys.landed("transactions"), str(FIRST_DAY))
    assert before.files[0].content["held"] == "not ingested yet"
    assert "is not what was ingested last" in before.notes[0]
    make()
    after = own(keys.landed("transactions"))
    assert (after.day, after.notes) == (FIRST_DAY, ())
    assert {"rows": 1, "written": 1}.items() <= after.files[0].content.items()
    with pytest.raises(LakeError, match="is not there; nearest: 2018-04-01"):
        own(keys.landed("transactions"), "2018-04-03")


def test_day_that_broke_its_contract_says_which_checks_and_where_to_look(
    land: Callable[..., None], make: Callable[[], Any], own: Look
) -> None:
    land(a=(NEGATIVE,))
    make()
    words = f"was not written; checks that it broke: values_are_allowed.*ml-platform quarantine show transactions {FIRST_DAY}"
    with pytest.raises(LakeError, match=words):
        own(RAW, str(FIRST_DAY))
    land(a=(GOOD,))
    make()
    land(a=(NEGATIVE,))
    make()
    found = own(RAW)
    assert found.facts["rows"] == 1
    assert found.notes == ("what has landed since was not written; checks that it broke: values_are_allowed",)


def test_quarantine_shows_its_files_and_landed_objects_can_be_had_back(
    settings: Settings, catalog: Catalog, land: Callable[..., None], make: Callable[[], Any], own: Look
) -> None:
    land(a=(GOOD, NEGATIVE))
    make()
    found = own(keys.quarantine("transactions"))
    assert found.facts["tags"]["quality"] == "bad"
    kept = inspection.files_of(settings, catalog, Lake.at(settings), found)
    assert [content.decode().splitlines()[-1] for content in kept.values()] == [NEGATIVE]
    landed = inspection.files_of(settings, catalog, Lake.at(settings), own(keys.landed("transactions")))
    assert landed == {"a.csv": "\n".join([HEADER, GOOD, NEGATIVE]).encode()}


# --- columns and rows -------------------------------------------------------------------------------------------------


def test_every_type_of_column_has_a_line_and_the_figures_are_right() -> None:
    columns = {
        "number": [1.0, 2.0, None, 6.0],
        "whole": pa.array([1, None, 3, 5], pa.int64()),
        "text": ["b", "a", None, "b"],
        "at": pa.array([start_of(FIRST_DAY), None, start_of(FIRST_DAY + ONE_DAY), None], pa.timestamp("us", "UTC")),
        "flag": [True, None, True, True],
        "many": pa.array([[1.0], [2.0], None, []], pa.list_(pa.float64())),
        "nothing": pa.nulls(4, pa.string()),
    }
    found = looked_into(pads.dataset(pa.table(columns)), 4, 2)
    lines = {one.pop("column"): one for one in found.columns}
    assert [*lines] == [*columns]
    assert {"type": "double", "missing": 1, "count": 3, "min": 1, "50%": 2, "max": 6}.items() <= lines["number"].items()
    assert {"type": "int64", "missing": 1, "min": 1, "mean": 3}.items() <= lines["whole"].items()
    assert lines["text"] == {"type": "string", "missing": 1, "count": 3, "min": "a", "max": "b", "distinct": 2}
    assert lines["at"]["max"] == start_of(FIRST_DAY + ONE_DAY)
    assert lines["flag"]["count"] == 3
    assert lines["many"] == {"type": "list<item: double>", "missing": 1, "count": 3}
    assert lines["nothing"]["missing"] == 4
    assert len(found.sample) == 2


def test_table_without_rows_has_columns_and_no_figures() -> None:
    found = looked_into(pads.dataset(pa.table({"n": pa.array([], pa.int64()), "t": pa.array([], pa.string())})), 0, 5)
    assert [(one["column"], one["count"]) for one in found.columns] == [("n", 0), ("t", 0)]
    assert found.sample == []


def test_figures_of_a_large_table_are_of_evenly_spread_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspected, "MOST_ROWS", 10)
    batches = [pa.record_batch({"n": list(range(first, first + 19))}) for first in range(0, 95, 19)]
    found = looked_into(pads.dataset(batches), 95, 1)
    assert found.profiled == 10
    (line,) = found.columns
    assert (line["min"], line["max"], line["mean"]) == (0, 90, 45)


# --- what is no table of the lake ----------------------------------------------------------------------------------------


def test_set_of_files_says_what_its_documents_hold_and_is_checked_when_it_is_kept(
    settings: Settings, catalog: Catalog, lake: Lake, look: Look
) -> None:
    key, files = keys.evaluation(MODEL), {"report.json": b'{"auc": 0.9}', "roc.png": b"png", "CARD.md": b"# card"}
    manifest = lake.write_files(key, DAYS[5], files, [])
    found = look(key)
    assert {one.name: one.content for one in found.files} == {
        "report.json": {"auc": 0.9},
        "roc.png": None,
        "CARD.md": "# card",
    }
    assert found.facts["bytes"] == sum(map(len, files.values()))
    assert found.rows is None
    assert inspection.files_of(settings, catalog, lake, found) == files
    lake.write_file(f"{lake.day_folder(key, DAYS[5])}/{manifest.files[0]}", b"{}")
    with pytest.raises(LakeError, match="not those that the manifest was written for"):
        inspection.files_of(settings, catalog, lake, look(key))


@pytest.fixture
def registered(settings: Settings, registry: Registry) -> Settings:
    return settings.model_copy(update={"tracking_uri": registry.tracking_uri})


def test_version_of_a_training_date_has_its_bundle_and_inputs(
    registered: Settings, registry: Registry, catalog: Catalog, lake: Lake
) -> None:
    register(registry, lake, DAYS[5])
    version = register(registry, lake, DAYS[9])
    lake.write_table(RAW, DAYS[6], rows(999), [])
    found = inspection.inspect(registered, catalog, lake, keys.model_version(MODEL), "", 5)
    assert found.day == DAYS[9]
    assert found.facts["version"] == version.number
    assert found.facts["aliases"] == "candidate"
    assert [name for name, state in states(found).items() if state != "current"] == [keys.partition(RAW, DAYS[6])]
    assert inspection.files_of(registered, catalog, lake, found) == registry.download(version)
    with pytest.raises(LakeError, match="nearest: 2018-04-06 and 2018-04-10"):
        inspection.inspect(registered, catalog, lake, keys.model_version(MODEL), "2018-04-08", 5)


def test_deployment_says_whether_it_is_served_and_a_server_that_is_away_hides_nothing(
    registered: Settings, registry: Registry, catalog: Catalog, lake: Lake
) -> None:
    version = register(registry, lake, DAYS[5])
    found = inspection.inspect(registered, catalog, lake, keys.deployment(MODEL), "", 5)
    assert found.facts["version"] == version.number
    assert found.facts["served"].startswith("not known: ")


def test_day_of_the_prediction_log_is_there_without_a_manifest(
    registry: Registry, lake: Lake, look: Look, settings: Settings, catalog: Catalog
) -> None:
    answer(lake, DAYS[6], "abc", register(registry, lake, DAYS[5]))
    found = look(keys.prediction_log(MODEL))
    assert (found.day, found.facts["rows"]) == (DAYS[6], 1)
    assert found.rows
    assert found.rows.sample[0]["request_id"] == "abc"
    assert len(inspection.files_of(settings, catalog, lake, found)) == 1


def test_online_store_is_held_against_the_newest_snapshot(settings: Settings, catalog: Catalog) -> None:
    lake, store = Lake.at(settings), online_store_at(settings)
    view, other = catalog.snapshot_views()[:2]
    assert view.entity
    snapshot = pa.table({view.entity: [7, 8], **{name: [1.0, 2.0] for name in view.features}})
    lake.write_table(keys.feature_view(view.name), DAYS[0], snapshot, [])
    store.write(view, snapshot, start_of(DAYS[0]))

    def look(rows: int) -> Inspection:
        return inspection.inspect(settings, catalog, lake, keys.ONLINE_STORE, "", rows)

    assert states(look(1)) == {keys.partition(keys.feature_view(view.name), DAYS[0]): "current"}
    assert "was never written" in look(1).facts["views"][other.name]
    found = look(1)
    assert found.rows
    assert [(one["view"], one[view.entity]) for one in found.rows.sample] == [(view.name, 7)]
    lake.write_table(keys.feature_view(view.name), DAYS[1], snapshot, [])
    assert list(states(look(1)).values()) == [f"is not the newest, which is {DAYS[1]}"]
