"""Real servers for tests: one of each a run, started by the first test that asks, shared by all processes of the run.

Each fixture depends on `processes`, by which `make quick` knows that a test is not for it. What tests put into a server has
names of their own.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest
import redis

from ml_platform.core.settings import EMBEDDED_S3_CREDENTIALS
from ml_platform_tests import forks, keeper
from ml_platform_tests.processes import BIN, free_port, wait_until_it_answers

ROOT = Path(__file__).parents[1]
POSTGRES_PASSWORD = "not-to-be-shown"
REDIS_PASSWORD = "not,to=be:shown"  # Feast has its own ideas about commas


class Shared:
    """Servers of one run of tests, by name: whoever asks first starts one."""

    def __init__(self, folder: Path, run: int) -> None:
        self.folder = folder
        self.run = run

    def __call__(self, name: str, start: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """What `start` said of the server, in whatever process of this run."""
        place = self.folder / name
        place.mkdir(exist_ok=True)
        with (place / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            said = place / "said.json"
            if not said.exists():
                content = start(place)
                said.write_text(json.dumps(content))
            return json.loads(said.read_text())

    def keep(
        self,
        name: str,
        log: Path,
        command: list[str],
        ask: Callable[[], object],
        silence: type[Exception],
        ends_by: signal.Signals = signal.SIGTERM,
        user: str = "-",
        cwd: Path = ROOT,
    ) -> None:
        """Run a server, as another user if need be, until the run ends; returns when `ask` does not raise `silence` any more."""
        whole = [sys.executable, keeper.__file__, str(self.run), str(int(ends_by)), user, *command]
        with log.open("w") as output:
            process = subprocess.Popen(whole, stdout=output, stderr=output, start_new_session=True, cwd=cwd)
        wait_until_it_answers(process, name, log, ask, silence)


@pytest.fixture(scope="session")
def processes() -> None:
    """What every test asks for, itself or by its fixtures, that starts a process."""


@pytest.fixture(scope="session")
def shared(processes: None, tmp_path_factory: pytest.TempPathFactory) -> Shared:
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return Shared(folder, os.getpid())
    return Shared(folder.parent, os.getppid())


@pytest.fixture(scope="session")
def nursery(shared: Shared) -> forks.Nursery:
    """Where processes are forked from a warm one."""

    def start(folder: Path) -> dict[str, Any]:
        # The path of a socket has to be short.
        path = Path(tempfile.mkdtemp(prefix="ml-platform-")) / "nursery"
        command = [sys.executable, "-m", forks.__name__, str(path)]
        shared.keep("the nursery", folder / "log", command, path.stat, FileNotFoundError)
        return {"path": str(path)}

    return forks.Nursery(Path(shared("nursery", start)["path"]))


# --- S3 and MLflow ----------------------------------------------------------------------------------------------------


def s3_command(folder: Path, port: int) -> list[str]:
    listening, auth = ["--addr", f"127.0.0.1:{port}"], ["--auth-key", ",".join(EMBEDDED_S3_CREDENTIALS)]
    return [str(BIN / "rclone"), "serve", "s3", str(folder), *listening, *auth, "--config", ""]


def mlflow_command(folder: Path, port: int) -> list[str]:
    """A server that keeps everything in a folder."""
    stores = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts"]
    listening = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [str(BIN / "mlflow"), "server", *stores, *listening]


def get(url: str) -> Callable[[], object]:
    """Ask a server for a page; `httpx.HTTPError` if it does not answer, or is not ready."""

    def ask() -> object:
        answer = httpx.get(url, timeout=5)
        if answer.status_code >= 500:
            answer.raise_for_status()
        return answer

    return ask


@contextmanager
def server(
    command: list[str], url: str, log: Path, env: dict[str, str] | None = None, timeout: float = 120
) -> Iterator[subprocess.Popen]:
    """A server process of a test's own, from the moment it answers until the end of the block."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **(env or {})})
    try:
        wait_until_it_answers(process, command[0], log, get(url), httpx.HTTPError, timeout)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[str]:
    """An MLflow server of one's own; its URL."""
    url = f"http://127.0.0.1:{port}"
    with server(mlflow_command(folder, port), f"{url}/health", folder / "mlflow.log"):
        yield url


@pytest.fixture(scope="session")
def s3_port(shared: Shared) -> int:
    """An S3 server; tests use buckets of their own."""

    def start(folder: Path) -> dict[str, Any]:
        port = free_port()
        (folder / "buckets").mkdir()
        command = s3_command(folder / "buckets", port)
        shared.keep("S3", folder / "log", command, get(f"http://127.0.0.1:{port}/"), httpx.HTTPError)
        return {"port": port}

    return shared("s3", start)["port"]


@pytest.fixture(scope="session")
def mlflow_url(shared: Shared) -> str:
    """An MLflow server; tests use names of models and experiments of their own."""

    def start(folder: Path) -> dict[str, Any]:
        url = f"http://127.0.0.1:{(port := free_port())}"
        shared.keep("MLflow", folder / "log", mlflow_command(folder, port), get(f"{url}/health"), httpx.HTTPError)
        return {"url": url}

    return shared("mlflow", start)["url"]


# --- databases --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_url(shared: Shared) -> str:
    """SQLAlchemy URL of a PostgreSQL server, over TCP, with password; tests create databases of their own there.

    The server's time zone is not UTC, so that nothing is right by luck.
    """
    programs = _postgres_programs()
    if programs is None:
        pytest.skip(
            "no PostgreSQL on this machine: neither on PATH nor in /usr/lib/postgresql (apt-get install postgresql)"
        )

    def start(_: Path) -> dict[str, Any]:
        # The folder of pytest is closed to other users, and too deep for the path of a socket.
        folder, port = Path(tempfile.mkdtemp(prefix="ml-platform-postgres-")), free_port()
        user, identity = _somebody()
        password = folder / "password"
        password.write_text(POSTGRES_PASSWORD)
        for path in (folder, password):
            shutil.chown(path, **identity)
        data = str(folder / "data")
        initdb = [str(programs / "initdb"), "-D", data, "-U", "tester", "--pwfile", str(password), "--no-sync"]
        initdb += ["--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"]
        created = subprocess.run(initdb, capture_output=True, text=True, check=False, cwd=folder, **identity)
        assert created.returncode == 0, created.stderr
        command = [str(programs / "postgres"), "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", str(folder)]
        command += ["-c", "fsync=off", "-c", "timezone=Asia/Tokyo"]
        address = f"tester:{POSTGRES_PASSWORD}@127.0.0.1:{port}/postgres"
        shared.keep(
            "PostgreSQL",
            folder / "server.log",
            command,
            lambda: psycopg.connect(f"postgresql://{address}").close(),
            psycopg.OperationalError,
            ends_by=signal.SIGINT,  # does not wait for clients, as SIGTERM does
            user=user,
            cwd=folder,  # which that user may enter
        )
        return {"url": f"postgresql+psycopg://{address}"}

    return shared("postgres", start)["url"]


def _postgres_programs() -> Path | None:
    """The folder of the newest `postgres` and `initdb`."""
    found = shutil.which("postgres")
    folders = [Path(found).resolve().parent] if found else []
    versions = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    folders += [path.parent for path in sorted(versions, key=lambda p: float(p.parts[-3]), reverse=True)]
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def _somebody() -> tuple[str, dict[str, Any]]:
    """PostgreSQL refuses to be run by root; another user, then, and how a process is started as that one."""
    if os.geteuid() != 0:
        return "-", {}
    import pwd

    groups = {entry.pw_name: entry.pw_gid for entry in pwd.getpwall()}
    name = next(name for name in ("postgres", "nobody") if name in groups)
    return name, {"user": name, "group": groups[name]}


@pytest.fixture(scope="session")
def redis_port(processes: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Redis server of this process's own, since tests empty it."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no Redis on this machine: there is no `redis-server` on the PATH (apt-get install redis-server)")
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    command = [
        program,
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
        "--requirepass",
        REDIS_PASSWORD,
        "--dir",
        str(folder),
    ]
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen([*command, "--save", "", "--appendonly", "no"], stdout=output, stderr=output)
    try:
        asked = redis.Redis(port=port, password=REDIS_PASSWORD)
        wait_until_it_answers(process, "Redis", log, asked.ping, redis.ConnectionError, 60)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
def redis_url(redis_port: int) -> str:
    """URL, with password, of the server with nothing in it."""
    redis.Redis(port=redis_port, password=REDIS_PASSWORD).flushall()
    return f"redis://:{quote(REDIS_PASSWORD)}@127.0.0.1:{redis_port}/3"
