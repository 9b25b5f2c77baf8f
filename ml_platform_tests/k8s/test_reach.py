"""The entry point of images: a program begins once its databases can be reached."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from ml_platform_tests.processes import eventually, free_port

pytestmark = pytest.mark.processes

REACH = Path(__file__).parents[2] / "k8s" / "images" / "reach"


def started(folder: Path, within: int, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(REACH), "sh", "-c", "echo $0 > began; exit 3", "an argument"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "REACH_WITHIN": str(within), **variables},
        stderr=subprocess.PIPE,
        text=True,
    )


def listening(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))


def test_program_begins_once_all_databases_can_be_reached(tmp_path: Path) -> None:
    there, later = free_port(), free_port()
    with listening(there) as server:
        process = started(
            tmp_path,
            60,
            DAGSTER_PG_URL=f"postgresql+psycopg2://user:p@ss:word@127.0.0.1:{there}/dagster?sslmode=prefer",
            MLFLOW_DB_URL="sqlite:///nothing",
            ML_PLATFORM_ONLINE_STORE=f"redis://127.0.0.1:{later}/0",
        )
        server.accept()[0].close()
        assert not (tmp_path / "began").exists()
        with listening(later):
            assert process.wait(60) == 3
    assert (tmp_path / "began").read_text() == "an argument\n"


def test_program_begins_after_the_limit_and_what_is_away_is_said_without_a_password(tmp_path: Path) -> None:
    port = free_port()
    process = started(tmp_path, 1, DAGSTER_PG_URL=f"postgresql+psycopg2://user:hidden@127.0.0.1:{port}/dagster")
    _, said = process.communicate(timeout=60)
    assert said == f"cannot connect to 127.0.0.1:{port}\n"
    assert process.returncode == 3


def test_program_without_databases_begins_at_once(tmp_path: Path) -> None:
    process = started(tmp_path, 60)
    eventually(lambda: process.poll() == 3)
