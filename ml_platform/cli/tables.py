"""Tables on stdout."""

import sys

from rich.console import Console
from rich.table import Table


def print_table(table: Table) -> None:
    """What is not a terminal (a pipe, a log) has no width, and nothing is cut off there."""
    Console(width=None if sys.stdout.isatty() else 1_000).print(table, markup=False)
