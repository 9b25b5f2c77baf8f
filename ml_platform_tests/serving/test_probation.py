"""A version is tried in a process of its own. What it does there, it does to nobody else."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import BundleError
from ml_platform.registry import bundle
from ml_platform.serving.probation import Probation
from ml_platform_tests.registry.test_bundle import make_bundle

pytestmark = pytest.mark.processes

# A trainer of the project's own, which does to its process what its file says.
PLUGIN = """
import os, sys, time
class Plugin:
    @classmethod
    def fit(cls, *_): return cls()
    def predict(self, x): return x[:, 0] * 0.0
    def save(self): return {}
    @classmethod
    def load(cls, files):
        exec(files["model.txt"].decode())
        return cls()
"""


def of_plugin(catalog: Catalog, code: str) -> dict[str, bytes]:
    files = {name: content for name, content in make_bundle(catalog).items() if not name.startswith("model.")}
    manifest = json.loads(files[bundle.MANIFEST])
    files[bundle.MANIFEST] = json.dumps({**manifest, "trainer": "trial_plugin.Plugin"}).encode()
    return {**files, "model.txt": code.encode()}


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    (tmp_path / "trial_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    return ("trial_plugin.Plugin",)


def test_sound_version_passes(catalog: Catalog) -> None:
    Probation()(make_bundle(catalog), "m/1", ())


def test_sound_version_of_a_declared_trainer_passes_and_of_another_is_refused(
    catalog: Catalog, plugins: tuple[str, ...]
) -> None:
    files = of_plugin(catalog, "")
    Probation()(files, "m/1", plugins)
    with pytest.raises(BundleError, match="is none that this process may load"):
        Probation()(files, "m/1", ())
    assert "trial_plugin" not in sys.modules


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("sys.exit(0)", "SystemExit|ended with status 0"),
        ("os._exit(3)", "ended with status 3"),
        ("import signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended with status -11"),
        ("raise RuntimeError('no good')", "RuntimeError: no good"),
        ("cls.predict = lambda self, x: x[:, 0] / 0.0", "self-test gave"),
        ("cls.kept = bytearray(8 << 30)", "memory|MemoryError"),
        ("deep = lambda again: again(again); deep(deep)", "RecursionError"),
        ('print(\'{"refused": ""}\', flush=True); os._exit(0)', "ended with status 0"),
    ],
    ids=["exit", "hard exit", "crash", "error", "no score", "memory", "depth", "a lie on standard output"],
)
def test_whatever_a_version_does_refuses_it_with_the_reason(
    catalog: Catalog, plugins: tuple[str, ...], code: str, reason: str
) -> None:
    with pytest.raises(BundleError, match=reason):
        Probation()(of_plugin(catalog, code), "m/1", plugins)


def test_endless_loop_ends_with_the_trial(catalog: Catalog, plugins: tuple[str, ...]) -> None:
    with pytest.raises(BundleError, match="took longer than 6 s"):
        Probation(seconds=6)(of_plugin(catalog, "while True: pass"), "m/1", plugins)


def test_trial_knows_no_credentials_and_works_in_an_empty_folder(
    catalog: Catalog, plugins: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "to be kept")
    monkeypatch.setenv("ML_PLATFORM_API_KEY", "to be kept")
    code = "raise RuntimeError(f\"{'to be kept' in str(os.environ)} {os.listdir('.')}\")"
    with pytest.raises(BundleError, match=r"False \[\]"):
        Probation()(of_plugin(catalog, code), "m/1", plugins)


def test_weights_that_are_none_are_refused(catalog: Catalog) -> None:
    files = make_bundle(catalog)
    noise = np.random.default_rng(0).bytes(len(files["model.safetensors"]))
    with pytest.raises(BundleError, match="cannot be loaded"):
        Probation()({**files, "model.safetensors": noise}, "m/1", ())
