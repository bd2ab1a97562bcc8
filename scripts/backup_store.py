"""Copy objects between S3 and the folder /backup.  Runs in a container of the tasks image.

    export PARTS    write every object of the parts to a file; print their hashes
    import PARTS    put every file of the manifest
    hash PARTS      print the hashes of the objects
    filled PARTS    print the folders of the parts that hold an object

PARTS is a JSON list of [folder in the backup, bucket, prefix].
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from minio import Minio
from minio.error import S3Error
from urllib3.exceptions import HTTPError

from spira_tasks.s3_client import Service

# Not the admin: it owns the buckets, but on Ceph not the objects that others put into them.
USER, IDENTITIES = "backup", Path("/run/secrets/identities.json")
BACKUP = Path("/backup")
N_THREADS = 16
CHUNK_BYTES, PART_BYTES = 1 << 20, 16 << 20

Parts = list[tuple[str, str, str]]


def is_safe(name: str) -> bool:
    """Whether the name of an object can be the path of a file in the backup."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and str(path) == name


def listed(s3: Minio, parts: Parts) -> Iterator[tuple[str, str, str]]:
    """The file in the backup, the bucket and the name of each object."""
    for folder, bucket, prefix in parts:
        for found in s3.list_objects(bucket, prefix=prefix, recursive=True):
            name = found.object_name or ""
            file = f"{folder}/{name.removeprefix(prefix)}"
            if not name.endswith("/"):
                if not is_safe(file):
                    sys.exit(f"an object's name cannot be a file: {file!r}")
                yield file, bucket, name


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


def hashes(s3: Minio, parts: Parts, *, export: bool) -> dict[str, Any]:
    """SHA-256 and size of every object by its file; ``export`` writes the files too."""

    def read(place: tuple[str, str, str]) -> tuple[str, dict[str, Any] | None]:
        name, bucket, key = place
        file = BACKUP / name if export else Path(os.devnull)
        file.parent.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        try:
            with s3.get_object(bucket, key) as response, file.open("wb") as target:
                while chunk := response.read(CHUNK_BYTES):
                    digest.update(chunk)
                    size += target.write(chunk)
                if export:
                    target.flush()
                    os.fsync(target.fileno())
        except S3Error as error:
            if error.code == "NoSuchKey":
                return name, None  # removed since it was listed
            raise
        return name, {"sha256": digest.hexdigest(), "size": size}

    progress, found = Progress("read"), {}
    with ThreadPoolExecutor(N_THREADS) as pool:
        for part in parts:  # one after the other: backup.py says why their order matters
            for name, entry in pool.map(read, list(listed(s3, [part]))):
                if entry is not None:
                    found[name] = entry
                    progress.add(entry["size"])
    return found


def put(s3: Minio, parts: Parts) -> int:
    """Put every file of the manifest; results last, so that what they refer to is there."""
    files = json.loads((BACKUP / "manifest.json").read_text())["files"]
    names = [name for name in files if not name.startswith("postgres/")]
    results = [name for name in names if name.startswith("store/results/")]
    progress = Progress("put")

    def write(name: str) -> int:
        folder, bucket, prefix = next(part for part in parts if name.startswith(f"{part[0]}/"))
        key = prefix + name.removeprefix(f"{folder}/")
        file = str(BACKUP / name)
        s3.fput_object(bucket, key, file, part_size=PART_BYTES, num_parallel_uploads=1)
        return int(files[name]["size"])

    with ThreadPoolExecutor(N_THREADS) as pool:
        for group in (set(names) - set(results), results):
            for size in pool.map(write, sorted(group)):
                progress.add(size)
    return progress.n


def main(action: str, parts: Parts) -> object:
    s3 = Service.of_user(USER, IDENTITIES).client(
        connect_seconds=10, read_seconds=60, n_retries=5, backoff_seconds=0.5
    )
    if action in ("export", "hash"):
        return hashes(s3, parts, export=action == "export")
    if action == "import":
        return put(s3, parts)
    return [part[0] for part in parts if next(listed(s3, [part]), None)]


if __name__ == "__main__":
    os.umask(0o077)
    # The end of standard input is the end of the script that started this.
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
    try:
        print(json.dumps(main(sys.argv[1], json.loads(sys.argv[2]))), flush=True)
    except S3Error as error:
        sys.exit(f"S3 refused: {error.code}, {error.message} ({error.bucket_name})")
    except HTTPError as error:
        sys.exit(f"S3 does not answer: {error}")
