"""Processes forked from one that has already imported what most of them need: a start takes a tenth of a second, not five.

A test that is about what a process imports, or about how it starts, starts it by `subprocess` instead.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

# Nothing that reads the environment while it is imported: a fork has variables of its own.
WARM = (
    "torch",
    "torch._dynamo",
    "pandas",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "duckdb",
    "ibis.backends.duckdb",
    "sklearn.metrics",
    "optuna",
    "boto3",
    "kubernetes.client",
    "psycopg2",
    "mlflow",
    "mlflow.store.tracking.rest_store",
    "dagster._cli",
    "dagster_graphql.schema",
    "dagster_webserver.cli",
    "dagster_aws.s3",
    "dagster_k8s",
    "dagster_mlflow.resources",
    "dagster_postgres",
    "ml_platform.components.model",
    "ml_platform.components.pods",
    "ml_platform.serving.app",
    "ml_platform.workloads.train",
    "ml_platform.cli",
)


class Fork:
    """A running fork, with as much of `subprocess.Popen` as tests use. It leads a session of its own."""

    def __init__(self, connection: socket.socket, pid: int, stdout: IO[bytes] | None, stderr: IO[bytes] | None) -> None:
        self._connection = connection
        self._connection.setblocking(False)
        self._lock = threading.Lock()
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with self._lock:  # threads may ask at once
            if self.returncode is None:
                with contextlib.suppress(BlockingIOError):
                    self.returncode = int(self._connection.recv(64) or b"-9")
                    self._connection.close()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None:
            with contextlib.suppress(ValueError, OSError):  # another thread has just heard of its end
                select.select([self._connection], [], [], timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout or 0)
        return code

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """Everything it says until it ends: on standard output, and on standard error if that has a pipe of its own."""
        said = {pipe.fileno(): b"" for pipe in (self.stdout, self.stderr) if pipe}
        left, deadline = {*said}, time.monotonic() + timeout
        while left:
            readable, _, _ = select.select([*left], [], [], max(0, deadline - time.monotonic()))
            if not readable:
                raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout)
            for pipe in readable:
                content = os.read(pipe, 1 << 16)
                said[pipe] += content
                left -= set() if content else {pipe}
        self.wait(timeout)
        out, err = (said[pipe.fileno()].decode() if pipe else "" for pipe in (self.stdout, self.stderr))
        self._close()
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "Fork":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self.wait()

    def _close(self) -> None:
        for pipe in (self.stdout, self.stderr):
            if pipe:
                pipe.close()


class Nursery:
    """Where the warm process listens."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(
        self,
        command: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdout: IO[Any] | int | None = None,
        stderr: IO[Any] | int | None = subprocess.STDOUT,
    ) -> Fork:
        """Start `python -m ...`, `python -c ...`, or a script of this environment; anything else is executed by the fork.

        Standard output and error go where `subprocess.Popen` would let them go.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(self.path))
        out = _Target(stdout, 1)
        err = out if stderr == subprocess.STDOUT else _Target(stderr, 2)
        body = {
            "command": [str(word) for word in command],
            "env": dict(os.environ if env is None else env),
            "cwd": str(cwd or Path.cwd()),
        }
        content = json.dumps(body).encode()
        socket.send_fds(connection, [len(content).to_bytes(8, "big")], [out.descriptor, err.descriptor])
        connection.sendall(content)
        pid = int(_exactly(connection, 16))
        return Fork(connection, pid, out.pipe(), err.pipe() if err is not out else None)


class _Target:
    """Where output goes: a file, a pipe, or, by default, where that of this process goes."""

    def __init__(self, wanted: IO[Any] | int | None, default: int) -> None:
        self.read, self.descriptor = os.pipe() if wanted == subprocess.PIPE else (None, default)
        if wanted == subprocess.DEVNULL:
            self.descriptor = os.open(os.devnull, os.O_WRONLY)
        elif wanted is not None and not isinstance(wanted, int):
            self.descriptor = wanted.fileno()

    def pipe(self) -> IO[bytes] | None:
        """What to read from, once the other end was handed over."""
        if self.read is None:
            return None
        os.close(self.descriptor)
        return os.fdopen(self.read, "rb")


def _exactly(connection: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        more = connection.recv(count - len(content))
        assert more, "the warm process is gone"
        content += more
    return content


# --- the warm process -------------------------------------------------------------------------------------------------


def main(path: str) -> None:
    """Import everything, then fork for whoever asks; each fork comes back from `_request` with what it is to become."""
    for name in WARM:
        importlib.import_module(name)
    gc.freeze()  # forks share this memory as long as nobody writes to it
    body, outputs = _request(path)
    for number, output in enumerate(outputs, start=1):
        os.dup2(output, number)
        os.close(output)
    os.chdir(body["cwd"])
    os.environ.clear()
    os.environ.update(body["env"])
    tempfile.tempdir = None
    sys.path[:0] = [one for one in body["env"].get("PYTHONPATH", "").split(":") if one and one not in sys.path]
    code = _status(body["command"])
    # As the interpreter ends, but for taking apart what was imported, which takes as long as importing it did.
    threading._shutdown()  # type: ignore[attr-defined]  # until threads that are no daemons have ended
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _status(command: list[str]) -> int:
    """That of the program, as the interpreter would exit with."""
    try:
        _become(command)
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        print(left.code, file=sys.stderr)
        return 1
    except BaseException:  # noqa: BLE001 - it is the end of this process, whatever it was
        traceback.print_exc()
        return 1
    return 0


def _request(path: str) -> tuple[dict[str, Any], list[int]]:
    """The next request, in a fork of its own; this process goes on listening, and says with what status each fork has ended."""
    running: dict[int, socket.socket] = {}
    woken, waker = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(f"{path}.new")
    listener.listen(64)
    Path(f"{path}.new").rename(path)
    while True:
        readable, _, _ = select.select([listener, woken], [], [])
        if woken in readable:
            woken.recv(1 << 12)
        if listener in readable:
            connection, _ = listener.accept()
            size, outputs, _, _ = socket.recv_fds(connection, 8, 2)
            body = json.loads(_exactly(connection, int.from_bytes(size, "big")))
            if (pid := os.fork()) == 0:
                os.setsid()
                connection.sendall(f"{os.getpid():16}".encode())
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for one in (listener, connection, woken, waker, *running.values()):
                    one.close()
                return body, [*outputs]
            for output in outputs:
                os.close(output)
            running[pid] = connection
        while running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            with running.pop(pid) as connection, contextlib.suppress(OSError):
                connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _become(command: list[str]) -> None:
    """`python -m ...`, `python -c ...`, a script of this environment, or any other program."""
    program, *words = command
    script = Path(sys.executable).parent / Path(program).name
    if script.name.startswith("python") and words[0] == "-m":
        sys.argv = words[1:]
        sys.modules.pop(words[1], None)  # imported before, and not as the main module
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif script.name.startswith("python") and words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    elif script.is_file() and b"python" in script.read_bytes()[:200]:
        sys.argv = [str(script), *words]
        runpy.run_path(str(script), run_name="__main__")
    else:
        os.execvpe(program, command, os.environ)


if __name__ == "__main__":
    main(sys.argv[1])
