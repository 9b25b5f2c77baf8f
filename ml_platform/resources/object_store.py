"""The landing bucket: what producers put there, over the S3 protocol. It is the origin of sources made of files."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ml_platform.core.errors import LandingError, SettingsError
from ml_platform.core.settings import Settings
from ml_platform.core.spec import SourceSpec
from ml_platform.data.landing import LandedObject, Page, day_of, day_prefix

CHUNK_BYTES = 1 << 20


class ObjectStore:
    """Objects below one landing address. `client` is a boto3 S3 client."""

    def __init__(self, client: Any, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme != "s3" or not parts.netloc:
            raise SettingsError(
                "ML_PLATFORM_LANDING", f"{address!r} is not s3://bucket[/prefix]", "export ML_PLATFORM_LANDING=s3://..."
            )
        self.client = client
        self.address = address.rstrip("/")
        self.bucket = parts.netloc
        self.prefix = f"{parts.path.strip('/')}/" if parts.path.strip("/") else ""

    @classmethod
    def at(cls, settings: Settings) -> "ObjectStore":
        """For callers outside Dagster; inside, dagster-aws makes the client."""
        import boto3

        return cls(boto3.client("s3", **client_options(settings)), settings.landing)

    def url(self, key: str) -> str:
        return f"{self.address}/{key}"

    def objects(self, prefix: str) -> Iterator[LandedObject]:
        """Objects whose key, relative to the landing address, begins with `prefix`, in key order."""
        with self._translated(f"list {prefix}"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + prefix
            )
            for page in pages:
                yield from map(self._landed, page.get("Contents", ()))

    def page(self, source: SourceSpec, after: str) -> Page:
        prefix = f"{source.name}/"
        with self._translated(f"list {prefix}"):
            found = self.client.list_objects_v2(
                Bucket=self.bucket, Prefix=self.prefix + prefix, StartAfter=self.prefix + after
            )
        return Page(tuple(map(self._landed, found.get("Contents", ()))), found["IsTruncated"])

    def of_day(self, source: SourceSpec, day: date) -> list[LandedObject]:
        return [o for o in self.objects(day_prefix(source.name, day)) if day_of(source.name, o.key)]

    def fetch(self, source: SourceSpec, found: LandedObject, target: Path) -> None:
        with self._translated(f"read {found.key}"):
            answer = self.client.get_object(Bucket=self.bucket, Key=self.prefix + found.key)
            if answer["ETag"].strip('"') != found.etag:
                raise LandingError(self.url(found.key), "was replaced while it was read", "it is tried again")
            with target.open("wb") as file:
                for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
                    file.write(chunk)

    def read(self, key: str) -> bytes:
        with self._translated(f"read {key}"):
            return self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"].read()

    def write(self, key: str, content: bytes) -> None:
        with self._translated(f"write {key}"):
            self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=content)

    def ensure_bucket(self) -> None:
        """Create the bucket if it is not there."""
        with self._translated("create the bucket"):
            if self.bucket not in {bucket["Name"] for bucket in self.client.list_buckets()["Buckets"]}:
                self.client.create_bucket(Bucket=self.bucket)

    def _landed(self, entry: dict[str, Any]) -> LandedObject:
        return LandedObject(
            entry["Key"].removeprefix(self.prefix), entry["ETag"].strip('"'), entry["Size"], entry["LastModified"]
        )

    @contextmanager
    def _translated(self, attempt: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise LandingError(
                self.address, f"could not {attempt}: {error}", "start it (make dev), or set ML_PLATFORM_S3_ENDPOINT"
            ) from error


def client_options(settings: Settings) -> dict[str, str]:
    """Options of a boto3 S3 client for the address in the settings."""
    options: dict[str, str] = {}
    if endpoint := settings.s3_endpoint_url:
        options["endpoint_url"] = endpoint
    if credentials := settings.s3_credentials:
        options["aws_access_key_id"], options["aws_secret_access_key"] = credentials
        options["region_name"] = "us-east-1"  # any; the embedded server ignores it, but requests are signed with one
    return options
