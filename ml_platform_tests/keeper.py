"""Run a server for as long as another process lives: `python keeper.py <pid> <signal> <user, or -> <command> ...`.

Test processes come and go; the server ends with the run of tests that it belongs to, however that ends.
"""

import signal
import subprocess
import sys
import time
from pwd import getpwnam
from typing import Any

import psutil

OFTEN = 0.5  # seconds


def main(watched: int, number: int, user: str, command: list[str]) -> int:
    identity: dict[str, Any] = {} if user == "-" else {"user": user, "group": getpwnam(user).pw_gid}
    process = subprocess.Popen(command, **identity)
    signal.signal(signal.SIGTERM, lambda *_: process.send_signal(number))
    while process.poll() is None:
        if not psutil.pid_exists(watched):
            process.send_signal(number)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
        time.sleep(OFTEN)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]))
