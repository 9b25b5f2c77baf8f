"""Forks are processes as any others, but for the time that they take to start."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform_tests.forks import Nursery
from ml_platform_tests.processes import eventually


def test_fork_has_its_own_arguments_variables_folder_and_status(nursery: Nursery, tmp_path: Path) -> None:
    code = (
        "import os, sys; print(sys.argv[1], os.environ['NAME'], os.getcwd()); print('no', file=sys.stderr); sys.exit(3)"
    )
    command = [sys.executable, "-c", code, "word"]
    fork = nursery.start(command, {"NAME": "value"}, tmp_path, subprocess.PIPE, subprocess.PIPE)
    assert fork.communicate() == (f"word value {tmp_path}\n", "no\n")
    assert fork.wait() == 3


@pytest.mark.parametrize(
    "command", [["python", "-m", "ml_platform.cli", "--help"], ["ml-platform", "--help"], ["true"]]
)
def test_modules_scripts_and_other_programs(nursery: Nursery, command: list[str]) -> None:
    with nursery.start(command, stdout=subprocess.DEVNULL) as fork:
        assert fork.wait(60) == 0


def test_error_is_said_and_its_status_is_1(nursery: Nursery) -> None:
    fork = nursery.start([sys.executable, "-c", "raise ValueError('such a value')"], stdout=subprocess.PIPE)
    assert "ValueError: such a value" in fork.communicate()[0]
    assert fork.returncode == 1


def test_signals_reach_it_and_its_children_and_show_in_its_status(nursery: Nursery) -> None:
    fork = nursery.start(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE)
    assert fork.stdout
    child = int(fork.stdout.readline())
    assert fork.poll() is None
    os.killpg(fork.pid, signal.SIGKILL)
    assert fork.wait(30) == -signal.SIGKILL
    eventually(lambda: not Path(f"/proc/{child}").exists() or "zombie" in Path(f"/proc/{child}/status").read_text())
    fork.stdout.close()
