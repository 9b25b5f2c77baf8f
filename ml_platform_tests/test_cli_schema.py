"""What the YAML files may say, for editors and for people."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.cli.schema import of_files, tables
from ml_platform.core.catalog.reading import SPEC_OF_COMPONENT
from ml_platform.core.project import EXAMPLE, find_project

ROOT = Path(__file__).parents[1]


def test_schema_takes_every_file_of_the_example_and_refuses_a_misspelt_one() -> None:
    schema = jsonschema.Draft202012Validator(json.loads(CliRunner().invoke(app, ["schema"]).output))
    documents = [
        json.loads(json.dumps(document, default=str))
        for path in find_project(EXAMPLE).defs.rglob("defs.yaml")
        for document in yaml.safe_load_all(path.read_text())
    ]
    assert [list(schema.iter_errors(document)) for document in documents] == [[] for _ in documents]
    model = next(one for one in documents if one["type"].endswith("Model"))
    model["attributes"]["featuers"] = model["attributes"].pop("features")
    assert not schema.is_valid(model)


@pytest.mark.parametrize("component", SPEC_OF_COMPONENT)
def test_every_field_says_what_it_is(component: str) -> None:
    found = SPEC_OF_COMPONENT[component].model_json_schema(ref_template="{model}")
    objects = {component: found, **found.get("$defs", {})}
    silent = [
        f"{name}.{field}"
        for name, about in objects.items()
        for field, one in about.get("properties", {}).items()
        if not one.get("description")
    ]
    assert silent == []


def test_page_of_all_fields_is_up_to_date() -> None:
    page = ROOT / "docs" / "fields.md"
    assert page.read_text().strip() == tables().strip(), "ml-platform schema --markdown > docs/fields.md"
    assert len(of_files()["oneOf"]) == len(SPEC_OF_COMPONENT)
