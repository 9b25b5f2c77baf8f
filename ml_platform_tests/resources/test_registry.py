"""The registry against a real MLflow server."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import mlflow
import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import BundleError, RegistryError
from ml_platform.core.spec import RolloutSpec
from ml_platform.evaluation.gates import GateResult
from ml_platform.registry import bundle
from ml_platform.registry.card import lineage_tags, version_card
from ml_platform.registry.versions import Aliases
from ml_platform.resources.change import RECORD
from ml_platform.resources.registry import Registry
from ml_platform.rollout.standing import Standing
from ml_platform.rollout.state import Event, Rollout
from ml_platform.rollout.traffic import Traffic
from ml_platform_tests.processes import free_port
from ml_platform_tests.registry.test_bundle import make_bundle

NOW, SECOND = datetime(2026, 1, 1, 12, tzinfo=UTC), timedelta(seconds=1)


@pytest.fixture
def registry(mlflow_url: str) -> Registry:
    return Registry(mlflow_url)


@pytest.fixture
def model() -> str:
    return f"model_{uuid4().hex[:8]}"


def run_id(registry: Registry) -> str:
    experiment = registry.client.get_experiment_by_name("Default")
    assert experiment is not None
    return registry.client.create_run(experiment.experiment_id).info.run_id


def test_registered_bundle_comes_back_byte_for_byte(registry: Registry, model: str, catalog: Catalog) -> None:
    files = make_bundle(catalog)
    version = registry.register(model, files, run_id(registry), {"training_date": "2018-05-31"})
    assert (version.number, version.digest, version.training_date) == ("1", bundle.digest_of(files), "2018-05-31")
    assert registry.download(version) == files


def test_same_bundle_is_the_same_version(registry: Registry, model: str, catalog: Catalog) -> None:
    first = registry.register(model, make_bundle(catalog), run_id(registry), {})
    assert registry.register(model, make_bundle(catalog), run_id(registry), {}) == first
    second = registry.register(model, make_bundle(catalog, seed=1), run_id(registry), {})
    assert [version.number for version in registry.versions(model)] == ["2", "1"]
    assert second.number == "2"


def test_version_is_named_by_alias_or_number_and_by_nothing_else(
    registry: Registry, model: str, catalog: Catalog
) -> None:
    version = registry.register(model, make_bundle(catalog), run_id(registry), {})
    assert registry.named(model, "candidate") == registry.named(model, "1") == version
    for wanted, said in (("", "champion"), ("previous", "previous"), ("2", "2"), ("promoted", "promoted")):
        with pytest.raises(RegistryError, match=f"{model}: has no {said}"):
            registry.named(model, wanted)
    with pytest.raises(RegistryError, match="nobody: has no 1"):
        registry.named("nobody", "1")


def test_registered_version_is_the_candidate_with_card_lineage_and_plots(
    registry: Registry, model: str, catalog: Catalog
) -> None:
    files, run = make_bundle(catalog), run_id(registry)
    plots = {"curves.png": b"\x89PNG plot"}
    gates = [GateResult("roc_auc_is_above_minimum", True, "roc_auc is 0.9; at least 0.8 wanted")]
    card = version_card(files, gates, {name: registry.plot_link(run, name) for name in plots})
    version = registry.register(model, files, run, lineage_tags(files), card, plots)
    assert registry.aliases(model) == Aliases(candidate=version)
    told = registry.client.get_model_version(model, version.number)
    assert told.description is not None
    assert "# fraud_detection" in told.description
    assert "| roc_auc_is_above_minimum | passed | roc_auc is 0.9; at least 0.8 wanted |" in told.description
    (link,) = re.findall(r"!\[curves.png\]\((.*)\)", told.description)
    assert httpx.get(f"{registry.tracking_uri}{link}").content == plots["curves.png"]
    assert registry.tags(version)["trainer"] == "linear"
    assert registry.tags(version)["input_partitions"] == "1"


def test_nonsense_about_one_model_keeps_no_other_from_being_read(
    registry: Registry, model: str, catalog: Catalog
) -> None:
    bad = f"{model}_bad"
    for name, seed in ((model, 0), (bad, 1)):
        version = registry.register(name, make_bundle(catalog, seed=seed), run_id(registry), {})
        with registry.changing(name) as change:
            change.to(Aliases(champion=version), None)
    for nonsense in (
        "{",
        "[]",
        '{"moving": 3, "rollout": null}',
        '{"rollout": {"version": "1"}}',
        '{"moving": {"champion": 3}}',
    ):
        registry.client.set_registered_model_tag(bad, RECORD, nonsense)
        unreadable: dict[str, RegistryError] = {}
        assert model in registry.traffic(unreadable)
        assert "cannot be read" in str(unreadable[bad])
        with pytest.raises(RegistryError, match=f"{bad}/rollout: its tag"):
            registry.rollouts()
    registry.client.delete_registered_model(bad)


def test_changes_read_back_and_can_be_undone(registry: Registry, model: str, catalog: Catalog) -> None:
    assert registry.standing(model) == Standing()
    one = registry.register(model, make_bundle(catalog), run_id(registry), {})
    two = registry.register(model, make_bundle(catalog, seed=1), run_id(registry), {})
    rollout = Rollout.begin(two, Aliases(champion=one), RolloutSpec(strategy="ramp"), NOW, "somebody")
    with registry.changing(model) as change:
        change.to(Aliases(champion=one, candidate=two), rollout)
    assert registry.standing(model) == Standing(Aliases(champion=one, candidate=two), rollout, two)
    assert registry.rollouts()[model] == rollout
    assert registry.traffic()[model] == Traffic(one, two, 0.1, salt=f"{model}/2")
    with registry.changing(model) as change:
        change.to(change.standing.aliases.promoted(two), None)
    assert registry.standing(model) == Standing(Aliases(champion=two, previous=one))
    assert registry.traffic()[model] == Traffic(two)
    assert registry.client.get_registered_model(model).aliases == {"champion": "2", "previous": "1"}
    with registry.changing(model) as change:
        change.to(change.standing.aliases.rolled_back(), None)
    assert registry.aliases(model) == Aliases(champion=one)
    assert model in registry.models()
    assert not [name for name in registry.models() if name.startswith(f"{model}.")]


def test_champion_that_somebody_set_in_mlflow_is_one_but_answers_only_if_that_is_allowed(
    registry: Registry, model: str, catalog: Catalog
) -> None:
    one = registry.register(model, make_bundle(catalog), run_id(registry), {})
    two = registry.register(model, make_bundle(catalog, 2), run_id(registry), {})
    registry.client.set_registered_model_alias(model, "champion", "1")
    assert registry.aliases(model).champion == one
    unreadable: dict[str, RegistryError] = {}
    assert model not in registry.traffic(unreadable)
    assert "moved its alias champion to version 1 past rollouts and gates" in str(unreadable[model])
    assert registry.set_by_hand()[model] == "1"
    assert Registry(registry.tracking_uri, by_hand=True).traffic()[model] == Traffic(one)

    # Another change of the model does not vouch for it; one that makes a version champion does, and so does going back.
    with registry.changing(model) as change:
        change.to(change.standing.aliases.nominated(two), None)
    assert registry.set_by_hand()[model] == "1"
    with registry.changing(model) as change:
        change.to(change.standing.aliases.promoted(two), None)
    assert registry.traffic()[model] == Traffic(two)
    with registry.changing(model) as change:
        change.to(change.standing.aliases.rolled_back(), None)
    assert registry.traffic()[model] == Traffic(one)
    registry.client.set_registered_model_alias(model, "champion", "2")
    assert registry.set_by_hand()[model] == "2"


def test_events_are_kept_with_the_version(registry: Registry, model: str, catalog: Catalog) -> None:
    one = registry.register(model, make_bundle(catalog), run_id(registry), {"lineage": "kept"})
    events = [
        Event(NOW, "promoted", "forced: the other one is broken", "eve"),
        Event(NOW + SECOND, "proven", "", "eve"),
    ]
    for event in reversed(events):
        registry.note(one, event)
    assert registry.events(one) == events
    assert registry.tags(one)["lineage"] == "kept"


# --- killed, and at the same time -------------------------------------------------------------------------------------

WRITER = """
import sys
from datetime import UTC, datetime
from ml_platform.resources.change import RECORD
from ml_platform.resources.registry import Registry
url, model, times = sys.argv[1:]
registry = Registry(url)
for _ in range(int(times)):
    with registry.changing(model) as change:
        rollout = change.standing.rollout
        number = "2" if change.standing.aliases.champion.number == "1" else "1"
        after = rollout.moved("running", rollout.last)
        change.to(change.standing.aliases.promoted(registry.find(model, number)), after)
        print(after.number, number, flush=True)
"""


def writer(registry: Registry, model: str, times: int) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER, registry.tracking_uri, model, str(times)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def two_versions(mlflow_url: str, model: str, catalog: Catalog) -> Registry:
    """A registry with a model that has a champion, another version and a rollout whose events are counted."""
    registry = Registry(mlflow_url)
    one, two = (registry.register(model, make_bundle(catalog, seed=n), run_id(registry), {}) for n in (0, 1))
    with registry.changing(model) as change:
        rollout = Rollout.begin(two, Aliases(champion=one), RolloutSpec(strategy="ramp"), NOW, "somebody")
        change.to(Aliases(champion=one), rollout)
    return registry


def test_writers_at_the_same_time_take_turns(two_versions: Registry, model: str) -> None:
    writers = [writer(two_versions, model, 4) for _ in range(2)]
    told = [one.communicate(timeout=600) for one in writers]
    said = sorted(int(line.split()[0]) for output, _ in told for line in output.splitlines())
    assert said == list(range(1, 9)), [errors[-2_000:] for _, errors in told]
    rollout = two_versions.standing(model).rollout
    assert rollout is not None
    assert rollout.number == 8


KILLED = """
import itertools, json, os, signal, sys, time
from ml_platform.resources import registry as room
from ml_platform.resources.change import RECORD
from ml_platform.resources.registry import Registry
url, model, points = sys.argv[1:]

def die_after(writes):
    count = itertools.count(1)
    def counted(call):
        def write(*given, **named):
            call(*given, **named)
            if next(count) > writes:
                os.kill(os.getpid(), signal.SIGKILL)
        return write
    return counted

for point in range(int(points)):
    before = Registry(url).standing(model)
    number = "2" if before.aliases.champion.number == "1" else "1"
    pid = os.fork()
    if pid == 0:
        registry, counted = Registry(url), die_after(point)
        for name in ("create_registered_model", "set_registered_model_tag", "set_registered_model_alias", "delete_registered_model"):
            setattr(registry.client, name, counted(getattr(registry.client, name)))
        with registry.changing(model) as change:
            after = before.rollout.moved("running", before.rollout.last)
            change.to(before.aliases.promoted(registry.find(model, number)), after)
        os._exit(0)
    killed = os.waitpid(pid, 0)[1] == signal.SIGKILL
    # Nobody has completed it yet.
    seen, raw = Registry(url).standing(model), dict(Registry(url).client.get_registered_model(model).aliases)
    later = Registry(url, clock=lambda: time.time() + 1_000)  # when the lease of the dead is over
    with later.changing(model) as change:
        assert change.standing == seen
    completed = dict(later.client.get_registered_model(model).aliases)
    print(json.dumps([killed, before.aliases.champion.number, seen.aliases.champion.number, seen.aliases.previous.number,
        seen.rollout.number - before.rollout.number, raw, completed]), flush=True)
"""


def test_killed_after_each_write_leaves_one_champion_and_a_whole_change(two_versions: Registry, model: str) -> None:
    """A process is killed after taking the lease, after each write of the change, and after giving the lease back."""
    with two_versions.changing(model) as change:
        two = two_versions.find(model, "2")
        assert two
        change.to(change.standing.aliases.promoted(two), change.standing.rollout)
    command = [sys.executable, "-c", KILLED, two_versions.tracking_uri, model, "6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == 6, done.stderr[-2_000:]
    mixed = 0
    for point, (killed, before, champion, previous, moved, raw, completed) in enumerate(told):
        assert killed
        assert (champion != before) == (moved == 1) == (point > 0), "the tag is the change"
        assert {champion, previous} == {"1", "2"}
        assert raw["champion"] in ("1", "2"), "MLflow itself always has one"
        mixed += raw["champion"] == raw["previous"]
        assert completed == {"champion": champion, "previous": previous}
    assert mixed == 1, "one of the points lies between the two aliases"


def test_artifact_that_was_changed_behind_the_registry_is_refused(
    registry: Registry, model: str, catalog: Catalog
) -> None:
    run = run_id(registry)
    version = registry.register(model, make_bundle(catalog), run, {})
    mlflow.set_tracking_uri(registry.tracking_uri)
    registry.client.log_text(run, '{"average_precision": 0.99}', "bundle/metrics.json")
    with pytest.raises(BundleError, match="its files have digest"):
        registry.download(version)


def test_registry_that_is_down_is_an_error_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError, match="start it .make dev., or set MLFLOW_TRACKING_URI"):
        Registry(f"http://127.0.0.1:{free_port()}").aliases("m")
