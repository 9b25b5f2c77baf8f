"""The images as far as they can be judged without an engine: what the small one has is what the model server imports."""

import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ml_platform import definitions

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
# The server, and what it imports when the first model and the first request come, where only some packages can be imported.
SERVED = """
import sys
refused = set(sys.argv[1].split(","))

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"not in the image: {name}", name=name)

sys.meta_path.insert(0, Refuse())
import ml_platform.serving.main
import ml_platform.resources.registry, ml_platform.resources.online_store, ml_platform.resources.prediction_log
import ml_platform.training.trainers.mlp, ml_platform.training.trainers.xgboost, ml_platform.training.trainers.lightgbm
import ml_platform.resources.feast_store
import ml_platform.serving.bulk
import mlflow.artifacts, boto3, redis, psycopg, httptools, uvloop
"""


def listed() -> list[str]:
    lines = (K8S / "images" / "serving.txt").read_text().splitlines()
    # The same modules as those of the package that is installed here.
    return [{"xgboost-cpu": "xgboost"}.get(line, line) for line in lines if line and not line.startswith("#")]


def closure(packages: list[str]) -> set[str]:
    """The packages and all that they require here."""
    found: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(package) for package in packages]
    while waiting:
        wanted = waiting.pop()
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, extras) in found:
            continue
        found.add((name, extras))
        for one in map(Requirement, distribution(name).requires or []):
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras or {""}):
                waiting.append(one)
    return {name for name, _ in found}


@pytest.mark.processes
def test_server_starts_with_what_the_serving_image_has() -> None:
    installed = closure(listed())
    absent = [
        top
        for top, owners in packages_distributions().items()
        if not {canonicalize_name(one) for one in owners} & {*installed, "ml-platform"}
    ]
    assert {"dagster", "duckdb"} <= set(absent)
    done = subprocess.run([sys.executable, "-c", SERVED, ",".join(absent)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_serving_image_has_no_orchestrator() -> None:
    assert not [name for name in closure(listed()) if name.startswith("dagster")]


@pytest.mark.processes
def test_installed_package_has_its_definitions(tmp_path: Path) -> None:
    """As in an image, where nothing of the repository lies around it."""
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(ROOT / "ml_platform", source / "ml_platform", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        site,
        source,
    ]
    subprocess.run(pip, check=True)
    program = "import ml_platform.definitions as it; print(it.__file__, len(it.defs.resolve_all_asset_keys()))"
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(site)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    place, assets = done.stdout.split()
    assert Path(place).is_relative_to(site)
    assert int(assets) == len(definitions.defs.resolve_all_asset_keys())


def test_every_file_that_the_images_copy_is_in_the_build_context() -> None:
    dockerfile = (K8S / "images" / "Dockerfile").read_text()
    allowed = {line[1:] for line in (K8S.parent / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        for source in sources.split():
            assert (K8S.parent / source).exists(), source
            assert any(source == one or source.startswith(f"{one}/") for one in allowed), source
