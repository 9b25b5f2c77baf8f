"""Time and memory to load the code location with many models, in a fresh process."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figure import Figure

ROOT = Path(__file__).parent.parent
MEASURE = """
import json, time
from benchmarks.figure import peak_megabytes
began = time.perf_counter()
from ml_platform.definitions import defs
assets = len(defs.resolve_asset_graph().get_all_asset_keys())
print(json.dumps({"seconds": time.perf_counter() - began, "assets": assets,
                  "megabytes": peak_megabytes()}))
"""


def load_definitions() -> Iterator[Figure]:
    for models, seconds, megabytes in ((10, None, None), (100, None, None), (1_000, 15.0, 450.0)):
        found = measure(models)
        yield Figure(f"load_definitions.models_{models}", found["seconds"], "s", seconds)
        yield Figure(f"load_definitions.memory_{models}", found["megabytes"], "MB", megabytes)
        yield Figure(f"load_definitions.assets_{models}", found["assets"], "assets")


def measure(models: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        shutil.copytree(ROOT / "ml_platform", project / "ml_platform", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "benchmarks", project / "benchmarks")
        shutil.copy(ROOT / "pyproject.toml", project)
        defs = project / "ml_platform" / "examples" / "fraud" / "defs" / "models"
        template = (defs / "fraud_detection" / "defs.yaml").read_text()
        for number in range(1, models):
            path = defs / f"model_{number}" / "defs.yaml"
            path.parent.mkdir()
            path.write_text(template.replace("name: fraud_detection", f"name: model_{number}"))
        environment = {**os.environ, "PYTHONPATH": folder}
        done = None
        for _ in range(2):  # the first run compiles
            done = subprocess.run(
                [sys.executable, "-c", MEASURE], cwd=folder, env=environment, capture_output=True, text=True, check=True
            )
        assert done is not None
        return json.loads(done.stdout.splitlines()[-1])
