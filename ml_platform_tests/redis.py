"""A real Redis server for tests."""

import shutil
import subprocess
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import redis

from ml_platform_tests.processes import wait_until_it_answers

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
        wait_until_it_answers(
            process, "Redis", log, redis.Redis(port=port, password=PASSWORD).ping, redis.ConnectionError, 30
        )
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
def redis_url(redis_port: int) -> str:
    """URL, with password, of the server with nothing in it."""
    redis.Redis(port=redis_port, password=PASSWORD).flushall()
    return f"redis://:{quote(PASSWORD)}@127.0.0.1:{redis_port}/3"
