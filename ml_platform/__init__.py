"""Declare a model in one YAML file and get its production lineage graph on Dagster.

In a notebook or a test: `import ml_platform as mp`, then `mp.project()` reads what the present project has made, and
`mp.compute_view(...)` computes a feature view from rows of one's own.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_platform.library import Reader, compute_view

__all__ = ["compute_view", "project"]


def project(name: str = "") -> "Reader":
    """The project of that package or folder, to read what it has made; default: the one that one stands in."""
    from ml_platform.library import Reader

    return Reader.of(name)


def __getattr__(name: str) -> Any:
    # What computes is imported when it is asked for: every process of the platform imports this package.
    if name == "compute_view":
        from ml_platform import library

        return library.compute_view
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
