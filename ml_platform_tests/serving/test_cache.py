"""What is remembered over a restart is whole and true, or not used."""

from pathlib import Path

import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.registry import bundle
from ml_platform.registry.versions import Version
from ml_platform.rollout.traffic import Traffic
from ml_platform.serving.cache import SPARE, BundleCache
from ml_platform_tests.registry.test_bundle import make_bundle


@pytest.fixture(scope="module")
def files(catalog: Catalog) -> dict[str, bytes]:
    return make_bundle(catalog)


@pytest.fixture
def version(files: dict[str, bytes]) -> Version:
    return Version("m", "1", bundle.digest_of(files), "2018-05-31", "run", "source")


def test_saved_files_are_loaded_and_nothing_else_lies_about(
    tmp_path: Path, files: dict[str, bytes], version: Version
) -> None:
    cache = BundleCache(tmp_path)
    assert cache.load(version) is None
    cache.save(version, files)
    assert cache.load(version) == files
    assert [folder.name for folder in tmp_path.iterdir()] == [version.digest]


@pytest.mark.parametrize("damage", ["changed", "cut short", "missing", "added"])
def test_tampered_bundle_is_ignored_and_replaced(
    tmp_path: Path, files: dict[str, bytes], version: Version, damage: str
) -> None:
    cache = BundleCache(tmp_path)
    cache.save(version, files)
    weights = tmp_path / version.digest / "model.safetensors"
    content = weights.read_bytes()
    match damage:
        case "changed":
            weights.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        case "cut short":
            weights.write_bytes(content[:10])
        case "missing":
            weights.unlink()
        case _:
            (weights.parent / "more").write_text("")
    assert cache.load(version) is None
    cache.save(version, files)
    assert cache.load(version) == files


def test_folder_that_cannot_be_written_is_no_reason_not_to_serve(
    tmp_path: Path, files: dict[str, bytes], version: Version
) -> None:
    (tmp_path / "file").write_text("")
    cache = BundleCache(tmp_path / "file")
    cache.save(version, files)
    cache.remember({"m": Traffic(version)})
    assert (cache.load(version), cache.remembered()) == (None, {})


def test_who_answered_is_remembered(tmp_path: Path, version: Version) -> None:
    cache = BundleCache(tmp_path / "new")
    challenger = Version("m", "2", "other", "2018-06-01", "run", "source")
    traffic = {"m": Traffic(version, challenger, 0.1, False, "salt"), "n": Traffic(version)}
    cache.remember(traffic)
    assert BundleCache(tmp_path / "new").remembered() == traffic


@pytest.mark.parametrize("content", ["", "{", "[]", '{"m": 1}', '{"m": {"champion": {}}}'])
def test_memory_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "traffic.json").write_text(content)
    assert BundleCache(tmp_path).remembered() == {}


def test_bundles_in_use_and_some_spare_ones_are_kept(tmp_path: Path, version: Version) -> None:
    cache = BundleCache(tmp_path)
    for number in range(SPARE + 3):
        cache.save(Version("m", str(number), f"digest-{number}", "", "", ""), {"file": b""})
    cache.prune({"digest-0"})
    kept = {folder.name for folder in tmp_path.iterdir()}
    assert "digest-0" in kept
    assert len(kept) == SPARE + 1
