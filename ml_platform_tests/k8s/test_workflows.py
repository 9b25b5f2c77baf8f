"""Continuous integration and delivery: the workflow files are valid, are safe, and run targets that there are."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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


def steps(workflow: Path) -> list[str]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_runs_what_people_run(workflow: Path) -> None:
    """Targets of the Makefile, and scripts of the repository; and the kubeconfig that a runner has not."""
    targets = (ROOT / "Makefile").read_text()
    for program, *arguments in (command.split() for command in steps(workflow)):
        if program == "install" and "KUBECONFIG_CONTENT" in arguments[-1]:
            continue
        if program != "make":
            assert os.access(ROOT / program, os.X_OK), program
        if arguments:
            rule = re.sub(r"-\$\{\w+\}", "-%", arguments[0])
            assert re.search(rf"^{re.escape(rule)}:", targets, re.MULTILINE), rule


WORKFLOW = """
jobs:
  first:
    strategy: {matrix: {image: [a, b]}}
    steps:
      - uses: somebody/checkout@1
      - run: test ! -e untracked && test -e tracked && echo "$IMAGE $TOKEN" >> $OUT
        env: {IMAGE: "${{ matrix.image }}", TOKEN: "${{ secrets.TOKEN }}"}
      - run: echo "not $UNKNOWN" >> $OUT
        env: {UNKNOWN: "${{ secrets.UNKNOWN }}"}
  second:
    steps:
      - run: exit 3
      - run: echo "after a failure" >> $OUT
"""


def test_rehearsal_runs_each_job_in_a_clean_clone_until_a_step_fails(tmp_path: Path) -> None:
    place = tmp_path / ".github" / "workflows"
    place.mkdir(parents=True)
    (place / "it.yaml").write_text(WORKFLOW)
    (tmp_path / "tracked").touch()
    for git in (
        ["init", "--quiet"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "it"],
    ):
        subprocess.run(["git", *git], cwd=tmp_path, check=True)
    (tmp_path / "untracked").touch()
    out = tmp_path / "out"
    environment = {**os.environ, "OUT": str(out), "TOKEN": "t"}
    command = [sys.executable, str(ROOT / ".ci" / "rehearse"), "it"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert out.read_text().splitlines() == ["a t", "b t"]
    assert "left out: somebody/checkout@1" in done.stdout
    assert "since UNKNOWN is not set" in done.stdout
    assert "second: ended with 3: exit 3" in done.stdout


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
