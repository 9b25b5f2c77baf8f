import pytest

from ml_platform.core.errors import SettingsError
from ml_platform.core.settings import Settings, load_settings


def test_everything_has_an_embedded_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"ML_PLATFORM_{name.upper()}", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = load_settings()
    assert settings.s3_endpoint_url == "http://127.0.0.1:9100"
    assert settings.mlflow_url == "http://127.0.0.1:5000"
    assert settings.lake_url == str(settings.home / "lake")


def test_moved_port_moves_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_MODEL_SERVER_PORT", "8123")
    assert load_settings().model_server_url == "http://127.0.0.1:8123"


def test_own_endpoint_uses_the_sdks_credentials_and_empty_means_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_S3_ENDPOINT", "https://minio.example")
    assert (load_settings().s3_endpoint_url, load_settings().s3_credentials) == ("https://minio.example", None)
    monkeypatch.setenv("ML_PLATFORM_S3_ENDPOINT", "")
    assert load_settings().s3_endpoint_url is None


def test_impossible_value_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_DAGSTER_PORT", "http")
    with pytest.raises(SettingsError, match=r"^ML_PLATFORM_DAGSTER_PORT: .*http"):
        load_settings()
