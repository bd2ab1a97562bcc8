"""The objects of S3 as a tar stream, out and in.  Runs in a container of the tasks image.

    export PARTS    write every object of the parts to standard output
    import PARTS    put every object that comes by standard input
    filled PARTS    print the folders of the parts that hold an object

PARTS is a JSON list of [folder in the archive, bucket, prefix].
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, BinaryIO, cast

from minio import Minio
from minio.error import S3Error
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from spira_tasks.s3_client import Service

SMALL_BYTES = 4 << 20  # what is larger is not held in memory
TOGETHER = 32
PART_BYTES = 16 << 20
DONE = ".done"  # the last member: without it the stream was cut
# Not the admin: it owns the buckets, but on Ceph not the objects that others put into them.
USER, IDENTITIES = "models", Path("/run/secrets/identities.json")

Parts = list[tuple[str, str, str]]


def objects(s3: Minio, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
    for found in s3.list_objects(bucket, prefix=prefix, recursive=True):
        name = found.object_name or ""
        if not name.endswith("/"):
            yield name, found.size or 0


class Progress:
    """A line on standard error every few seconds."""

    def __init__(self, verb: str) -> None:
        self.verb, self.n, self.n_bytes, self.said_at = verb, 0, 0, time.monotonic()

    def add(self, size: int) -> None:
        self.n, self.n_bytes = self.n + 1, self.n_bytes + size
        if time.monotonic() - self.said_at > 5:
            self.said_at = time.monotonic()
            text = f"  {self.verb} {self.n} objects, {self.n_bytes / 1e6:.1f} MB"
            print(text, file=sys.stderr, flush=True)


def export(s3: Minio, parts: Parts) -> None:
    progress = Progress("read")
    with (
        tarfile.open(fileobj=sys.stdout.buffer, mode="w|", bufsize=1 << 20) as archive,
        ThreadPoolExecutor(TOGETHER) as pool,
    ):

        def add(name: str, size: int, content: IO[bytes] | BaseHTTPResponse) -> None:
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member, cast(IO[bytes], content))
            progress.add(size)

        for folder, bucket, prefix in parts:
            listed = list(objects(s3, bucket, prefix))
            small = [name for name, size in listed if size <= SMALL_BYTES]

            def get(name: str, bucket: str = bucket) -> bytes | None:
                try:
                    with s3.get_object(bucket, name) as response:
                        return bytes(response.read())
                except S3Error as error:
                    if error.code == "NoSuchKey":
                        return None  # removed since it was listed
                    raise

            for start in range(0, len(small), TOGETHER):
                names = small[start : start + TOGETHER]
                for name, content in zip(names, pool.map(get, names), strict=True):
                    if content is not None:
                        path = f"{folder}/{name.removeprefix(prefix)}"
                        add(path, len(content), io.BytesIO(content))
            for name, size in listed:
                if size > SMALL_BYTES:
                    path = f"{folder}/{name.removeprefix(prefix)}"
                    with s3.get_object(bucket, name) as response:
                        add(path, int(response.headers["Content-Length"]), response)
        end = str(progress.n).encode()
        add(DONE, len(end), io.BytesIO(end))


def import_(s3: Minio, parts: Parts) -> None:
    progress = Progress("put")
    with (
        tarfile.open(fileobj=sys.stdin.buffer, mode="r|", bufsize=1 << 20) as archive,
        ThreadPoolExecutor(TOGETHER) as pool,
    ):
        waiting = []
        expected = None
        for member in archive:
            content = cast(BinaryIO, archive.extractfile(member))
            if member.name == DONE:
                expected = int(content.read())
                break
            folder, bucket, prefix = next(p for p in parts if member.name.startswith(f"{p[0]}/"))
            name = prefix + member.name.removeprefix(f"{folder}/")
            progress.add(member.size)
            if member.size > SMALL_BYTES:
                s3.put_object(bucket, name, content, member.size, part_size=PART_BYTES)
                continue
            body = content.read()
            waiting.append(pool.submit(s3.put_object, bucket, name, io.BytesIO(body), len(body)))
            if len(waiting) >= TOGETHER:
                for one in waiting:
                    one.result()
                waiting.clear()
        for one in waiting:
            one.result()
    if expected != progress.n:
        sys.exit("the stream was cut before its end")


def filled(s3: Minio, parts: Parts) -> None:
    full = [folder for folder, bucket, prefix in parts if next(objects(s3, bucket, prefix), None)]
    print(json.dumps(full))


if __name__ == "__main__":
    action, parts = sys.argv[1], json.loads(sys.argv[2])
    client = Service.of_user(USER, IDENTITIES).client(
        connect_seconds=10, read_seconds=60, n_retries=5, backoff_seconds=0.5
    )
    try:
        {"export": export, "import": import_, "filled": filled}[action](client, parts)
    except S3Error as error:
        sys.exit(f"S3 refused: {error.code}, {error.message} ({error.bucket_name})")
    except HTTPError as error:
        sys.exit(f"S3 does not answer: {error}")
