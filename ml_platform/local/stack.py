"""The embedded stack: S3, MLflow, the model server and Dagster as processes of this machine."""

import fcntl
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import yaml

from ml_platform.core.errors import StackError
from ml_platform.core.project import find_project
from ml_platform.core.settings import EMBEDDED_S3_CREDENTIALS, Settings
from ml_platform.local.events import follow
from ml_platform.local.supervisor import Program, Supervisor

HERE = Path(__file__).parent
START_TIMEOUT = 300.0  # seconds; the first start creates MLflow's and Dagster's databases, maybe on a busy machine
PREVIOUS_ENDS = 60.0  # seconds that the parts of a stack which was killed may take to end
ANSWERS_WITHIN = 20.0  # seconds; a part that hangs does not, one on a busy machine does
GRACE = {"dagster": 40.0}  # seconds: steps that run finish what they write (20 s), then their runs end


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
        Part("exporter", settings.exporter_port, "/metrics", "ML_PLATFORM_EXPORTER_PORT", "metrics, for Prometheus"),
        Part("dagster", settings.dagster_port, "/server_info", "ML_PLATFORM_DAGSTER_PORT", "the graph, runs, sensors"),
    ]


def is_healthy(part: Part, timeout: float = 2.0) -> bool:
    try:
        return httpx.get(part.url + part.health, timeout=timeout).status_code < 500
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
        "ML_PLATFORM_EXPORTER_PORT": str(settings.exporter_port),
    }
    return found | ({"ML_PLATFORM_FIRST_DAY": settings.first_day.isoformat()} if settings.first_day else {})


def workspace(settings: Settings) -> Path:
    """What Dagster loads: the workspace.yaml of this folder or of the project's; where there is none, the project alone."""
    project = find_project(settings.project)
    for folder in (Path.cwd(), project.root):
        if folder and (folder / "workspace.yaml").is_file():
            return folder / "workspace.yaml"
    alone = settings.home / "workspace.yaml"
    alone.parent.mkdir(parents=True, exist_ok=True)
    name = project.package.rpartition(".")[2]
    module = {"module_name": project.definitions, "location_name": name}
    alone.write_text(yaml.safe_dump({"load_from": [{"python_module": module}]}))
    return alone


def prepare(settings: Settings) -> dict[str, str]:
    """Make the folders of the stack; returns the environment of its processes."""
    for folder in ("s3", "mlflow", "dagster"):
        (settings.home / folder).mkdir(parents=True, exist_ok=True)
    # The landing bucket exists from the start, so that the first sensor tick finds it.
    (settings.home / "s3" / settings.landing.removeprefix("s3://").split("/")[0]).mkdir(exist_ok=True)
    shutil.copyfile(HERE / "dagster.yaml", settings.home / "dagster" / "dagster.yaml")
    key, secret = EMBEDDED_S3_CREDENTIALS
    return {
        "ML_PLATFORM_STRICT": "false",  # unless the environment says it
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        **variables(settings),
        "WORKSPACE": str(workspace(settings)),
        "DAGSTER_HOME": str(settings.home / "dagster"),
        "EMBEDDED_S3_AUTH": f"{key},{secret}",
        "PYTHONUNBUFFERED": "1",
        # Five workers for what nobody asks MLflow for here: a gigabyte, and half of the start.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }


def programs(settings: Settings) -> list[Program]:
    """The parts in the order of their start; they end in the opposite one, so that a step can still write."""
    lines = (HERE / "Procfile").read_text().splitlines()
    commands = dict(line.split(": ", 1) for line in lines if line)
    asked = {part.name: partial(is_healthy, part, ANSWERS_WITHIN) for part in parts(settings)}
    return [Program(name, command, GRACE.get(name, 10.0), asked[name]) for name, command in commands.items()]


@contextmanager
def locked(home: Path) -> Iterator[int]:
    """One stack at a time has a home. Yields what holds the lock, for the parts to hold it as long as they live.

    Raises:
        StackError: if another one has it; one whose parts are just ending is waited for.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "stack.lock").open("a+") as file:
        deadline = time.monotonic() + PREVIOUS_ENDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                owner = file.read().strip()
                if _is_alive(owner) or time.monotonic() > deadline:
                    raise StackError(
                        "stack",
                        f"one runs on {home} already (process {owner})",
                        f"use it, end it (kill {owner}), or set ML_PLATFORM_HOME and the ports for another",
                    ) from None
                time.sleep(0.5)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file.fileno()


def _is_alive(owner: str) -> bool:
    try:
        os.kill(int(owner), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def run(settings: Settings, announce: Callable[[str], None]) -> None:
    """Run the stack until SIGINT or SIGTERM; announces what people care about, and the page of URLs when every part is healthy.

    Raises:
        StackError: if a port is in use, another stack runs on this home, or a part keeps dying.
    """
    with locked(settings.home) as lock:
        wanted = parts(settings)
        check_ports(wanted)
        environment = prepare(settings)
        logs = settings.home / "logs"
        here = find_project(settings.project).root or Path.cwd()
        supervisor = Supervisor(programs(settings), environment, here, logs, announce, [lock])

        def asked_to_stop(number: int, _: object) -> None:
            announce("stopping: steps finish what they are writing; again to stop at once")
            supervisor.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, asked_to_stop)

        def watch() -> None:
            announce(f"starting; what the parts say is in {logs}")
            late = wait_until_healthy(wanted, START_TIMEOUT, lambda: supervisor.is_stopping)
            if supervisor.is_stopping:
                return
            announce(page(settings) if not late else f"after {START_TIMEOUT:.0f} s not healthy: {', '.join(late)}")
            follow(settings, announce, lambda: supervisor.is_stopping)

        threading.Thread(target=watch, daemon=True).start()
        supervisor.run()


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
            f"  data          {settings.home}  (make clean removes it); logs in {settings.home / 'logs'}",
            "  land files    ml-platform land --help",
            "",
        ]
    )
