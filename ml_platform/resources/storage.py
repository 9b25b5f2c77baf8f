"""Where files lie: a disk, or buckets behind an S3 endpoint; each file is written so that it appears whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow.fs as pafs

from ml_platform.core.settings import Settings
from ml_platform.resources.object_store import client_options

CHUNK_BYTES = 4 << 20


def storage_at(settings: Settings) -> tuple["Storage", str]:
    """The storage of the lake's address, and the lake's folder in it."""
    url = settings.lake_url
    if not url.startswith("s3://"):
        return Storage(pafs.LocalFileSystem()), str(Path(url.removeprefix("file://")).resolve())
    return Buckets(settings), url.removeprefix("s3://")


class Storage:
    """Files on a disk. Other than a file system it replaces a file whole, and keeps it over a power cut."""

    def __init__(self, filesystem: pafs.FileSystem) -> None:
        self.filesystem = filesystem
        self.is_local = isinstance(filesystem, pafs.LocalFileSystem)

    def put(self, path: str, content: bytes | Path) -> None:
        """On the disk before it has its name: after a power cut a manifest names nothing that is not there."""
        folder = Path(path).parent
        hidden = folder / f".{uuid4().hex}"
        self.filesystem.create_dir(str(folder), recursive=True)
        try:
            with self.filesystem.open_output_stream(str(hidden)) as stream:
                if isinstance(content, bytes):
                    stream.write(content)
                else:
                    with content.open("rb") as file:
                        shutil.copyfileobj(file, stream, CHUNK_BYTES)
            _sync(hidden)
            self.filesystem.move(str(hidden), path)
            _sync(folder)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise

    def delete(self, path: str) -> None:
        self.filesystem.delete_file(path)

    def copy(self, path: str, other: str) -> None:
        """Another name for the same file, or a copy where the disk has no such names."""
        try:
            os.link(path, other)
        except FileNotFoundError:
            raise
        except OSError:
            self.put(other, Path(path))
        _sync(Path(other).parent)


class Buckets(Storage):
    """Objects behind an S3 endpoint, where one write is one object."""

    def __init__(self, settings: Settings) -> None:
        import boto3

        # Without this the AWS client sends chunked bodies, which endpoints other than AWS refuse.
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        options: dict[str, Any] = {}
        if endpoint := settings.s3_endpoint_url:
            options["scheme"], options["endpoint_override"] = endpoint.split("://", 1)
        if credentials := settings.s3_credentials:
            options["access_key"], options["secret_key"] = credentials
        super().__init__(pafs.S3FileSystem(**options))
        self.client = boto3.client("s3", **client_options(settings))

    def put(self, path: str, content: bytes | Path) -> None:
        """Arrow's own takes three requests, and is not one write."""
        bucket, _, key = path.partition("/")
        with _as_os_errors():
            if isinstance(content, bytes):
                self.client.put_object(Bucket=bucket, Key=key, Body=content)
            else:
                self.client.upload_file(str(content), bucket, key)

    def delete(self, path: str) -> None:
        """Arrow's own would put a marker object in place of the file's folder."""
        bucket, _, key = path.partition("/")
        with _as_os_errors():
            self.client.delete_object(Bucket=bucket, Key=key)

    def copy(self, path: str, other: str) -> None:
        from botocore.exceptions import ClientError

        bucket, _, key = path.partition("/")
        target = {"Bucket": bucket, "Key": other.partition("/")[2]}
        with _as_os_errors():
            try:
                self.client.copy_object(CopySource={"Bucket": bucket, "Key": key}, **target)
            except ClientError as error:  # of more than 5 GB, which takes several requests
                if error.response["Error"]["Code"] != "InvalidRequest":
                    raise
                self.client.copy({"Bucket": bucket, "Key": key}, **target)


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Trouble of the S3 client as that of a file system."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
        raise (FileNotFoundError if code in ("404", "NoSuchKey") else OSError)(str(error)) from error
