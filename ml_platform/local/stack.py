"""The embedded stack: S3, MLflow, the model server and Dagster as processes of this machine."""

import os
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from honcho.environ import parse_procfile
from honcho.manager import Manager
from honcho.printer import Message, Printer

from ml_platform.core.errors import StackError
from ml_platform.core.settings import EMBEDDED_S3_CREDENTIALS, Settings

HERE = Path(__file__).parent
STOPPED = re.compile(r"^(?P<part>\S+) stopped \(rc=(?P<status>-?\d+)\)")
START_TIMEOUT = 180.0  # seconds; the first start creates MLflow's and Dagster's databases


@dataclass(frozen=True)
class Part:
    """One process of the stack. It is healthy when `health` answers with a status below 500."""

    name: str
    port: int
    health: str
    variable: str
    what: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def parts(settings: Settings) -> list[Part]:
    return [
        Part(
            "s3",
            settings.s3_port,
            "/",
            "ML_PLATFORM_S3_PORT",
            "S3 endpoint; producers put files into " + settings.landing,
        ),
        Part(
            "mlflow", settings.mlflow_port, "/health", "ML_PLATFORM_MLFLOW_PORT", "experiments and the model registry"
        ),
        Part(
            "model-server",
            settings.model_server_port,
            "/health",
            "ML_PLATFORM_MODEL_SERVER_PORT",
            "predictions; try /docs",
        ),
        Part("dagster", settings.dagster_port, "/server_info", "ML_PLATFORM_DAGSTER_PORT", "the graph, runs, sensors"),
    ]


def is_healthy(part: Part) -> bool:
    try:
        return httpx.get(part.url + part.health, timeout=2).status_code < 500
    except httpx.HTTPError:
        return False


def check_ports(wanted: list[Part]) -> None:
    """Raises StackError, naming the part and the variable, if another process listens on one of the ports."""
    for part in wanted:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", part.port)) == 0:
                raise StackError(
                    f"stack/{part.name}",
                    f"port {part.port} is in use",
                    f"stop what listens there, or export {part.variable}=<free port>",
                )


def variables(settings: Settings) -> dict[str, str]:
    """The settings of the embedded stack as environment of its processes."""
    found = {
        "ML_PLATFORM_HOME": str(settings.home),
        "ML_PLATFORM_S3_PORT": str(settings.s3_port),
        "ML_PLATFORM_MLFLOW_PORT": str(settings.mlflow_port),
        "ML_PLATFORM_MODEL_SERVER_PORT": str(settings.model_server_port),
        "ML_PLATFORM_DAGSTER_PORT": str(settings.dagster_port),
    }
    return found | ({"ML_PLATFORM_FIRST_DAY": settings.first_day.isoformat()} if settings.first_day else {})


def prepare(settings: Settings, workspace: Path) -> dict[str, str]:
    """Make the folders of the stack; returns the environment of its processes."""
    if not workspace.is_file():
        raise StackError("stack/dagster", f"there is no {workspace}", "run this in the folder of workspace.yaml")
    for folder in ("s3", "mlflow", "dagster"):
        (settings.home / folder).mkdir(parents=True, exist_ok=True)
    # The landing bucket exists from the start, so that the first sensor tick finds it.
    (settings.home / "s3" / settings.landing.removeprefix("s3://").split("/")[0]).mkdir(exist_ok=True)
    shutil.copyfile(HERE / "dagster.yaml", settings.home / "dagster" / "dagster.yaml")
    key, secret = EMBEDDED_S3_CREDENTIALS
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        **variables(settings),
        "DAGSTER_HOME": str(settings.home / "dagster"),
        "EMBEDDED_S3_AUTH": f"{key},{secret}",
        "PYTHONUNBUFFERED": "1",
        # Five workers for what nobody asks MLflow for here: a gigabyte, and half of the start.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }


class _Console(Printer):
    """Honcho's output, which also remembers which part was the first to stop."""

    first_stopped: tuple[str, int] | None = None
    interrupted = False

    def write(self, message: Message) -> None:
        if message.name == "system" and isinstance(message.data, str):
            self.interrupted |= " received" in message.data
            stopped = STOPPED.match(message.data)
            if stopped and self.first_stopped is None:
                self.first_stopped = stopped["part"], int(stopped["status"])
        super().write(message)


def run(settings: Settings, workspace: Path, announce: Callable[[str], None]) -> None:
    """Run the stack until it is interrupted; announces the page of URLs when every part is healthy.

    Raises:
        StackError: if a port is in use, or a part dies: then all others are stopped too.
    """
    wanted = parts(settings)
    check_ports(wanted)
    environment = prepare(settings, workspace)
    console = _Console(sys.stdout)
    manager = Manager(console)
    for name, command in parse_procfile((HERE / "Procfile").read_text()).processes.items():
        manager.add_process(name, command, env=environment, cwd=str(workspace.parent.resolve()))

    def watch() -> None:
        late = wait_until_healthy(wanted, START_TIMEOUT)
        announce(page(settings) if not late else f"stack: after {START_TIMEOUT:.0f} s not healthy: {', '.join(late)}")

    threading.Thread(target=watch, daemon=True).start()
    manager.loop()
    if console.first_stopped and not console.interrupted:
        part, status = console.first_stopped
        raise StackError(
            f"stack/{part}",
            f"stopped by itself with status {status}, so everything was stopped",
            "read its last lines above",
        )


def wait_until_healthy(wanted: list[Part], timeout: float, give_up: Callable[[], bool] = lambda: False) -> list[str]:
    """Names of the parts that are still not healthy after `timeout` seconds, or when `give_up` says so."""
    deadline = time.monotonic() + timeout
    waiting = wanted
    while waiting and time.monotonic() < deadline and not give_up():
        waiting = [part for part in waiting if not is_healthy(part)]
        if waiting:
            time.sleep(0.5)
    return [part.name for part in waiting]


def page(settings: Settings) -> str:
    """Where everything is."""
    lines = [f"  {part.name:<13} {part.url:<24} {part.what}" for part in parts(settings)]
    return "\n".join(
        [
            "",
            "ml_platform is up:",
            *lines,
            f"  data          {settings.home}  (make clean removes it)",
            "  land files    ml-platform land --help",
            "",
        ]
    )
