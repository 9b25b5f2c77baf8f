"""How many threads a process computes with: no more than it was given, and they sleep while they wait for each other.

OpenMP's threads spin while they wait. Beside another busy process that costs ten times the processor time and all of the speed.
"""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ml_platform.core.spec.base import cpus_of

CGROUP = Path("/sys/fs/cgroup")
WAIT_POLICY, OPENMP, JOBLIB = "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "LOKY_MAX_CPU_COUNT"
_given: list[int] = []  # by the blocks that this process is in


def wait_passively() -> None:
    """Have OpenMP's threads sleep while they wait. It is read once, when a library that has it is loaded."""
    os.environ.setdefault(WAIT_POLICY, "passive")


def cores(cgroup: Path = CGROUP) -> int:
    """The cores that this process may use: those that it may be scheduled on, or fewer where a container has a quota."""
    schedulable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return schedulable
    return schedulable if quota == "max" else max(1, min(schedulable, math.ceil(int(quota) / int(period))))


def given() -> int:
    """The threads that this process may compute with now."""
    return _given[-1] if _given else cores()


def share(cpu: str, slots: int = 1) -> int:
    """The threads of a step that asks for so much `cpu` (such as 4, 0.5 or 500m), where `slots` such steps share the cores."""
    return max(1, min(math.ceil(cpus_of(cpu)), cores() // slots))


@contextmanager
def limited(count: int, blas: int | None = None) -> Iterator[None]:
    """Within the block torch, BLAS, OpenMP, joblib and Arrow compute with `count` threads, and processes that are started too.

    `blas` is how many BLAS has, if not as many.
    """
    import pyarrow as pa
    from threadpoolctl import threadpool_limits

    before = {name: os.environ.get(name) for name in (OPENMP, JOBLIB)}
    arrow = pa.cpu_count()
    _given.append(count)
    try:
        with ExitStack() as stack:
            stack.enter_context(threadpool_limits(count, user_api="openmp"))
            stack.enter_context(threadpool_limits(blas or count, user_api="blas"))
            stack.enter_context(_torch(count))
            os.environ |= {OPENMP: str(count), JOBLIB: str(count)}
            pa.set_cpu_count(count)
            yield
    finally:
        _given.pop()
        pa.set_cpu_count(arrow)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _torch(count: int) -> Iterator[None]:
    """Where torch is loaded only later, it reads the environment."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
