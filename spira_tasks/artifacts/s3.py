"""A bucket of an S3 service (SeaweedFS, Ceph, AWS) as the place where the store keeps its files.

Endpoint and keys come from the environment (``spira_tasks.s3_client``).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from multiprocessing.util import Finalize
from pathlib import Path, PurePosixPath
from typing import IO
from uuid import uuid4

from minio import Minio
from minio.commonconfig import CopySource
from minio.datatypes import Object
from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3.exceptions import HTTPError, MaxRetryError

from spira_tasks import scratch
from spira_tasks.artifacts.backends import CHUNK_BYTES, Content, Entry
from spira_tasks.errors import ConfigError, ServiceUnavailable, SpiraError
from spira_tasks.s3_client import Service

KEPT_FREE_BYTES = 256 << 20  # of the disk for temporary files: copies of what was read leave it
BUSY_STATUS = (408, 409, 429)
KEY_CODES = ("AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId")


class Bucket:
    """Objects below a prefix of a bucket that exists already.

    It holds no connection, so that it can be pickled and survives a fork: each process has its own
    connections, and its own folder of fetched files, which is removed when the process ends.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
            raise ConfigError(f"{bucket!r} cannot name a bucket; write s3://bucket/prefix")
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        try:
            self._service = Service.from_environment()
        except ValueError as error:
            raise ConfigError(str(error)) from None
        with self._client() as client:
            if not client.bucket_exists(bucket):
                raise self._no_bucket()

    def read(self, name: str, version: str | None = None) -> bytes | None:
        content = BytesIO()
        found = self._download(name, content)
        return None if found is None or version not in (None, found) else content.getvalue()

    def read_range(self, name: str, offset: int, size: int, *, keep: bool = False) -> bytes | None:
        if size == 0:  # the service would send the whole object
            return None if self.find(name) is None else b""
        kept = self._place(f"{name}\n{offset}\n{size}", None)
        if keep and kept.exists():
            return kept.read_bytes()
        with self._client() as client, _without("NoSuchKey"), _without("InvalidRange"):
            name = self.prefix + name
            with client.get_object(self.bucket, name, offset=offset, length=size) as response:
                content = bytes(response.read())
            if len(content) != size:
                return None
            if keep and shutil.disk_usage(kept.parent).free > KEPT_FREE_BYTES:
                temporary = kept.with_name(f"{uuid4().hex}.part")
                temporary.write_bytes(content)
                temporary.replace(kept)
            return content
        return None

    def local(self, name: str, version: str | None = None) -> Path | None:
        fetched = self._place(name, version)
        if fetched.exists():
            return fetched
        temporary = fetched.with_name(f"{uuid4().hex}.part")
        try:
            with temporary.open("xb") as file:
                found = self._download(name, file)
            if found is None or version not in (None, found):
                return None
            temporary.chmod(0o444)
            temporary.replace(fetched)
        finally:
            temporary.unlink(missing_ok=True)
        return fetched

    def find(self, name: str) -> Entry | None:
        with self._client() as client, _without("NoSuchKey"):
            return _entry(name, client.stat_object(self.bucket, self.prefix + name))
        return None

    def entries(self, prefix: str) -> list[Entry]:
        start = f"{self.prefix}{prefix}/" if prefix else self.prefix
        with self._client() as client:
            found = [
                _entry(item.object_name.removeprefix(self.prefix), item)
                for item in client.list_objects(self.bucket, prefix=start, recursive=True)
                if item.object_name and not item.object_name.endswith("/")
            ]
        return sorted(found, key=lambda entry: entry.name)

    # S3 answers when it is durable.
    def write(self, name: str, content: Content, *, durable: bool = False) -> None:  # noqa: ARG002
        with self._client() as client:
            if isinstance(content, Path):  # in parts, so that memory does not grow with the file
                client.fput_object(self.bucket, self.prefix + name, str(content))
            else:
                client.put_object(self.bucket, self.prefix + name, BytesIO(content), len(content))

    def write_once(self, name: str, content: bytes) -> bool:
        headers: dict[str, str | list[str] | tuple[str]] = {"If-None-Match": "*"}
        with self._client() as client, _without("PreconditionFailed"):
            # no public method of the client puts on a condition
            client._execute("PUT", self.bucket, self.prefix + name, content, headers)
            return True
        return False

    def set_aside(self, name: str) -> None:
        source = CopySource(self.bucket, self.prefix + name)
        with self._client() as client, _without("NoSuchKey"):  # another process was first
            client.copy_object(self.bucket, f"{self.prefix}corrupt/{name}", source)
            client.remove_object(self.bucket, self.prefix + name)
        self._place(name, None).unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        with self._client() as client:
            client.remove_object(self.bucket, self.prefix + name)  # absent: S3 agrees
        self._place(name, None).unlink(missing_ok=True)

    def _download(self, name: str, file: IO[bytes]) -> str | None:
        """Write an object into ``file``; return its version, or None when there is no object."""
        with self._client() as client, _without("NoSuchKey"):
            with client.get_object(self.bucket, self.prefix + name) as response:
                shutil.copyfileobj(response, file, CHUNK_BYTES)
            return _version(response.headers.get("ETag"))
        return None

    def _place(self, name: str, version: str | None) -> Path:
        """Where this process puts the object it fetches; the suffix tells readers the format."""
        identity = "\n".join([self._service.endpoint, self.url, name, version or ""])
        file_name = hashlib.sha256(identity.encode()).hexdigest() + PurePosixPath(name).suffix
        return _private_folder(os.getpid()) / file_name

    @contextmanager
    def _client(self) -> Iterator[Minio]:
        """The client of this process; its errors become errors that say what to do."""
        endpoint = self._service.endpoint
        try:
            yield _client_of(os.getpid(), self._service)
        except S3Error as error:
            raise self._explained(error) from error
        except ServerError as error:
            raise ServiceUnavailable(
                f"S3 at {endpoint} failed with status {error.status_code}; try again later"
            ) from error
        except InvalidResponseError as error:
            raise ConfigError(
                f"{endpoint} answers, but not as an S3 service does; check SPIRA_S3_ENDPOINT"
            ) from error
        except HTTPError as error:
            reason = error.reason if isinstance(error, MaxRetryError) else error
            raise ServiceUnavailable(
                f"S3 at {endpoint} does not answer ({type(reason).__name__}); check that the "
                "service runs and that SPIRA_S3_ENDPOINT is right, then run this again"
            ) from error

    def _explained(self, error: S3Error) -> SpiraError:
        endpoint, code = self._service.endpoint, error.code
        if code == "NoSuchBucket":
            return self._no_bucket()
        if code in KEY_CODES:
            return ConfigError(
                f"S3 at {endpoint} refused bucket {self.bucket!r} ({code}); check "
                "SPIRA_S3_ACCESS_KEY, SPIRA_S3_SECRET_KEY and what that key may do"
            )
        status = error.response.status
        if status >= 500 or status in BUSY_STATUS:
            return ServiceUnavailable(f"S3 at {endpoint} is busy or failing ({code}); try again")
        return ConfigError(f"S3 at {endpoint} refused a request to {self.url} ({code})")

    def _no_bucket(self) -> ConfigError:
        return ConfigError(
            f"there is no bucket {self.bucket!r} at {self._service.endpoint}; create it, or "
            "correct the name: it is not created here"
        )


@contextmanager
def _without(code: str) -> Iterator[None]:
    """Leave the block at an S3 error of this code."""
    try:
        yield
    except S3Error as error:
        if error.code != code:
            raise


def _entry(name: str, found: Object) -> Entry:
    modified = found.last_modified.timestamp() if found.last_modified else 0.0
    return Entry(name, found.size or 0, modified, _version(found.etag))


def _version(etag: str | None) -> str:
    return (etag or "").strip('"')


@lru_cache
def _client_of(process: int, service: Service) -> Minio:
    """Return the client of a process: connections must not be shared across a fork."""
    return service.client()


@lru_cache
def _private_folder(process: int) -> Path:
    """Return the folder of a process for fetched files; gone when that process ends.

    ``atexit`` would not do: the workers of ``multiprocessing`` end without it, and a forked child
    would take its parent's files with it.
    """
    folder, _ = scratch.make("spira-s3-")  # locked until the process ends
    Finalize(None, shutil.rmtree, args=(folder,), kwargs={"ignore_errors": True}, exitpriority=0)
    return folder
