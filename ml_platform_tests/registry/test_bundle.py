import json
from collections.abc import Callable
from datetime import date

import numpy as np
import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import BundleError
from ml_platform.core.spec import CandidateSpec
from ml_platform.features.transforms import Transforms
from ml_platform.registry import bundle
from ml_platform.training.manifest import training_manifest
from ml_platform.training.trainers import Context, Labelled
from ml_platform.training.trainers.linear import Linear


@pytest.fixture(scope="session")
def files(catalog: Catalog) -> dict[str, bytes]:
    """A tiny but complete bundle of the fraud model."""
    return make_bundle(catalog)


def make_bundle(catalog: Catalog, seed: int = 0) -> dict[str, bytes]:
    spec = catalog.models["fraud_detection"]
    views = catalog.snapshot_views(spec)
    expressions = {
        name: f.expression or "" for view in catalog.request_views(spec) for name, f in view.features.items()
    }
    columns = tuple(name for view in views for name in view.features)
    rng = np.random.default_rng(seed)
    rows: dict[str, np.ndarray] = {name: rng.uniform(0, 10, 64) for name in (*columns, "tx_amount")}
    rows["tx_datetime"] = np.datetime64("2018-04-01", "us") + rng.integers(0, 10**12, 64).astype("timedelta64[us]")
    transforms = Transforms.fit(columns, expressions, rows)
    x, y = transforms.apply(rows), rng.integers(0, 2, 64)
    trainer = Linear.fit({}, Labelled(x, y), Labelled(x, y), Context(spec.task, 2, seed))
    manifest = training_manifest(
        spec, CandidateSpec(trainer="linear"), date(2018, 5, 31), [{"name": "a", "version": "b"}], "hash"
    )
    schema = bundle.InputSchema.of(transforms, catalog.sources["transactions"], views)
    return bundle.pack(spec, trainer, transforms, schema, {"average_precision": 0.5}, manifest)


def test_bundle_has_every_file_of_its_contract(files: dict[str, bytes]) -> None:
    assert set(files) == {"model.safetensors", "model.json", bundle.FILES, *bundle.REQUIRED}


def test_unpacked_bundle_scores_like_the_fitted_model(files: dict[str, bytes]) -> None:
    loaded = bundle.unpack(files, "m")
    row = {name: np.array([default]) for name, default in loaded.schema.features.items()}
    row |= {"tx_amount": np.array([5.0]), "tx_datetime": np.array(["2018-04-01"], dtype="datetime64[us]")}
    assert 0 < loaded.score(row)[0] < 1
    assert loaded.schema.request == {"tx_amount": "float64", "tx_datetime": "timestamp"}
    assert loaded.schema.entities == ["customer_id", "terminal_id"]


def test_same_inputs_give_the_same_digest(catalog: Catalog, files: dict[str, bytes]) -> None:
    assert bundle.digest_of(make_bundle(catalog)) == bundle.digest_of(files)
    assert bundle.digest_of(make_bundle(catalog, seed=1)) != bundle.digest_of(files)


def test_manifest_names_inputs_code_seed_and_packages(files: dict[str, bytes]) -> None:
    manifest = json.loads(files[bundle.MANIFEST])
    assert manifest["inputs"] == [{"name": "a", "version": "b"}]
    assert {"spec_digest", "code_version", "seed", "packages", "training_set"} <= set(manifest)


@pytest.mark.parametrize("name", bundle.REQUIRED)
def test_missing_file_is_refused_by_name(files: dict[str, bytes], name: str) -> None:
    with pytest.raises(BundleError, match=f"files are missing: {name}"):
        bundle.unpack({key: content for key, content in files.items() if key != name}, "m")


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "transforms.json", "schema.json", "manifest.json"])
def test_truncated_file_is_refused(files: dict[str, bytes], name: str) -> None:
    with pytest.raises(BundleError, match="cannot be loaded"):
        bundle.unpack({**files, name: files[name][: len(files[name]) // 2]}, "m")


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize("name", ["model.safetensors", "metrics.json", "MODEL_CARD.md", "files.json"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: cut(content), r"has [\d,]+ bytes, not"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "has other content"),
        (None, "is missing"),
    ],
    ids=["truncated", "tampered", "missing"],
)
def test_changed_bundle_is_refused_and_the_file_is_named(
    files: dict[str, bytes], name: str, change: Callable[[bytes], bytes] | None, words: str
) -> None:
    changed = {key: content for key, content in files.items() if key != name}
    if change:
        changed[name] = change(files[name])
        words = "cannot be read" if name == bundle.FILES else words
    with pytest.raises(BundleError, match=f"its files have digest .*: {name} {words}"):
        bundle.verify(changed, bundle.digest_of(files), "m")


def test_extra_file_is_refused_by_name(files: dict[str, bytes]) -> None:
    with pytest.raises(BundleError, match="run.py does not belong to it"):
        bundle.verify({**files, "run.py": b""}, bundle.digest_of(files), "m")


def test_another_bundle_that_is_whole_is_refused(catalog: Catalog, files: dict[str, bytes]) -> None:
    with pytest.raises(BundleError, match="another bundle"):
        bundle.verify(make_bundle(catalog, seed=1), bundle.digest_of(files), "m")


def test_bundle_that_cannot_be_loaded_says_which_file_was_changed(files: dict[str, bytes]) -> None:
    with pytest.raises(BundleError, match=r"cannot be loaded: .*; model.safetensors has [\d,]+ bytes, not"):
        bundle.unpack({**files, "model.safetensors": cut(files["model.safetensors"])}, "m")
    older = {name: content for name, content in files.items() if name != bundle.FILES}
    assert bundle.unpack(older, "m").metrics == {"average_precision": 0.5}
