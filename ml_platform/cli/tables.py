"""Tables and trees on stdout, or the same for programs."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

Json = Annotated[bool, typer.Option("--json", help="for programs")]


def print_table(table: Table | Tree) -> None:
    """What is not a terminal (a pipe, a log) has no width, and nothing is cut off there."""
    Console(width=None if sys.stdout.isatty() else 1_000).print(table, markup=False)
