import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ml_platform.core.errors import StackError
from ml_platform.core.settings import Settings
from ml_platform.local import stack
from ml_platform_tests.processes import BIN, eventually, free_port

ROOT = Path(__file__).parents[2]
PORTS = ("s3", "mlflow", "dagster", "model_server")


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


def test_without_workspace_the_stack_says_where_to_run_it(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"folder of workspace.yaml"):
        stack.prepare(Settings(home=tmp_path), tmp_path / "workspace.yaml")


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


def test_stack_comes_up_prints_its_page_and_a_part_that_dies_is_named(
    running: tuple[subprocess.Popen, Settings, Path],
) -> None:
    process, settings, log = running
    assert stack.wait_until_healthy(stack.parts(settings), 120, lambda: process.poll() is not None) == [], (
        log.read_text()[-3000:]
    )
    eventually(lambda: "ml_platform is up:" in log.read_text())
    assert httpx.get(f"{settings.model_server_url}/health").json() == {"status": "alive"}

    victim = subprocess.check_output(["pgrep", "-f", f"rclone serve s3 {settings.home}"], text=True).split()[0]
    os.kill(int(victim), signal.SIGKILL)
    assert process.wait(timeout=60) == 1
    assert "error: stack/s3: stopped by itself with status -9, so everything was stopped" in log.read_text()
    assert not any(stack.is_healthy(part) for part in stack.parts(settings))


def test_python_of_the_stack_is_this_one(tmp_path: Path) -> None:
    environment = stack.prepare(Settings(home=tmp_path), ROOT / "workspace.yaml")
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
