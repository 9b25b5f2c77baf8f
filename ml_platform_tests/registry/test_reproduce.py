"""What a manifest names, against what there is now; and what is fitted again, against what was registered."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.core.spec import CandidateSpec
from ml_platform.registry import bundle
from ml_platform.registry.reproduce import (
    Change,
    changed_environment,
    changed_inputs,
    changed_views,
    differences,
    refit,
)
from ml_platform.training.manifest import describe, environment
from ml_platform_tests.registry.test_candidate import VIEW, stub, table, trained

INPUTS = [{"name": f"transactions/raw [2018-05-0{day}]", "version": f"hash{day}", "size": 1} for day in (1, 2, 3)]


def test_changed_and_missing_inputs_are_named() -> None:
    present = {("transactions/raw", date(2018, 5, 1)): "hash1", ("transactions/raw", date(2018, 5, 2)): "other"}
    assert changed_inputs(INPUTS, lambda key, day: present.get((key, day))) == [
        Change("transactions/raw [2018-05-02]", "hash2", "other"),
        Change("transactions/raw [2018-05-03]", "hash3", "missing"),
    ]


def test_packages_code_machine_and_image_that_differ_are_named() -> None:
    now = environment()
    assert changed_environment(now, now) == []
    then = {**now, "packages": {**now["packages"], "torch": "1.0", "gone": "2"}, "image": "sha256:ab"}
    then["machine"] = {**now["machine"], "threads": {**now["machine"]["threads"], "blas": 99}}
    found = {change.what: (change.was, change.now) for change in changed_environment(then, now)}
    assert set(found) == {"packages.torch", "packages.gone", "image", "machine.threads.blas"}
    assert found["packages.gone"] == ("2", "missing")
    assert found["image"] == ("sha256:ab", "missing")
    assert found["packages.torch"] == ("1.0", now["packages"]["torch"])


def test_manifest_of_before_there_was_a_machine_in_it_differs_in_every_part_of_it() -> None:
    now = environment()
    older = {name: value for name, value in now.items() if name != "machine"}
    assert {change.what.split(".")[0] for change in changed_environment(older, now)} == {"machine"}


def test_feature_views_that_are_declared_otherwise_are_named(catalog: Catalog) -> None:
    spec = catalog.models["fraud_detection"]
    described = describe(spec, 7, date(2018, 5, 31), catalog.daily_views(spec), table("binary_classification"))
    assert changed_views(described, catalog.views) == []
    view = catalog.views["terminal_risk"]
    narrower = view.model_copy(update={"features": dict(list(view.features.items())[1:])})
    (changed,) = changed_views(described, {**catalog.views, "terminal_risk": narrower})
    assert changed.what == "features/terminal_risk"
    gone = {name: view for name, view in catalog.views.items() if name != "terminal_risk"}
    assert changed_views(described, gone)[0].missing


@dataclass(frozen=True)
class Trained:
    files: Mapping[str, bytes]
    rebuilt: Mapping[str, bytes]


def again(catalog: Catalog, *candidates: CandidateSpec, seed: int | None = None, **training: Any) -> Trained:
    """A bundle, and what is rebuilt from it alone and its training set."""
    files = trained(catalog, *candidates, **training).files
    if seed is not None:
        manifest = {**json.loads(files[bundle.MANIFEST]), "params": {"epochs": 1, "hidden": [4], "lr": 0.5}}
        files = {**files, bundle.MANIFEST: json.dumps(manifest).encode()}
    original = bundle.unpack(files, "m")
    rows = catalog.sources["transactions"]
    return Trained(files, refit(original, rows, [], [VIEW], table("binary_classification")))


@pytest.mark.parametrize("trainer", ["mlp", "linear", "forest", "xgboost", "lightgbm"])
def test_selected_candidate_is_rebuilt_bit_for_bit(catalog: Catalog, trainer: str) -> None:
    params = {"epochs": 2, "hidden": [8]} if trainer == "mlp" else {}
    made = again(catalog, stub(fails="no"), CandidateSpec(trainer=trainer, params=params))
    assert json.loads(made.files[bundle.MANIFEST])["trainer"] == trainer
    assert differences(made.files, made.rebuilt) == {}


def test_weights_that_differ_are_told_with_their_distance(catalog: Catalog) -> None:
    made = again(catalog, CandidateSpec(trainer="mlp", params={"epochs": 1, "hidden": [4]}), seed=1)
    found = differences(made.files, made.rebuilt)
    assert "tensors differ, by" in found["model.safetensors"]
    assert "average_precision was" in found["metrics.json"] or "log_loss was" in found["metrics.json"]


def test_other_shapes_other_files_and_other_texts_are_told(catalog: Catalog) -> None:
    small, large = (
        trained(catalog, CandidateSpec(trainer="mlp", params={"epochs": 1, "hidden": [width]})).files
        for width in (4, 8)
    )
    assert "tensors of other shapes: 0.bias" in differences(small, large)["model.safetensors"]
    assert differences(small, {**small, "more": b""}) == {"more": "only in the rebuilt bundle"}
    assert "digest was" in differences(small, {**small, bundle.TRANSFORMS: b"{}"})[bundle.TRANSFORMS]
    assert differences(small, {**small, bundle.MODEL_CARD: b"other words"}) == {}


def test_manifest_describes_the_training_set(catalog: Catalog) -> None:
    spec = catalog.models["fraud_detection"]
    described = describe(spec, 7, date(2018, 5, 31), catalog.daily_views(spec), table("binary_classification"))
    assert described["rows"] == {"train": 300, "validation": 100}
    assert described["windows"] == {"train": ["2018-04-12", "2018-05-09"], "validation": ["2018-05-17", "2018-05-23"]}
    assert (described["embargo_days"], described["label_delay_days"]) == (7, 7)
    assert set(described["views"]) == {"customer_activity", "terminal_risk"}
    assert described["views"]["terminal_risk"]["features"] == list(catalog.views["terminal_risk"].features)
