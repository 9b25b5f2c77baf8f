import boto3
import pytest

from ml_platform.core.errors import LandingError, SettingsError
from ml_platform.core.settings import Settings
from ml_platform.resources.object_store import ObjectStore, client_options
from ml_platform_tests.processes import free_port

pytestmark = pytest.mark.usefixtures("s3_port")


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    store = ObjectStore.at(settings)
    store.ensure_bucket()
    return store


def test_objects_are_listed_below_a_prefix_with_etag_and_size(store: ObjectStore) -> None:
    store.write("clicks/2024-01-01/a", b"12345")
    store.write("other/2024-01-01/a", b"1")
    found = list(store.objects("clicks/"))
    assert [(o.key, o.size) for o in found] == [("clicks/2024-01-01/a", 5)]
    assert store.read("clicks/2024-01-01/a") == b"12345"
    store.write("clicks/2024-01-01/a", b"54321")
    assert next(store.objects("clicks/")).etag != found[0].etag


def test_address_may_have_a_prefix(settings: Settings) -> None:
    store = ObjectStore(boto3.client("s3", **client_options(settings)), f"{settings.landing}/deep/er")
    store.ensure_bucket()
    store.write("a", b"1")
    assert [o.key for o in store.objects("")] == ["a"]
    assert store.url("a") == f"{settings.landing}/deep/er/a"


def test_server_that_is_down_is_named_with_the_next_step() -> None:
    with pytest.raises(LandingError, match="set ML_PLATFORM_S3_ENDPOINT"):
        list(ObjectStore.at(Settings(s3_port=free_port())).objects(""))


def test_address_that_is_not_s3_is_refused() -> None:
    with pytest.raises(SettingsError, match="ML_PLATFORM_LANDING"):
        ObjectStore(None, "/some/folder")
