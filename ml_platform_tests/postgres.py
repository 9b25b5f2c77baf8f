"""A real PostgreSQL server for tests."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ml_platform_tests.processes import wait_until_it_answers

PASSWORD = "not-to-be-shown"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """SQLAlchemy URL of a server of its own, over TCP, with password; tests create databases of their own there.

    The server's time zone is not UTC, so that nothing is right by luck.
    """
    from ml_platform_tests.conftest import free_port  # the conftest imports this module

    programs = _programs()
    if programs is None:
        pytest.skip(
            "no PostgreSQL on this machine: neither on PATH nor in /usr/lib/postgresql (apt-get install postgresql)"
        )
    # The folder of pytest is closed to other users, and too deep for the path of a socket.
    with tempfile.TemporaryDirectory(prefix="ml-platform-postgres-") as name:
        folder, port, identity = Path(name), free_port(), _identity()
        password = folder / "password"
        password.write_text(PASSWORD)
        for path in (folder, password):
            shutil.chown(path, **identity)
        data = str(folder / "data")
        initdb = [str(programs / "initdb"), "-D", data, "-U", "tester", "--pwfile", str(password), "--no-sync"]
        initdb += ["--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"]
        created = subprocess.run(initdb, capture_output=True, text=True, check=False, cwd=folder, **identity)
        assert created.returncode == 0, created.stderr
        command = [str(programs / "postgres"), "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", str(folder)]
        command += ["-c", "fsync=off", "-c", "timezone=Asia/Tokyo"]
        log = folder / "server.log"
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, **identity)
        try:
            address = f"tester:{PASSWORD}@127.0.0.1:{port}/postgres"
            wait_until_it_answers(
                process,
                "PostgreSQL",
                log,
                lambda: psycopg.connect(f"postgresql://{address}").close(),
                psycopg.OperationalError,
                60,
            )
            yield f"postgresql+psycopg://{address}"
        finally:
            process.send_signal(signal.SIGINT)  # does not wait for clients, as SIGTERM does
            process.wait(timeout=30)


def _programs() -> Path | None:
    """The folder of the newest `postgres` and `initdb`."""
    found = shutil.which("postgres")
    folders = [Path(found).resolve().parent] if found else []
    versions = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    folders += [path.parent for path in sorted(versions, key=lambda p: float(p.parts[-3]), reverse=True)]
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def _identity() -> dict[str, Any]:
    """PostgreSQL refuses to be run by root; user and group of somebody else, then."""
    if os.geteuid() != 0:
        return {}
    import pwd

    names = {entry.pw_name: entry.pw_gid for entry in pwd.getpwall()}
    name = next(name for name in ("postgres", "nobody") if name in names)
    return {"user": name, "group": names[name]}
