"""A real Redis server for tests."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

PASSWORD = "not,to=be:shown"  # Feast has its own ideas about commas


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server of its own."""
    from ml_platform_tests.conftest import free_port  # the conftest may import this module

    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no Redis on this machine: there is no `redis-server` on the PATH (apt-get install redis-server)")
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--requirepass", PASSWORD, "--dir", str(folder)]
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen([*command, "--save", "", "--appendonly", "no"], stdout=output, stderr=output)
    try:
        _wait(process, port, log)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
def redis_url(redis_port: int) -> str:
    """URL, with password, of the server with nothing in it."""
    redis.Redis(port=redis_port, password=PASSWORD).flushall()
    return f"redis://:{quote(PASSWORD)}@127.0.0.1:{redis_port}/3"


def _wait(process: subprocess.Popen, port: int, log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        assert process.poll() is None, f"Redis died: {log.read_text()[-2000:]}"
        assert time.monotonic() < deadline, f"Redis does not answer: {log.read_text()[-2000:]}"
        try:
            redis.Redis(port=port, password=PASSWORD).ping()
            return
        except redis.ConnectionError:
            time.sleep(0.1)
