import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from ml_platform.core.errors import StackError
from ml_platform.core.settings import Settings
from ml_platform.local import stack
from ml_platform_tests.processes import BIN, eventually, free_port

ROOT = Path(__file__).parents[2]
PORTS = ("s3", "mlflow", "dagster", "model_server", "exporter")


def test_port_in_use_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        free = Settings(s3_port=free_port(), mlflow_port=free_port(), model_server_port=free_port())
        with pytest.raises(
            StackError, match=rf"stack/dagster: port {port} is in use. Next: .*ML_PLATFORM_DAGSTER_PORT"
        ):
            stack.check_ports(stack.parts(free.model_copy(update={"dagster_port": port})))


def test_without_a_workspace_the_stack_loads_the_project_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written = stack.workspace(Settings(home=tmp_path / "home"))
    (location,) = yaml.safe_load(written.read_text())["load_from"]
    assert location["python_module"] == {
        "module_name": "ml_platform.examples.fraud.definitions",
        "location_name": "fraud",
    }
    (tmp_path / "workspace.yaml").write_text("load_from: []")
    assert stack.workspace(Settings(home=tmp_path / "home")) == tmp_path / "workspace.yaml"


def test_page_names_every_part() -> None:
    page = stack.page(Settings())
    assert all(part.url in page for part in stack.parts(Settings()))


@pytest.fixture
def running(processes: None, tmp_path: Path) -> Iterator[tuple[subprocess.Popen, Settings, Path]]:
    """The real stack on free ports, in a home of its own."""
    ports = {name: free_port() for name in PORTS}
    settings = Settings(home=tmp_path / "home", **{f"{name}_port": port for name, port in ports.items()})  # type: ignore[arg-type]
    variables = {f"ML_PLATFORM_{name.upper()}_PORT": str(port) for name, port in ports.items()}
    environment = {**os.environ, **variables, "ML_PLATFORM_HOME": str(settings.home)}
    log = tmp_path / "stack.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(BIN / "ml-platform"), "dev"], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
        yield process, settings, log
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def test_stack_comes_up_prints_its_page_once_and_starts_a_part_again_that_dies(
    running: tuple[subprocess.Popen, Settings, Path],
) -> None:
    process, settings, log = running
    healthy(process, settings, log)
    assert httpx.get(f"{settings.model_server_url}/health").json() == {"status": "alive"}

    os.kill(part(settings, "rclone serve s3"), signal.SIGKILL)
    eventually(lambda: "s3 died (status -9), and is started again" in log.read_text())
    healthy(process, settings, log)

    with (
        pytest.raises(StackError, match=rf"one runs on .* already \(process {process.pid}\)"),
        stack.locked(settings.home),
    ):
        raise AssertionError("two stacks share a home")

    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 0
    assert log.read_text().count("ml_platform is up:") == 1
    assert "processes are killed" not in log.read_text()
    assert not any(stack.is_healthy(part) for part in stack.parts(settings))


def test_parts_end_with_a_stack_that_is_killed_and_the_next_one_waits_for_that(
    running: tuple[subprocess.Popen, Settings, Path],
) -> None:
    process, settings, log = running
    healthy(process, settings, log)
    process.kill()
    process.wait(timeout=60)
    with stack.locked(settings.home):
        eventually(lambda: not any(stack.is_healthy(part) for part in stack.parts(settings)))
    eventually(lambda: not processes_of(settings))


def healthy(process: subprocess.Popen, settings: Settings, log: Path) -> None:
    late = stack.wait_until_healthy(stack.parts(settings), 300, lambda: process.poll() is not None)
    assert late == [], log.read_text()[-3000:]
    eventually(lambda: "ml_platform is up:" in log.read_text())


def processes_of(settings: Settings) -> list[psutil.Process]:
    """Everything that the stack of this home has started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("ML_PLATFORM_HOME") == str(settings.home):
                found.append(process)
        except psutil.Error:
            continue
    return found


def part(settings: Settings, command: str) -> int:
    return next(process.pid for process in processes_of(settings) if " ".join(process.cmdline()).startswith(command))


def test_python_of_the_stack_is_this_one(tmp_path: Path) -> None:
    environment = stack.prepare(Settings(home=tmp_path))
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
