"""Two trainings at once on one machine, as a pool with two slots lets them be, against one: each in a process of its own.

Each gets its part of the cores, as a step does. Beside it the same with torch's own number of threads, which spin while they wait.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from statistics import median

from benchmarks.figure import Figure
from ml_platform.core.threads import WAIT_POLICY, cores

ROWS, SLOTS, ROUNDS = 100_000, 2, 3


def shared_machine() -> Iterator[Figure]:
    alone, both = [], []
    for _ in range(ROUNDS):
        alone += _trainings(1, as_steps=True)
        both += _trainings(SLOTS, as_steps=True)
    wall, cpu = _medians(alone)
    wall_of_two, cpu_of_two = _medians(both)
    yield Figure("shared_machine.alone_rows_per_second", ROWS / wall, "rows/s")
    yield Figure("shared_machine.two_processor_time", cpu_of_two / cpu, "x", 1.15)
    yield Figure("shared_machine.two_wall", wall_of_two / wall, "x", 2.2)
    wall_before, cpu_before = _medians(_trainings(SLOTS, as_steps=False))
    yield Figure("shared_machine.two_as_torch_has_it_processor_time", cpu_before / cpu, "x")
    yield Figure("shared_machine.two_as_torch_has_it_wall", wall_before / wall, "x")


def _medians(measured: list[dict[str, float]]) -> tuple[float, float]:
    return median(one["wall"] for one in measured), median(one["cpu"] for one in measured)


def _trainings(number: int, as_steps: bool) -> list[dict[str, float]]:
    """So many at once; wall and processor seconds of each fit, after all have imported what they need."""
    environment = {name: value for name, value in os.environ.items() if name not in (WAIT_POLICY, "OMP_NUM_THREADS")}
    command = [sys.executable, "-m", "benchmarks.shared_machine", str(max(1, cores() // SLOTS) if as_steps else 0)]
    started = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(number)
    ]
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return [json.loads(process.communicate()[0]) for process in started]


def _fit(threads: int) -> None:
    """One training, when it is told to go; with 0 threads, as torch has it."""
    import time
    from contextlib import nullcontext

    from ml_platform.core.threads import limited, wait_passively

    if threads:
        wait_passively()
    from benchmarks.trainer import fit_rows, rows_of

    rows, held_out = rows_of(ROWS), rows_of(1_000)
    with limited(threads) if threads else nullcontext():
        fit_rows(rows_of(1_000), held_out)
        print("ready", flush=True)
        sys.stdin.readline()
        wall, cpu = time.perf_counter(), time.process_time()
        fit_rows(rows, held_out, batch_size=512)
        print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}))


if __name__ == "__main__":
    _fit(int(sys.argv[1]))
