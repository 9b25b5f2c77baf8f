"""From an answer back to what landed, and from what landed to all that it has touched."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import ONE_DAY, day_range
from ml_platform.core.errors import LakeError
from ml_platform.core.settings import Settings
from ml_platform.registry import bundle
from ml_platform.registry.versions import Version
from ml_platform.resources import provenance
from ml_platform.resources.lake import Lake
from ml_platform.resources.manifest import Input
from ml_platform.resources.prediction_rows import Prediction, as_table
from ml_platform.resources.registry import Registry
from ml_platform_tests.conftest import FIRST_DAY

MODEL, VIEW = "fraud_detection", "customer_activity"
DAYS = list(day_range(FIRST_DAY, FIRST_DAY + timedelta(days=9)))


def rows(n: int) -> pa.Table:
    return pa.table({"n": [n]})


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.chdir(tmp_path)  # MLflow without a server keeps artifacts in the working directory
    return Registry(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Ten raw days, a view of the three days before each, and two training sets: of the first five days, and of the last four."""
    lake = Lake.at(Settings(lake=str(tmp_path / "lake")))
    raw = {}
    for n, day in enumerate(DAYS):
        landed = Input(f"s3://landing/transactions/{day}/a.parquet", f"etag{n}", 10)
        raw[day] = lake.write_table(keys.raw("transactions"), day, rows(n), [landed])
    for n, day in enumerate(DAYS[3:], 3):
        inputs = [raw[d].as_input(keys.raw("transactions"), d) for d in DAYS[n - 3 : n]]
        lake.write_table(keys.feature_view(VIEW), day, rows(100 + n), inputs)
    for day, used in ((DAYS[5], DAYS[:5]), (DAYS[9], DAYS[5:9])):
        inputs = [raw[d].as_input(keys.raw("transactions"), d) for d in used]
        views = [lake.manifest(keys.feature_view(VIEW), d) for d in used]
        inputs += [v.as_input(keys.feature_view(VIEW), d) for v, d in zip(views, used, strict=True) if v]
        made = lake.write_table(keys.training_set(MODEL), day, rows(200 + day.day), inputs)
        lake.write_files(keys.candidate(MODEL), day, {"a": b"1"}, [made.as_input(keys.training_set(MODEL), day)])
    return lake


def register(registry: Registry, lake: Lake, trained: date) -> Version:
    inputs = [{"name": i.name, "version": i.version} for i in lake.require(keys.training_set(MODEL), trained).inputs]
    manifest = {"inputs": inputs, "training_date": str(trained)}
    files = {bundle.MANIFEST: json.dumps(manifest).encode(), bundle.MODEL_CARD: b""}
    experiment = registry.client.get_experiment_by_name("Default")
    run = registry.client.create_run(experiment.experiment_id if experiment else "0").info.run_id
    return registry.register(MODEL, files, run, {"training_date": str(trained)})


def answer(lake: Lake, day: date, request: str, version: Version) -> None:
    at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    prediction = Prediction(request, at, version.number, "champion", "7", 1.0, score=0.25)
    path = lake.root and f"{lake.day_folder(keys.prediction_log(MODEL), day)}/99991231T000000-{request}.parquet"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    import pyarrow.parquet as pq

    pq.write_table(as_table([prediction]), path)


def test_version_leads_back_to_the_etags_of_what_landed(lake: Lake, registry: Registry) -> None:
    version = register(registry, lake, DAYS[5])
    link = provenance.explain(lake, registry, version)
    assert {one.version for one in link.objects()} == {f"etag{n}" for n in range(5)}
    (view,) = [one for one in link.made_from if one.name == keys.partition(keys.feature_view(VIEW), DAYS[4])]
    assert [one.name for one in view.made_from] == [keys.partition(keys.raw("transactions"), d) for d in DAYS[1:4]]


def test_what_was_replaced_or_removed_since_is_said(lake: Lake, registry: Registry) -> None:
    version = register(registry, lake, DAYS[5])
    lake.write_table(keys.raw("transactions"), DAYS[0], rows(999), [])
    lake.remove(keys.raw("transactions"), DAYS[1])
    link = provenance.explain(lake, registry, version)
    state = {one.name: (one.changed, one.gone) for one in link.made_from if one.name.startswith("transactions/raw")}
    assert [state[keys.partition(keys.raw("transactions"), d)] for d in DAYS[:3]] == [
        (True, False),
        (False, True),
        (False, False),
    ]


def test_answer_is_found_by_its_request(lake: Lake, registry: Registry) -> None:
    version = register(registry, lake, DAYS[5])
    answer(lake, DAYS[6], "abc", version)
    assert provenance.answered(lake, MODEL, "abc")["version"] == version.number
    with pytest.raises(LakeError, match="has no request 'xyz'"):
        provenance.answered(lake, MODEL, "xyz")


def test_bad_day_leads_to_all_that_it_touched_and_to_nothing_else(
    lake: Lake, registry: Registry, catalog: Catalog
) -> None:
    old, new = register(registry, lake, DAYS[5]), register(registry, lake, DAYS[9])
    answer(lake, DAYS[6], "abc", old)
    found = provenance.recall(lake, registry, catalog, "transactions", DAYS[2])
    assert {*found.partitions} == {
        keys.partition(keys.raw("transactions"), DAYS[2]),
        *(keys.partition(keys.feature_view(VIEW), d) for d in DAYS[3:6]),
        keys.partition(keys.training_set(MODEL), DAYS[5]),
        keys.partition(keys.candidate(MODEL), DAYS[5]),
        keys.partition(keys.training_set(MODEL), DAYS[9]),  # through the view's day 5, which is among its features
        keys.partition(keys.candidate(MODEL), DAYS[9]),
    }
    assert found.versions == (new, old) or found.versions == (old, new)
    assert found.answers == {old.label: 1}
    last = provenance.recall(lake, registry, catalog, "transactions", DAYS[9])
    assert last.partitions == (keys.partition(keys.raw("transactions"), DAYS[9]),)
    assert last.versions == ()
    with pytest.raises(LakeError, match="does not exist"):
        provenance.recall(lake, registry, catalog, "transactions", DAYS[9] + ONE_DAY)


def test_object_is_found_by_its_etag(lake: Lake) -> None:
    assert provenance.days_with(lake, "transactions", "etag3") == [DAYS[3]]
    assert provenance.days_with(lake, "transactions", "other") == []
