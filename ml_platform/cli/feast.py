"""`ml-platform feast`: the snapshot views as a repository for Feast's own programs."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ml_platform.core.catalog import catalog_at
from ml_platform.core.errors import SettingsError
from ml_platform.core.settings import load_settings
from ml_platform.features import feast_repo


def feast(folder: Annotated[Path, typer.Argument(help="where to write feature_store.yaml and features.py")]) -> None:
    """Write a folder in which `feast apply`, `feast ui` and Feast's Python client work."""
    settings = load_settings()
    catalog = catalog_at(settings)
    try:
        files = feast_repo.repository(catalog, settings)
    except ImportError as error:
        raise SettingsError("ml-platform feast", str(error), "pip install 'ml-platform[feast]'") from error
    paths = {folder / name: content for name, content in files.items()}
    for path in paths:
        if path.exists() and feast_repo.MARK not in path.read_text(encoding="utf-8").partition("\n")[0]:
            raise SettingsError(str(path), "is not a file that this command has written", "choose another folder")
    for needed in (folder, *(path.parent for path in feast_repo.local_files(feast_repo.store_settings(settings)))):
        needed.mkdir(parents=True, exist_ok=True)
    for path, content in paths.items():
        path.write_text(content, encoding="utf-8")
        print(f"wrote {path}")
    if feast_repo.REDIS_PASSWORD in files["feature_store.yaml"]:
        print(f"the password of Redis is not in there: export {feast_repo.REDIS_PASSWORD}=...")
    if settings.online_store_url.startswith("sqlite:///"):
        print(
            "features/online_store goes to a store of its own, which Feast cannot read; to have it fill Feast's: "
            f"export ML_PLATFORM_ONLINE_STORE=feast+sqlite:///{settings.home}/feast/online_store.db"
        )
    print(f"next: cd {shlex.quote(str(folder))} && feast apply && feast feature-views list")
