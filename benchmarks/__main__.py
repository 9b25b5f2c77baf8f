"""Run benchmarks by name, or all; exits 1 if a figure misses its budget."""

import argparse
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.arrival_tick import arrival_tick
from benchmarks.backfill import backfill
from benchmarks.device import device
from benchmarks.feature_memory import feature_memory
from benchmarks.features import as_of_join, features
from benchmarks.figure import Figure
from benchmarks.hostile import hostile
from benchmarks.hot_swap import hot_swap
from benchmarks.ingest import ingest
from benchmarks.latency import latency
from benchmarks.load_definitions import load_definitions
from benchmarks.monitoring import monitoring
from benchmarks.online_read import online_read
from benchmarks.search import search
from benchmarks.serving import serving_speed
from benchmarks.shared_machine import shared_machine
from benchmarks.trainer import trainer

BENCHMARKS: dict[str, Callable[[], Iterator[Figure]]] = {
    "load_definitions": load_definitions,
    "arrival_tick": arrival_tick,
    "ingest": ingest,
    "backfill": backfill,
    "features": features,
    "feature_memory": feature_memory,
    "as_of_join": as_of_join,
    "online_read": online_read,
    "trainer": trainer,
    "shared_machine": shared_machine,
    "device": device,
    "search": search,
    "monitoring": monitoring,
    "serving": serving_speed,
    "hostile": hostile,
    "hot_swap": hot_swap,
    "latency": latency,
}
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
MARK = "<!-- make bench writes below -->"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; default all")
    parser.add_argument("--write", action="store_true", help="write the figures to docs/benchmarks.md")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    figures = []
    for name in arguments.names or BENCHMARKS:
        for figure in BENCHMARKS[name]():
            print(figure.line(), flush=True)
            figures.append(figure)
    if arguments.write:
        write(figures)
    return 0 if all(figure.passed for figure in figures) else 1


def write(figures: list[Figure]) -> None:
    """Replace the measured part of the page."""
    kept = PAGE.read_text().split(MARK)[0]
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    PAGE.write_text(f"{kept}{MARK}\n\nOn {machine}:\n\n```text\n" + "\n".join(f.line() for f in figures) + "\n```\n")


if __name__ == "__main__":
    sys.exit(main())
