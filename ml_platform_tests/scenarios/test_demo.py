"""The README's first command, as a user runs it: the whole stack, its daemon and its sensors."""

import os
import subprocess
from pathlib import Path

import pytest

from ml_platform_tests.conftest import BIN, free_port

ROOT = Path(__file__).parents[2]


@pytest.mark.stack
def test_demo_comes_true_on_an_empty_workspace(tmp_path: Path) -> None:
    ports = {f"ML_PLATFORM_{name}_PORT": str(free_port()) for name in ("S3", "MLFLOW", "DAGSTER", "MODEL_SERVER")}
    environment = {**os.environ, **ports, "ML_PLATFORM_HOME": str(tmp_path / "home"), "COLUMNS": "200"}
    done = subprocess.run([BIN / "ml-platform", "demo"], cwd=ROOT, env=environment, capture_output=True, text=True)
    log = tmp_path / "home" / "stack.log"
    assert done.returncode == 0, (
        done.stdout[-4000:] + done.stderr[-2000:] + (log.read_text()[-4000:] if log.exists() else "")
    )
    assert "all of it is true" in done.stdout
    assert "60 partitions" in done.stdout
