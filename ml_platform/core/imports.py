"""Names in YAML that stand for Python objects."""

from importlib import import_module
from typing import Any

from ml_platform.core.errors import SpecError


def load_object(path: str, field: str) -> Any:
    """The object that `module.attribute` names.

    Raises:
        SpecError: naming the YAML field, if there is no such module or attribute.
    """
    module, _, attribute = path.rpartition(".")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise SpecError(path, f"cannot be imported: {error}", f"mend `{field}`") from error
