"""Which columns an expression reads. What it may contain, and what it is worth, is features/expressions.py's business."""

import ast
from dataclasses import dataclass

GUARDS = ("is_null", "fill_null")  # functions of whose first argument a null is nothing special


@dataclass(frozen=True)
class Reads:
    """Columns in the order of their first occurrence. A null of a `bare` one is a null of the whole."""

    columns: tuple[str, ...]
    bare: tuple[str, ...]


def reads(node: ast.expr) -> Reads:
    columns: dict[str, None] = {}
    bare: dict[str, None] = {}

    def walk(node: ast.AST, guarded: bool) -> None:
        if isinstance(node, ast.Name):
            columns[node.id] = None
            if not guarded:
                bare[node.id] = None
        elif isinstance(node, ast.Call):
            of = node.func.id if isinstance(node.func, ast.Name) else ""
            for place, argument in enumerate(node.args):
                walk(argument, of in GUARDS and place == 0)
        else:
            for child in ast.iter_child_nodes(node):
                walk(child, False)

    walk(node, False)
    return Reads(tuple(columns), tuple(bare))


def read_by(text: str) -> Reads:
    """The same of a text.

    Raises:
        ValueError: if it is no expression.
    """
    try:
        return reads(ast.parse(text, mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"`{text[:200]}` is no expression: {getattr(error, 'msg', error)}") from error
