"""What commands about the lake start from."""

from ml_platform.core.catalog import Catalog, catalog_at
from ml_platform.core.settings import Settings, load_settings
from ml_platform.resources.lake import Lake


def world() -> tuple[Settings, Catalog, Lake]:
    """The settings, and the catalog and the lake that they name."""
    settings = load_settings().model_copy(update={"strict": False})  # one broken file is no reason to see nothing
    return settings, catalog_at(settings), Lake.at(settings)
