"""Named resources of the cluster, in place of their names in sources, views and models."""

from pathlib import Path

import pytest

from ml_platform.core.catalog import load_catalog
from ml_platform.core.errors import SettingsError
from ml_platform.core.spec import ResourcesSpec
from ml_platform_tests.core.test_catalog import SOURCE, mistake, write

CLUSTER = """\
type: ml_platform.components.Cluster
attributes:
  profiles:
    gpu-a100: {cpu: 8, memory: 64Gi, gpu: 1, gpu_type: [a100]}
    spot: {spot: true, retries: {max: 7}}
"""
VIEW = """\
type: ml_platform.components.FeatureView
attributes: {name: v, kind: request, features: {f: {expression: user_id}}}
"""
MODEL = """\
type: ml_platform.components.Model
attributes:
  name: m
  entity_rows: clicks
  label: {source: clicks, column: user_id}
  features: [v]
  candidates: [{trainer: linear}]
  resources: RESOURCES
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {"cluster": CLUSTER, "clicks": SOURCE, "v": VIEW}.items():
        write(tmp_path, text, name)
    return tmp_path


def resources(folder: Path, given: str, cluster: str = "") -> ResourcesSpec:
    write(folder, MODEL.replace("RESOURCES", given), "m")
    return load_catalog(folder, cluster=cluster).models["m"].resources


def test_profile_says_what_the_model_does_not(folder: Path) -> None:
    found = resources(folder, "{profiles: [gpu-a100, spot], memory: 128Gi}")
    assert (found.gpu, found.gpu_type, found.cpu, found.memory) == (1, ("a100",), "8", "128Gi")
    assert (found.spot, found.retried.max) == (True, 7)


def test_model_may_narrow_a_gpu_that_the_profile_brings(folder: Path) -> None:
    assert resources(folder, "{profiles: [gpu-a100], gpu_type: [h100]}").gpu_type == ("h100",)


def test_sizes_take_profiles_too(folder: Path) -> None:
    found = resources(folder, "{cpu: 2, sizes: [{up_to: 1G}, {profiles: [gpu-a100], nodes: 2}]}")
    assert (found.of_size(0).cpu, found.of_size(0).gpu) == ("2", 0)
    assert (found.of_size(1).cpu, found.of_size(1).gpu, found.of_size(1).nodes) == ("8", 1, 2)


def test_sources_and_batch_steps_take_what_of_a_profile_concerns_their_pod(folder: Path) -> None:
    write(folder, SOURCE + "  resources: {profiles: [spot], memory: 8Gi}\n", "clicks")
    write(folder, MODEL.replace("resources: RESOURCES", "batch_resources: {profiles: [spot]}"), "m")
    catalog = load_catalog(folder)
    pods = (catalog.sources["clicks"].resources, catalog.models["m"].batch_resources)
    assert [pod and pod.spot for pod in pods] == [True, True]


@pytest.mark.parametrize("given", ["{profiles: [gpu-a10]}", "{sizes: [{up_to: 1G}, {profiles: [gpu-a10]}]}"])
def test_unknown_profile_is_refused_with_the_nearest_name(folder: Path, given: str) -> None:
    path = write(folder, MODEL.replace("RESOURCES", given), "m")
    assert mistake(folder).startswith(f"{path}:8: `resources.")
    assert "no profile of the cluster 'gpu-a10'; did you mean `gpu-a100`?" in mistake(folder)


def test_what_is_impossible_together_is_refused(folder: Path) -> None:
    write(folder, MODEL.replace("RESOURCES", "{profiles: [spot], gpu_type: [a100]}"), "m")
    assert "gpu_type is given but gpu is 0" in mistake(folder)
    write(folder, MODEL.replace("RESOURCES", "{sizes: [{up_to: 1G}, {gpu_type: [a100]}]}"), "m")
    assert "gpu_type is given but gpu is 0" in mistake(folder)


def test_typo_in_a_profile_is_named_with_its_line(folder: Path) -> None:
    path = write(folder, CLUSTER.replace("gpu_type", "gpu_types"), "cluster")
    assert mistake(folder).startswith(f"{path}:4: unknown key `profiles.gpu-a100.gpu_types`; did you mean `gpu_type`?")


@pytest.mark.parametrize("inner", ["profiles: [spot]", "sizes: [{}]"])
def test_profile_of_profiles_or_sizes_is_refused(folder: Path, inner: str) -> None:
    write(folder, CLUSTER + f"    both: {{{inner}}}\n", "cluster")
    assert "profiles.both: a profile has no" in mistake(folder)


def test_second_cluster_is_refused(folder: Path) -> None:
    write(folder, CLUSTER, "another")
    assert "there is a Cluster already" in mistake(folder)


def test_environment_says_a_profile_anew_and_leaves_the_others(folder: Path) -> None:
    here = "{profiles: {gpu-a100: {cpu: 250m}}, gpu_resource: amd.com/gpu}"
    found = resources(folder, "{profiles: [gpu-a100, spot]}", here)
    assert (found.cpu, found.gpu, found.memory, found.spot) == ("250m", 0, "2Gi", True)
    assert load_catalog(folder, cluster=here).cluster.gpu_resource == "amd.com/gpu"


@pytest.mark.parametrize(
    ("here", "words"),
    [
        ("{profiles: {p: {gpus: 1}}}", "unknown key `profiles.p.gpus`; did you mean `gpu`"),
        ("[a]", "is no mapping"),
        ("{a: ", "is not valid YAML"),
    ],
)
def test_mistake_in_the_environment_names_the_variable(folder: Path, here: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as error:
        load_catalog(folder, cluster=here)
    assert error.value.subject == "ML_PLATFORM_CLUSTER"
