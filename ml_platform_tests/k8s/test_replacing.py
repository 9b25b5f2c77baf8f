"""`make test-cluster` before and after its scenarios: what it may delete, and the table that it prints."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes.client import CoreV1Api
from kubernetes.config import new_client_from_config
from rich.console import Console

from ml_platform_tests.cluster.__main__ import may_replace, table
from ml_platform_tests.cluster.world import MADE_FOR_TESTS, NAMESPACE
from ml_platform_tests.forks import Nursery
from ml_platform_tests.k8s.double import Double


@pytest.fixture
def double(nursery: Nursery, tmp_path: Path) -> Iterator[Double]:
    with Double(tmp_path, nursery) as double:
        yield double


def replaced(double: Double, answer: str, **labels: str) -> tuple[bool, list[str]]:
    """Whether it may, and what was asked."""
    asked: list[str] = []
    double.store.create("namespaces", "", {"metadata": {"name": NAMESPACE, "labels": labels}})
    core = CoreV1Api(new_client_from_config(str(double.kubeconfig)))
    return may_replace(core, lambda question: asked.append(question) or answer), asked


def test_namespace_that_is_not_there_or_was_made_for_tests_is_not_asked_for(double: Double) -> None:
    assert may_replace(CoreV1Api(new_client_from_config(str(double.kubeconfig))), lambda _: "no")
    assert replaced(double, "no", **{MADE_FOR_TESTS: "true"}) == (True, [])


@pytest.mark.parametrize(("answer", "may"), [("", False), ("y", False), (NAMESPACE, True)])
def test_namespace_of_somebody_else_goes_only_if_its_name_is_said(double: Double, answer: str, may: bool) -> None:
    replaces, asked = replaced(double, answer)
    assert (replaces, len(asked)) == (may, 1)


def test_table_has_every_scenario_with_its_outcome(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase name="test_node_is_drained" time="61.2"/>'
        '<testcase name="test_cancelled_run" time="3"><failure message="no"/></testcase></testsuite></testsuites>'
    )
    console = Console(width=80, record=True)
    console.print(table(report))
    text = console.export_text()
    assert "node is drained" in text
    assert "passed" in text
    assert "failure" in text
