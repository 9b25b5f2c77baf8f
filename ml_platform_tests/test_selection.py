"""Which tests run: what starts processes, and what a change touches."""

import pytest

from ml_platform_tests.selection import ROOT, touched


def test_change_touches_what_imports_it_and_not_what_does_not() -> None:
    modules = touched(["ml_platform/features/point_in_time.py"])
    assert modules is not None
    assert {"ml_platform_tests.features.test_point_in_time", "ml_platform_tests.training.test_training_set"} <= modules
    assert "ml_platform_tests.data.test_formats" not in modules
    assert "ml_platform_tests.rollout.test_traffic" not in modules


def test_files_that_are_not_imported_are_told_of_by_the_tests_that_read_them() -> None:
    assert "ml_platform_tests.test_documentation" in (touched(["docs/data.md"]) or set())
    assert "ml_platform_tests.k8s.test_manifests" in (touched(["k8s/base/rbac.yaml"]) or set())
    assert "ml_platform_tests.core.test_catalog" in (
        touched(["ml_platform/examples/fraud/defs/models/fraud_detection/defs.yaml"]) or set()
    )


def test_conftest_touches_the_tests_of_its_folder() -> None:
    modules = touched(["ml_platform_tests/serving/conftest.py"]) or set()
    assert "ml_platform_tests.serving.test_batching" in modules
    assert "ml_platform_tests.core.test_days" not in modules


def test_what_everything_stands_on_touches_everything() -> None:
    assert touched(["constraints.txt"]) is None


pytest_plugins = ("pytester",)
SILENT = """
import subprocess
import pytest

def test_says_nothing():
    subprocess.run(["true"])

def test_asks(processes):
    subprocess.run(["true"])

@pytest.mark.processes
def test_bears_the_mark():
    subprocess.run(["true"])

def test_starts_nothing():
    pass
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest('pytest_plugins = ("ml_platform_tests.selection", "ml_platform_tests.servers")')
    pytester.makeini("[pytest]\nmarkers = processes: starts processes\n story: tells of a platform")
    pytester.makepyfile(SILENT)
    return pytester


@pytest.mark.processes
def test_test_that_starts_a_process_in_silence_fails(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess()
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(["*it starts processes: ask for the fixture `processes`*"])


@pytest.mark.processes
def test_quick_has_only_what_starts_no_process(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("--quick", "--deselect", "test_project.py::test_says_nothing")
    assert result.parseoutcomes()["deselected"] >= 2
