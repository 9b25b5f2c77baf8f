"""One broken file does not take the others down, and all mistakes are said at once."""

from pathlib import Path

from ml_platform.core.catalog import _survey, remember, survey
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform_tests.core.test_catalog import MODEL, SOURCE, write

BUILT_IN = {path.parent.name: path.read_text() for path in find_project(EXAMPLE).defs.rglob("defs.yaml")}


def lay_out(folder: Path, **changes: str) -> dict[str, Path]:
    return {name: write(folder, text, name) for name, text in {**BUILT_IN, **changes}.items()}


def test_all_mistakes_of_all_files_are_said_each_with_its_line(tmp_path: Path) -> None:
    model = MODEL.replace("customer_activity", "custmer_activity, terminal_rsk")
    paths = lay_out(
        tmp_path,
        copy=model + "  gates: [{metric: f1, min: 0.5, per: usr}]\n  resources: {profiles: [nowhere]}\n",
        clicks=SOURCE.replace("int64", "int46").replace("  key:", "  kee:"),
        empty="",
    )
    found = [str(error) for error in survey(tmp_path).errors]
    for words in (
        f"{paths['clicks']}:",
        "unknown key `kee`; did you mean `key`?",
        "did you mean `int64`",
        f"{paths['empty']}:1: the file is empty",
        f"{paths['copy']}:6: `features`: no feature view 'custmer_activity'; did you mean `customer_activity`",
        "no feature view 'terminal_rsk'; did you mean `terminal_risk`",
        "`gates.0.per`: no column of transactions 'usr'",
        f"{paths['copy']}:9: `resources.profiles.0`: no profile of the cluster 'nowhere'",
    ):
        assert any(words in error for error in found), (words, found)
    assert not any("`key` is required" in error for error in found), "the misspelling is what to mend"


def test_file_with_a_mistake_is_left_out_with_what_rests_on_it_and_the_rest_is_there(tmp_path: Path) -> None:
    paths = lay_out(
        tmp_path, terminal_risk="type: ml_platform.components.FeatureView\nattributes: {name: terminal_risk}\n"
    )
    found = survey(tmp_path)
    assert "terminal_risk" not in found.catalog.views
    assert "customer_activity" in found.catalog.views
    assert not found.catalog.models, "the model reads the view"
    assert {*found.catalog.broken} == {paths["terminal_risk"], paths["fraud_detection"]}


def test_file_with_a_mistake_stands_as_it_last_was(tmp_path: Path) -> None:
    defs, kept = tmp_path / "defs", tmp_path / "last_good"
    paths = lay_out(defs)
    remember(survey(defs, last_good=kept), defs, kept)
    paths["fraud_detection"].write_text(BUILT_IN["fraud_detection"].replace("seed: 7", "sead: 7"))
    paths["transactions"].write_text("type: [")
    _survey.cache_clear()
    found = survey(defs, last_good=kept)
    assert found.catalog.models["fraud_detection"].training.seed == 7
    assert "transactions" in found.catalog.sources
    assert {*found.catalog.broken} == {paths["fraud_detection"], paths["transactions"]}
    remember(found, defs, kept)
    assert (kept / "fraud_detection" / "defs.yaml").read_text() == BUILT_IN["fraud_detection"], "a mistake is not kept"


def test_last_good_version_that_no_longer_fits_the_others_is_left_out(tmp_path: Path) -> None:
    defs, kept = tmp_path / "defs", tmp_path / "last_good"
    paths = lay_out(defs, copy=MODEL)
    remember(survey(defs, last_good=kept), defs, kept)
    paths["copy"].write_text(MODEL.replace("features", "featuers"))
    paths["customer_activity"].unlink()
    paths["fraud_detection"].unlink()
    _survey.cache_clear()
    found = survey(defs, last_good=kept)
    assert not found.catalog.models
    assert "transactions" in found.catalog.sources
