import json
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import BundleError
from ml_platform.core.spec import CandidateSpec
from ml_platform.features.transforms import Transforms
from ml_platform.registry import bundle
from ml_platform.training.manifest import training_manifest
from ml_platform.training.trainers import Context, Labelled, trainer_named
from ml_platform_tests.selection import how_many


@pytest.fixture(scope="session")
def files(catalog: Catalog) -> dict[str, bytes]:
    """A tiny but complete bundle of the fraud model."""
    return make_bundle(catalog)


def make_bundle(
    catalog: Catalog,
    seed: int = 0,
    family: str = "linear",
    params: dict[str, Any] | None = None,
    positives: float = 0.5,
) -> dict[str, bytes]:
    """A bundle fitted on 64 rows of noise, of which this share is positive."""
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
    x, y = transforms.apply(rows), (rng.random(64) < positives).astype(int)
    fit, labelled = trainer_named(family).fit, Labelled(x, y)
    trainer = fit(params or {}, labelled, labelled, Context(spec.task, 2, seed))
    manifest = training_manifest(
        spec,
        CandidateSpec(trainer=family, params=params or {}),
        date(2018, 5, 31),
        [{"name": "a", "version": "b"}],
        "hash",
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


# --- bundles that mean harm -------------------------------------------------------------------------------------------


def naming(files: dict[str, bytes], kind: str) -> dict[str, bytes]:
    manifest = json.loads(files[bundle.MANIFEST])
    return {**files, bundle.MANIFEST: json.dumps({**manifest, "trainer": kind}).encode()}


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that can be imported, and leaves a trace."""
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return "evil_module"


@pytest.mark.parametrize(
    "kind", ["{evil}.X", "ml_platform.__main__.X", "os.path", "mlp.X", "", "ml_platform.cli.__main__.main"]
)
def test_what_a_bundle_names_is_not_imported(files: dict[str, bytes], evil: str, kind: str) -> None:
    before = set(sys.modules)
    with pytest.raises(BundleError, match="is none that this process may load"):
        bundle.unpack(naming(files, kind.format(evil=evil)), "m")
    assert evil not in sys.modules
    assert not {name for name in set(sys.modules) - before if name.endswith("__main__")}


def test_nor_by_a_member_of_an_ensemble_however_deep(files: dict[str, bytes], evil: str) -> None:
    names = {name: content for name, content in files.items() if not name.startswith("model.")}
    members = {
        "model.json": b'{"members": ["ensemble"]}',
        "model.1.model.json": f'{{"members": ["{evil}.X"]}}'.encode(),
    }
    with pytest.raises(BundleError, match="evil_module.X.* is none that this process may load"):
        bundle.unpack(naming({**names, **members}, "ensemble"), "m")
    assert evil not in sys.modules


@pytest.mark.parametrize(
    "name",
    ["run.py", "model.py", "model.x.so", "../model.json", ".hidden", "model.a/b", "sitecustomize.pth", "model.\u0456"],
)
def test_file_that_is_none_of_a_bundle_is_refused_before_it_is_written(files: dict[str, bytes], name: str) -> None:
    with pytest.raises(BundleError, match="which is none of a bundle"):
        bundle.check_files({**{one: len(content) for one, content in files.items()}, name: 1}, "m")


@pytest.mark.parametrize(
    ("name", "size"), [("manifest.json", bundle.MOST_TEXT), ("model.safetensors", bundle.MOST_WEIGHTS)]
)
def test_file_may_not_be_endless(files: dict[str, bytes], name: str, size: int) -> None:
    sizes = {one: len(content) for one, content in files.items()}
    bundle.check_files({**sizes, name: size}, "m")
    with pytest.raises(BundleError, match=f"{name} has .* bytes \\(at most"):
        bundle.check_files({**sizes, name: size + 1}, "m")
    with pytest.raises(BundleError, match="files \\(at most"):
        bundle.check_files({f"model.{number}": 1 for number in range(bundle.MOST_FILES + 1)}, "m")


def test_yaml_that_stands_for_an_endless_text_is_refused(files: dict[str, bytes]) -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"b{n}: &b{n} [*{'a' if n == 0 else f'b{n - 1}'}, *{'a' if n == 0 else f'b{n - 1}'}]\n" for n in range(60)
    )
    with pytest.raises(BundleError, match="has an alias"):
        bundle.unpack({**files, bundle.SPEC: bomb.encode()}, "m")


ODD: list[Any] = [
    None,
    True,
    -1,
    1e308,
    10**30,
    "",
    "os.system",
    "x" * 10_000,
    [],
    {},
    [[[]]],
    {"a": {"b": []}},
    float("nan"),
]
LITTLE = [b"", b"\0", b"{", b"[" * 5_000, b"\xff\xfe", b"NaN", b"1" * 5_000, b"- " * 3_000]


def mutated(files: dict[str, bytes], random: Random) -> dict[str, bytes]:
    """A bundle with a few changes: of bytes, of values within its JSON, of whole files."""
    changed = dict(files)
    for _ in range(random.randint(1, 3)):
        name = random.choice(sorted(changed))
        content = changed[name]
        match random.randint(0, 4):
            case 0:
                changed[name] = random.choice(LITTLE)
            case 1 if content:
                at = random.randrange(len(content))
                changed[name] = content[:at] + bytes([random.randrange(256)]) + content[at + random.randint(0, 9) :]
            case 2:
                changed[f"model.{random.randint(0, 3)}.{name}"] = content
            case 3:
                changed[name] = changed[random.choice(sorted(changed))]
            case _ if name.endswith(".json"):
                changed[name] = (
                    json.dumps(_with_odd_value(json.loads(content), random)).encode() if _is_json(content) else b""
                )
    return changed


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def _with_odd_value(content: Any, random: Random) -> Any:
    if isinstance(content, dict) and content and random.random() < 0.8:
        name = random.choice(sorted(content))
        return {**content, name: _with_odd_value(content[name], random)}
    if isinstance(content, list) and content and random.random() < 0.8:
        at = random.randrange(len(content))
        return [*content[:at], _with_odd_value(content[at], random), *content[at + 1 :]]
    return random.choice(ODD)


def test_no_mutated_bundle_imports_anything_or_does_anything_but_load_or_be_refused(files: dict[str, bytes]) -> None:
    """10,000 of them; a few hundred in `--quick`. An exit or a crash would be the end of this process."""
    bundle.unpack(files, "m")
    before, loaded = set(sys.modules), 0
    for seed in range(how_many(10_000, 100)):
        try:
            bundle.unpack(mutated(files, Random(seed)), "m")
            loaded += 1
        except BundleError:
            pass
    assert loaded > 0, "some changes do no harm"
    imported = {name.split(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names
    assert imported <= {"torch", "xgboost", "lightgbm", "sklearn", "ml_platform"}
