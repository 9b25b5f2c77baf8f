"""Retention over a real lake and a real registry."""

import json
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from ml_platform.components.source import ingest_day
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import ONE_DAY, day_range
from ml_platform.core.errors import RegistryError
from ml_platform.core.settings import Settings
from ml_platform.core.spec import TrainingSpec, ViewInputSpec
from ml_platform.data.landing import fingerprint
from ml_platform.registry import bundle
from ml_platform.registry.retention import Span, doomed
from ml_platform.registry.versions import Aliases, Version
from ml_platform.resources import retention
from ml_platform.resources.lake import Lake
from ml_platform.resources.ledger import ARRIVAL, JUDGED_BY, QUALITY, REMOVED, accounts_of, is_handled
from ml_platform.resources.lineage import required_inputs, training_needs, view_needs
from ml_platform.resources.manifest import Input
from ml_platform.resources.object_store import ObjectStore
from ml_platform.resources.origins import Origins
from ml_platform.resources.registry import Registry
from ml_platform_tests.conftest import FIRST_DAY
from ml_platform_tests.processes import free_port

MODEL, VIEW = "fraud_detection", "terminal_risk"
DAYS = list(day_range(FIRST_DAY, FIRST_DAY + timedelta(days=29)))
TRAINED = DAYS[14]
ROWS = pa.table({"a": [1, 2, 3]})


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry of the module's own: retention looks at all versions that there are."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # MLflow without a server keeps artifacts in the working directory
        yield Registry(f"sqlite:///{folder}/mlflow.db")


@pytest.fixture
def small(catalog: Catalog) -> Catalog:
    """Everything is kept for three days, and looks back on two."""
    keep = {"keep_days": 3}
    sources = {
        name: source.model_copy(
            update={**keep, "delay_days": 1 if name == "fraud_labels" else 0, "references": {}, "unique_within_days": 1}
        )
        for name, source in catalog.sources.items()
    }
    view = catalog.views[VIEW]
    inputs = dict.fromkeys(view.inputs, ViewInputSpec(window_days=2))
    training = TrainingSpec(window_days=2, validation_days=1, embargo_days=0)
    model = catalog.models[MODEL].model_copy(update={**keep, "features": (VIEW,), "training": training})
    return Catalog(sources, {VIEW: view.model_copy(update={**keep, "inputs": inputs})}, {MODEL: model})


@pytest.fixture
def lake(tmp_path: Path, small: Catalog) -> Lake:
    """30 days of everything, and what a training as of the 15th day has made."""
    lake = Lake.at(Settings(lake=str(tmp_path / "lake")))
    for day in DAYS:
        for source in small.sources:
            tags = {ARRIVAL: "f", QUALITY: "good", JUDGED_BY: "j"}
            lake.write_table(keys.raw(source), day, ROWS, [Input("object", "etag")], tags)
            lake.write_table(keys.ledger(source), day, ROWS, [Input("object", "etag")], tags)
    for day in DAYS[2:]:
        inputs = required_inputs(lake, view_needs(small, small.views[VIEW], day))
        lake.write_table(keys.feature_view(VIEW), day, ROWS, inputs)
    for day in (TRAINED, DAYS[-1]):
        inputs = required_inputs(lake, training_needs(small, small.models[MODEL], day))
        lake.write_table(keys.training_set(MODEL), day, ROWS, inputs)
        for key in (keys.candidate(MODEL), keys.evaluation(MODEL)):
            lake.write_files(key, day, {"a": b"1"}, [])
    return lake


def register(registry: Registry, lake: Lake, trained: date, model: str = MODEL) -> Version:
    """A version of the training set as of a date."""
    training_set = lake.require(keys.training_set(MODEL), trained)
    inputs = [{"name": one.name, "version": one.version} for one in training_set.inputs]
    manifest = {"inputs": inputs, "training_date": trained.isoformat(), "n": len(registry.versions(model))}
    files = {bundle.MANIFEST: json.dumps(manifest).encode(), bundle.MODEL_CARD: b""}
    experiment = registry.client.get_experiment_by_name("Default")
    run = registry.client.create_run(experiment.experiment_id if experiment else "0").info.run_id
    return registry.register(model, files, run, {"training_date": trained.isoformat()})


@pytest.fixture
def no_versions(registry: Registry) -> Iterator[None]:
    yield
    for model in registry.models():
        registry.client.delete_registered_model(model)


def reasons(spans: list[Span], key: str) -> dict[date, str]:
    return {day: span.why for span in spans if span.key == key and not span.remove for day in span.days}


@pytest.mark.usefixtures("no_versions")
def test_everything_behind_a_version_is_kept(lake: Lake, small: Catalog, registry: Registry) -> None:
    old = register(registry, lake, TRAINED)
    with registry.changing(MODEL) as change:
        change.to(Aliases(champion=old), None)
    spans = retention.plan(lake, small, registry)
    gone, why = doomed(spans), "fraud_detection version 1 (champion) was trained on it"
    view, rows = keys.feature_view(VIEW), keys.raw("transactions")
    used = [TRAINED - timedelta(days=n) for n in (4, 3, 2)]  # two days to fit on and one to judge by, labels a day late
    assert all(reasons(spans, view)[day] == why for day in used)
    assert all(reasons(spans, rows)[day] == why for day in used)
    behind = used[0] - timedelta(days=2)  # no row of the training set: only the first snapshot saw it
    assert reasons(spans, rows)[behind] == why
    assert (rows, behind - ONE_DAY) in gone
    assert (view, used[0] - ONE_DAY) in gone
    for key in (keys.training_set(MODEL), keys.candidate(MODEL), keys.evaluation(MODEL)):
        assert reasons(spans, key)[TRAINED] == why
    retention.apply(lake, small, registry, spans)
    training_set = lake.require(keys.training_set(MODEL), TRAINED)
    assert required_inputs(lake, training_needs(small, small.models[MODEL], TRAINED)) == list(training_set.inputs)


@pytest.mark.usefixtures("no_versions")
def test_alias_is_said_and_a_model_that_is_no_longer_declared_still_counts(
    lake: Lake, small: Catalog, registry: Registry
) -> None:
    register(registry, lake, TRAINED, "retired")
    assert (
        "retired version 1 was trained on it"
        in reasons(retention.plan(lake, small, registry), keys.raw("transactions")).values()
    )
    first, second = register(registry, lake, TRAINED), register(registry, lake, TRAINED)
    with registry.changing(MODEL) as change:
        change.to(Aliases(champion=second, previous=first), None)
    uses = [use.reason for use in retention.version_uses(registry, small, retention._Behind(lake, []))]
    assert uses[:2] == [
        "fraud_detection version 2 (champion) was trained on it",
        "fraud_detection version 1 (previous) was trained on it",
    ]


def test_what_the_newest_training_set_was_made_from_is_kept(lake: Lake, small: Catalog, registry: Registry) -> None:
    """Its version may be registered at any moment."""
    lake.remove(keys.training_set(MODEL), DAYS[-1])
    gone = {keys.partition(key, day) for key, day in doomed(retention.plan(lake, small, registry))}
    assert gone
    assert not gone & {one.name for one in lake.require(keys.training_set(MODEL), TRAINED).inputs}


def test_what_the_next_training_needs_is_kept(lake: Lake, small: Catalog, registry: Registry) -> None:
    lake.remove(keys.training_set(MODEL), DAYS[-1])
    sources = {name: source.model_copy(update={"keep_days": 1}) for name, source in small.sources.items()}
    spans = retention.plan(lake, Catalog(sources, small.views, small.models), registry)
    kept = reasons(spans, keys.raw("transactions"))
    newest = DAYS[-1] + ONE_DAY
    needed = {day for key, day in training_needs(small, small.models[MODEL], newest) if key == keys.raw("transactions")}
    assert needed <= set(kept)
    for on in needed | {newest}:
        behind = {day for key, day in view_needs(small, small.views[VIEW], on) if key == keys.raw("transactions")}
        assert behind <= set(kept)
    assert "the next training of fraud_detection needs it" in kept.values()


def test_registry_that_cannot_be_reached_keeps_everything(
    lake: Lake, small: Catalog, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = retention.plan(lake, small, registry)
    assert doomed(shown)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    down = Registry(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(RegistryError):
        retention.apply(lake, small, down, shown)
    assert lake.days(keys.raw("transactions")) == DAYS


@pytest.mark.usefixtures("no_versions")
def test_version_that_was_registered_after_the_plan_was_shown_counts(
    lake: Lake, small: Catalog, registry: Registry
) -> None:
    shown = retention.plan(lake, small, registry)
    assert (keys.training_set(MODEL), TRAINED) in doomed(shown)
    register(registry, lake, TRAINED)
    gone = retention.apply(lake, small, registry, shown)
    assert (keys.training_set(MODEL), TRAINED) not in gone
    assert lake.manifest(keys.training_set(MODEL), TRAINED) is not None


def test_what_was_not_shown_is_not_removed(lake: Lake, small: Catalog, registry: Registry) -> None:
    shown = [span for span in retention.plan(lake, small, registry) if span.key == keys.raw("fraud_labels")]
    gone = retention.apply(lake, small, registry, shown)
    assert gone == doomed(shown)
    assert lake.days(keys.raw("transactions")) == DAYS


def test_ledger_of_a_removed_day_keeps_all_but_its_quality(lake: Lake, small: Catalog, registry: Registry) -> None:
    key, day = keys.ledger("transactions"), DAYS[0]
    before = lake.require(key, day)
    lake.write_files(keys.quarantine("transactions"), day, {"rows.parquet": b"x"}, [])
    retention.apply(lake, small, registry, retention.plan(lake, small, registry))
    after = lake.require(key, day)
    assert after.tags == {**before.tags, QUALITY: REMOVED}
    assert (after.inputs, lake.read_table(key, [day])) == (before.inputs, ROWS)
    assert lake.manifest(keys.raw("transactions"), day) is None
    assert lake.manifest(keys.quarantine("transactions"), day) is None
    assert not doomed(retention.plan(lake, small, registry)), "once is enough"


@pytest.mark.parametrize("on", ["folder", "s3"])
def test_removed_day_is_not_ingested_again_nor_those_that_were_judged_by_it(
    on: str, s3_port: int, environment: Settings, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the removal dies in between."""
    settings = environment
    if on == "s3":
        settings = environment.model_copy(update={"lake": f"{environment.landing}-lake"})
        ObjectStore.at(settings.model_copy(update={"landing": settings.lake})).ensure_bucket()
    source = catalog.sources["transactions"].model_copy(update={"keep_days": 2, "unique_within_days": 2})
    alone = Catalog({"transactions": source}, {}, {})
    lake, store = Lake.at(settings), ObjectStore.at(settings)
    origins, days = Origins(store), DAYS[:4]
    store.ensure_bucket()
    for number, day in enumerate(days):
        header = "transaction_id,tx_datetime,customer_id,terminal_id,tx_amount"
        store.write(f"transactions/{day}/a.csv", f"{header}\n{number},{day}T08:00:00,1,1,5\n".encode())
        ingest_day(source, day, alone, origins, lake)

    def handled(day: date) -> bool:
        return is_handled(lake, alone, source, day, fingerprint(store.of_day(source, day)))

    assert all(map(handled, days))
    registry = _Empty()
    with monkeypatch.context() as patch:
        patch.setattr(lake, "remove", _remove_and_stop(lake))
        with pytest.raises(KeyboardInterrupt):
            retention.apply(lake, alone, registry, retention.plan(lake, alone, registry))
    assert all(map(handled, days))
    assert doomed(retention.plan(lake, alone, registry)) == {(keys.raw("transactions"), days[1])}
    retention.apply(lake, alone, registry, retention.plan(lake, alone, registry))
    assert lake.days(keys.raw("transactions")) == days[2:]
    assert all(map(handled, days))
    assert [account.written for account in accounts_of(lake, "transactions", days[0])] == [1]

    store.write(f"transactions/{days[0]}/b.csv", b"transaction_id\n")
    assert not handled(days[0]), "what lands anew is judged anew"


def _remove_and_stop(lake: Lake) -> Callable[[str, date], None]:
    """The removal by a process that dies as soon as a raw partition is gone."""
    remove = lake.remove

    def removing(key: str, day: date) -> None:
        remove(key, day)
        if key == keys.raw("transactions"):
            raise KeyboardInterrupt

    return removing


class _Empty(Registry):
    """A registry without models."""

    def __init__(self) -> None:
        pass

    def models(self) -> list[str]:
        return []
