"""A version is tried in a process of its own before it takes traffic: whatever a bundle does to that process, it does there.

The process has no variables of the server's but those that a Python needs, an empty folder to work in, and limits of time and
memory. It says in one line of JSON that the version is sound, or why not; its silence is a reason too.
"""

import contextlib
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ml_platform.core.errors import BundleError, PlatformError
from ml_platform.registry.bundle import Bundle, unpack
from ml_platform.serving.scoring import scores_of

WARM_ROWS = (1, 8, 64)  # sizes of batches that are tried
INHERITED = ("PATH", "LD_LIBRARY_PATH", "LANG", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
LONGEST_REASON = 2_000


@dataclass(frozen=True)
class Probation:
    """Limits of the trial: seconds of time, and bytes that the process may allocate beside the bundle itself."""

    seconds: float = 60.0
    memory: int = 2 << 30

    def __call__(self, files: Mapping[str, bytes], subject: str, plugins: Collection[str]) -> None:
        """Load and self-test a bundle in a process of its own.

        Raises:
            BundleError: with the reason, if that goes wrong in whatever way.
        """
        # What is unpacked, read and copied for a moment stands in memory several times.
        memory = self.memory + 8 * sum(map(len, files.values()))
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment |= {"PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as content:
            _write(content, files)
            content.seek(0)
            command = [sys.executable, "-c", f"from {__name__} import main; main()", subject, str(memory), *plugins]
            # A plugin may lie beside the server, where a safe path does not look.
            environment["PYTHONPATH"] = os.pathsep.join([one for one in sys.path if one and Path(one).is_dir()])
            try:
                done = subprocess.run(
                    command, stdin=content, capture_output=True, env=environment, cwd=folder, timeout=self.seconds, check=False
                )  # fmt: skip
            except subprocess.TimeoutExpired as error:
                problem = f"its trial took longer than {self.seconds:g} s"
                raise BundleError(subject, problem, "train a smaller model, or raise the limit") from error
        if reason := _reason(done):
            raise BundleError(subject, reason, "train again")


def _reason(done: "subprocess.CompletedProcess[bytes]") -> str:
    """Why a version is refused; empty if it is sound."""
    lines = done.stdout.strip().splitlines()
    try:
        said = json.loads(lines[-1])["refused"] if done.returncode == 0 else None
    except (IndexError, ValueError, TypeError, KeyError):
        said = None
    if isinstance(said, str):
        return said[:LONGEST_REASON]
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return f"its trial ended with status {done.returncode}{': ' + last[0][:LONGEST_REASON] if last else ''}"


def _write(stream: BinaryIO, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        stream.write(struct.pack("<QQ", len(name.encode()), len(content)) + name.encode())
        stream.write(content)


def _read(stream: BinaryIO) -> dict[str, bytes]:
    files = {}
    while header := stream.read(16):
        of_name, of_content = struct.unpack("<QQ", header)
        name = stream.read(of_name).decode()
        files[name] = stream.read(of_content)
    return files


def main() -> None:
    """The process: bundle on standard input; subject, bytes of memory and plugins as arguments."""
    subject, memory, *plugins = sys.argv[1:]
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    files = _read(sys.stdin.buffer)
    with contextlib.suppress(ImportError):  # in an image for other models
        import torch  # noqa: F401  # its own memory does not count: it is mapped before the limit is there
    most = allocated() + int(memory)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    refused = ""
    try:
        self_test(unpack(files, subject, plugins), subject)
    except BundleError as error:
        refused = error.problem
    except MemoryError:
        refused = f"its trial needs more than {int(memory) >> 20} MB of memory"
    except Exception as error:  # noqa: BLE001 - that is what is to be found out
        refused = f"{type(error).__name__}: {error}"
    answer.write(json.dumps({"refused": refused}) + "\n")
    answer.flush()
    os._exit(0)  # at once, whatever was started


def allocated() -> int:
    """Bytes of private memory that this process has mapped for data."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    return 0


def self_test(bundle: Bundle, subject: str) -> None:
    """Score rows of defaults, which also warms the model up.

    Raises:
        BundleError: if a score is missing or not finite.
    """
    row = {name: np.array([default]) for name, default in bundle.schema.features.items()}
    row |= {name: empty_column(type_) for name, type_ in bundle.schema.request.items()}
    dimensions = 2 if bundle.spec.task == "multiclass_classification" else 1
    for rows in WARM_ROWS:
        try:
            scores = scores_of(bundle, {name: np.repeat(value, rows) for name, value in row.items()}, rows)
        except PlatformError as error:
            raise BundleError(subject, f"self-test: {error.problem}", error.next_step) from error
        except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise BundleError(subject, f"self-test: {type(error).__name__}: {error}", "train again") from error
        if scores.ndim != dimensions or not np.isfinite(scores).all():
            wanted = "one finite score per class" if dimensions == 2 else "one finite score"
            raise BundleError(subject, f"self-test gave {scores[0]!r}, not {wanted}", "train again")


def empty_column(type_: str) -> np.ndarray:
    """One row of a harmless value of a column type."""
    if type_ == "timestamp":
        return np.array(["2020-01-01"], dtype="datetime64[us]")
    if type_ == "bool":
        return np.zeros(1, dtype=bool)
    return np.array([""], dtype=object) if type_ == "string" else np.zeros(1)
