"""Environments as the images have them, each made anew. That takes minutes: `make test-images` asks for it, `make test` does not."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if not os.environ.get("ML_PLATFORM_TEST_IMAGES"):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def install(processes: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make the environment of an image; returns its Python."""
    folder = tmp_path_factory.mktemp("images")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        folder,
    ]
    subprocess.run([*build, ROOT], check=True)
    (wheel,) = folder.glob("*.whl")

    def installed(image: str) -> Path:
        place = folder / image
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        environment = {**os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": ""}
        for command in (["large"], [image, wheel]):
            subprocess.run([ROOT / "k8s" / "images" / "install", *command], check=True, env=environment)
        size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file() and not file.is_symlink())
        print(f"{image}: {size / 1e6:,.0f} MB")
        return place / "bin" / "python"

    return installed
