"""Continuous integration and delivery: the workflow files are valid, are safe, and run targets that there are."""

import re
import subprocess
from pathlib import Path

import pytest

from ml_platform_tests.processes import BIN

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))


def test_workflows_are_what_the_service_expects() -> None:
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_workflows_have_no_known_weakness() -> None:
    command = [str(BIN / "zizmor"), "--offline", "--no-progress", "--quiet", *map(str, WORKFLOWS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_runs_what_people_run(workflow: Path) -> None:
    commands = re.findall(r"(?:- |^ +)run: (.+)", workflow.read_text())
    targets = (ROOT / "Makefile").read_text()
    for target in (command.split()[1] for command in commands if command.startswith("make ")):
        rule = re.sub(r"-\$\{\w+\}", "-%", target)
        assert re.search(rf"^{re.escape(rule)}:", targets, re.MULTILINE), target


def test_deployment_puts_the_images_of_the_release_onto_every_workload() -> None:
    rendered = subprocess.run(
        [str(ROOT / "k8s" / "deploy"), "prod", "registry.example/team", "abc123"],
        env={"DRY_RUN": "1", "PATH": "/usr/bin:/bin:/usr/local/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "kubectl: command not found" in rendered.stderr:
        pytest.skip("no kubectl on this machine, which renders the overlays")
    images = set(re.findall(r"(?:image|value): (\S+/(?:dagster|serving)(?::\S+)?)$", rendered.stdout, re.MULTILINE))
    assert images == {"registry.example/team/dagster:abc123", "registry.example/team/serving:abc123"}
