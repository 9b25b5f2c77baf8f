"""The images `dagster` and `training` by what they do: the main job, a step of every asset, and a fit of every trainer."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_platform_tests.images.conftest import ROOT

FITS = """
import numpy as np
from ml_platform.features.transforms import Feature
from ml_platform.training.trainers import TRAINERS, Context, Labelled, load_fitted, trainer_named

rng = np.random.default_rng(1)
x = rng.normal(size=(400, 4)).astype(np.float32)
rows = Labelled(x, (x[:, 0] > 0).astype(np.int64))
features = (*(Feature(f"a_{n}", vector="a") for n in (1, 2, 3)), Feature("b"))
small = {"hidden": [8], "epochs": 2}
params = {"mlp": small, "sequence": {**small, "steps": ["a"], "width": 8}, "ensemble": {"members": [{"trainer": "mlp", "params": small}]}}
for name in TRAINERS:
    fitted = trainer_named(name).fit(params.get(name, {}), rows, rows, Context("binary_classification", 2, 1, features=features))
    assert np.array_equal(load_fitted(name, fitted.save()).predict(x), fitted.predict(x)), name
    print(name)
"""


@pytest.fixture(scope="module")
def python(install: Callable[[str], Path]) -> Path:
    return install("dagster")


def run(python: Path, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", "PYTHONPATH": ""}
    environment |= {"ML_PLATFORM_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    command = [str(python), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_every_trainer_fits_and_is_loaded_again(python: Path, tmp_path: Path) -> None:
    assert "ensemble" in run(python, tmp_path, "-W", "ignore", "-c", FITS)


def test_main_job_goes_through_from_landed_files_to_a_model_that_answers(python: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "workspace.yaml", tmp_path)
    run(python, tmp_path, "-m", "ml_platform.cli", "demo", "--days", "45")
