"""Which tests run: `--quick` those that start no process, `--changed` those of what differs from a commit.

Both follow from the tests themselves. A test starts processes if it asks, itself or by its fixtures, for the fixture `processes`,
or bears the mark of that name; one that starts a process without saying so fails. What a change touches is what imports it.
"""

import multiprocessing.util
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]
STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "os.exec"}
QUICK_EXAMPLES = 20
# Files that are not imported, and the modules or folders whose tests are about them.
TOLD_BY = {
    "ml_platform/examples/fraud/defs/": "ml_platform.core.catalog",
    "ml_platform/local/": "ml_platform.local.stack",
    "k8s/": "ml_platform_tests.k8s",
    ".github/": "ml_platform_tests.k8s",
    "docs/": "ml_platform_tests.test_documentation",
    "docs/migrating.md": "ml_platform_tests.test_migrating",
    "README.md": "ml_platform_tests.test_documentation",
}
OF_EVERYTHING = (
    "pyproject.toml",
    "constraints.txt",
    "Makefile",
    ".ci/",
    *(f"ml_platform_tests/{name}.py" for name in ("conftest", "selection", "servers", "forks", "keeper")),
)


def examples(count: int, **more: Any) -> settings:
    """Settings of a property test that takes so many examples: all of them, but few in `--quick`."""
    return settings(max_examples=how_many(count, min(QUICK_EXAMPLES, max(3, count // 4))), **more)


def how_many(full: int, quick: int) -> int:
    """Of something else that a test takes many of."""
    return quick if _is_quick() else full


def _is_quick() -> bool:
    return settings().max_examples == QUICK_EXAMPLES


def starts_processes(item: pytest.Item) -> bool:
    asked = "processes" in getattr(item, "fixturenames", ())
    return asked or item.get_closest_marker("processes") is not None


# --- hooks ------------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("selection")
    group.addoption("--quick", action="store_true", help="only tests that start no process, with few examples")
    group.addoption(
        "--shuffle", type=int, metavar="SEED", help="files, and tests within them, in random order; stories as they are"
    )
    group.addoption("--changed", metavar="COMMIT", help="only tests of what differs from a commit")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores, since a third of the time is waiting for processes; four at most."""
    return min(4, (os.cpu_count() or 1) + 1)


def pytest_configure(config: pytest.Config) -> None:
    # Speed is measured in benchmarks/, never in tests.
    settings.register_profile("full", deadline=None)
    settings.register_profile("quick", deadline=None, max_examples=QUICK_EXAMPLES)
    settings.load_profile("quick" if config.getoption("--quick") else "full")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    stories = {item.path for item in items if item.get_closest_marker("story")}
    if (seed := config.getoption("--shuffle")) is not None:
        random, places = Random(seed), {}
        for item in items:
            places[item] = (random.random() if item.path not in stories else 0.0, len(places))
        files = {path: random.random() for path in sorted({item.path for item in items})}
        items.sort(key=lambda item: (files[item.path], places[item]))
    else:
        # What takes long begins first, so that the cores end together: whole files, since those share what they have started.
        starting = {item.path for item in items if starts_processes(item)}
        items.sort(key=lambda item: (item.path not in stories, item.path not in starting))
    kept = items
    if config.getoption("--quick"):
        kept = [item for item in kept if not starts_processes(item)]
    if commit := config.getoption("--changed"):
        modules = touched(changed_files(commit))
        kept = [item for item in kept if modules is None or _module(item.path.relative_to(ROOT)) in modules]
    if len(kept) < len(items):
        chosen = {*kept}
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = kept


# --- what starts a process --------------------------------------------------------------------------------------------


class Watch:
    """What the running test has started in the thread that runs it."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.thread = threading.get_ident()
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in STARTS and threading.get_ident() == self.thread:
            self.started.append(f"{event} {arguments[:2]}")


@pytest.fixture(scope="session")
def _watch() -> Iterator[Watch]:
    platform.uname().processor  # noqa: B018  # asked of a program, once a process, by whichever library is first
    watch = Watch()
    spawn = multiprocessing.util.spawnv_passfds  # raises no event of its own
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            multiprocessing.util,
            "spawnv_passfds",
            lambda path, words, passed: (watch.started.append(str(words)), spawn(path, words, passed))[1],
        )
        yield watch


@pytest.fixture(autouse=True)
def _starts_no_process_in_silence(request: pytest.FixtureRequest, _watch: Watch) -> Iterator[None]:
    _watch.started.clear()
    yield
    if _watch.started and not starts_processes(request.node):
        pytest.fail(f"it starts processes: ask for the fixture `processes` ({'; '.join(_watch.started[:3])})")


# --- what a change touches --------------------------------------------------------------------------------------------


def changed_files(commit: str) -> list[str]:
    """Paths of what differs from a commit, whether it is committed, staged, or not even known to git."""
    asked = (["diff", "--name-only", commit], ["ls-files", "--others", "--exclude-standard"])
    said = [subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True) for words in asked]
    return sorted({line for one in said for line in one.stdout.splitlines()})


def touched(files: list[str]) -> set[str] | None:
    """Modules of these files and whatever imports them; None: everything."""
    import grimp

    if any(file.startswith(OF_EVERYTHING) for file in files):
        return None
    graph = grimp.build_graph("ml_platform", "ml_platform_tests", cache_dir=None)
    found: set[str] = set()
    for file in files:
        told = [module for prefix, module in TOLD_BY.items() if file.startswith(prefix) and not file.endswith(".py")]
        # The tests of a folder stand on its conftest without importing it.
        for module in (_module(Path(file)).removesuffix(".conftest"), *told):
            found |= {one for one in graph.modules if one == module or one.startswith(f"{module}.")}
    return found.union(*(graph.find_downstream_modules(module) for module in found))


def _module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")
