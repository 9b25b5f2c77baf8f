"""`ml-platform init`: a project of one's own."""

import json
import keyword
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from ml_platform.core.errors import SettingsError

TEMPLATE = Path(str(files("ml_platform.cli"))) / "template"
NAME = "my_team"  # what a project is called in the template
HIDDEN = ("gitignore", "github")  # names that begin with a dot where they are written
EXAMPLES = Path(str(files("ml_platform"))) / "examples"


def init(
    name: Annotated[str, typer.Argument(help="its Python package: lower case, digits, underscores")],
    example: Annotated[Literal["empty", "fraud"], typer.Option(help="what it begins with")] = "empty",
    into: Annotated[Path | None, typer.Option(help="the folder; default: ./NAME")] = None,
) -> None:
    """Write a project of your own: a package with a `defs` folder, tests, a Makefile, an image and a CI workflow."""
    folder = into or Path(name)
    _check(name, folder)
    for source in (TEMPLATE / "common", TEMPLATE / example):
        for path in sorted(source.rglob("*.tmpl")):
            parts = [f".{part}" if part in HIDDEN else part for part in path.relative_to(source).with_suffix("").parts]
            _write(folder.joinpath(*parts), path.read_text(encoding="utf-8"), name)
    if example != "empty":
        _copy(EXAMPLES / example, folder / name, f"ml_platform.examples.{example}", name)
    print(f"{folder} is a project: cd {folder}, then make check, make test, make dev")


def _check(name: str, folder: Path) -> None:
    if not (name.isidentifier() and name == name.lower()) or keyword.iskeyword(name):
        raise SettingsError(
            "NAME", f"{name!r} is no name of a package", "take lower case letters, digits and underscores"
        )
    if name in sys.stdlib_module_names or find_spec(name) is not None:
        raise SettingsError("NAME", f"there is a package {name!r} already", "take another name")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError("--into", f"{folder} is there already and not empty", "name another folder")


def _write(path: Path, text: str, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = Path(*[part.replace(NAME, name) for part in path.parts])
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(text.replace(NAME, name).replace("{{platform}}", installed_from()), encoding="utf-8")


def _copy(example: Path, package: Path, path: str, name: str) -> None:
    """What an example declares and computes, under the project's own name."""
    for source in sorted(example.rglob("*")):
        if source.suffix in (".py", ".yaml") and source.name != "definitions.py":
            target = package / source.relative_to(example)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source.read_text(encoding="utf-8").replace(path, name), encoding="utf-8")


def installed_from() -> str:
    """What pip is to be given to install the platform as it is installed here."""
    try:
        found = distribution("ml-platform")
    except PackageNotFoundError:
        return "ml-platform"
    if origin := found.read_text("direct_url.json"):
        url = json.loads(origin)["url"]
        return f"ml-platform @ {url}" if url.startswith("file:") else url
    return f"ml-platform=={found.version}"
