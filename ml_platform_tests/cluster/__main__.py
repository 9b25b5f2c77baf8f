"""`make test-cluster`: the scenarios on the cluster of the present kubeconfig, then a table of them; the log of every pod is kept.

REPOSITORY, TAG, NEXT_TAG      of the images; the last of a release that is rolled out over the first, and taken back
ML_PLATFORM_TEST_PATIENCE     how many times longer than on a machine of its own things may take, such as 3 on a busy node
ML_PLATFORM_TEST_LOGS         folder of the logs; default: test-cluster
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.config import new_client_from_config
from rich.console import Console
from rich.table import Table

from ml_platform_tests.cluster.world import ASKED, LOGS, MADE_FOR_TESTS, NAMESPACE


def main() -> int:
    if not may_replace(CoreV1Api(new_client_from_config()), input):
        print(f"the namespace {NAMESPACE} stays as it is", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "ml_platform_tests/cluster", f"--junitxml={report}"]
        status = subprocess.run(command, env={**os.environ, ASKED: "1"}, check=False).returncode
        if report.exists():
            Console().print(table(report))
    print(f"logs of all pods: {LOGS}")
    return status


def may_replace(core: Any, ask: Callable[[str], str]) -> bool:
    """Whether there is no namespace of this name, or one that these tests have made, or one that may be deleted: that is asked."""
    try:
        labels = core.read_namespace(NAMESPACE).metadata.labels or {}
    except ApiException as error:
        if error.status == 404:
            return True
        raise
    if MADE_FOR_TESTS in labels:
        return True
    return (
        ask(f"The namespace {NAMESPACE} was not made by this test. Its name, to delete all that is in it: ")
        == NAMESPACE
    )


def table(report: Path) -> Table:
    """Of the scenarios, from pytest's report in JUnit's form."""
    shown = Table("scenario", "outcome", "seconds")
    for case in ElementTree.parse(report).iter("testcase"):
        trouble = [part.tag for part in case if part.tag in ("failure", "error", "skipped")]
        name = case.attrib["name"].removeprefix("test_").replace("_", " ")
        shown.add_row(name, trouble[0] if trouble else "passed", f"{float(case.attrib['time']):.0f}")
    return shown


if __name__ == "__main__":
    sys.exit(main())
