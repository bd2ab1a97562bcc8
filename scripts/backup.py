#!/usr/bin/env python3
"""Copy what cannot be computed again: Postgres, and the store's results and records of runs.

    scripts/backup.py /backup/spira-2025-11-21
    scripts/backup.py --everything /backup/spira-2025-11-21      recordings' features and models too

The platform may go on working meanwhile.  The folder appears when it is whole and verified, and not
before.  docs/backup.md says what is in it and what is not: the secrets are not.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.backup_platform import (
    CHUNK_BYTES,
    CONNECT,
    Platform,
    Refused,
    command_line,
    run,
    say,
)
from scripts.doctor import engines

FORMAT = 1
MANIFEST, SEAL = "manifest.json", "manifest.sha256"
KEEP_SECRETS = (
    "The secrets are not in it. Keep {} elsewhere, closed: without its fernet key Airflow's\n"
    "connections are lost, without its pseudonym key the same patient becomes another person."
)


# -- the folder of a backup ------------------------------------------------------------------


def copied(source: IO[bytes], file: Path) -> dict[str, Any]:
    """Write a stream to a file; return what the manifest says of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("xb") as target:
        entry = hashed(source, target)
        target.flush()
        os.fsync(target.fileno())
    return entry


def hashed(source: IO[bytes], target: IO[bytes] | None = None) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
        if target:
            target.write(chunk)
    return {"sha256": digest.hexdigest(), "size": size}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a backup, after every file was found to be what it says."""
    if not folder.is_dir():
        raise Refused(f"there is no folder {folder}")
    try:
        content, seal = (folder / MANIFEST).read_bytes(), (folder / SEAL).read_text().split()
    except FileNotFoundError as error:
        raise Refused(
            f"{folder} is no whole backup: it has no {Path(error.filename).name}"
        ) from None
    if seal[:1] != [hashlib.sha256(content).hexdigest()]:
        raise Refused(f"{folder / MANIFEST} was changed: this backup is not to be trusted")
    manifest: dict[str, Any] = json.loads(content)
    if manifest["format"] != FORMAT:
        raise Refused(f"{folder} has format {manifest['format']}; this version reads {FORMAT}")
    entries = manifest["files"]
    there = {str(file.relative_to(folder)) for file in folder.rglob("*") if not file.is_dir()}
    wrong = [f"{name} is missing" for name in sorted(set(entries) - there)]
    wrong += [f"{name} is too much" for name in sorted(there - set(entries) - {MANIFEST, SEAL})]
    for name, entry in entries.items():
        if name in there:
            with (folder / name).open("rb") as file:
                if hashed(file) != entry:
                    wrong.append(f"{name} was changed")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise Refused(f"{folder} is damaged: {'; '.join(wrong[:5])}{more}")
    return manifest


@contextmanager
def set_up(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that becomes it when all went well.

    What a killed backup left is taken away; a backup that still works on it is not disturbed.
    """
    if target.exists():
        raise Refused(f"{target} exists already: a backup overwrites nothing; name another folder")
    aside = target.with_name(f"{target.name}.part")
    aside.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(aside, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another backup is at work in {aside}") from None
        for left in aside.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield aside
            os.fsync(lock)
            aside.rename(target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    finally:
        os.close(lock)


# -- the backup ------------------------------------------------------------------------------


def back_up(platform: Platform, target: Path, everything: bool) -> None:
    platform.check()
    parts = platform.parts(everything)
    with set_up(target) as folder:
        files: dict[str, Any] = {}
        databases = {}
        # Databases before the store: what they mention is then in the store's copy, too.
        for database in platform.databases():
            name = f"postgres/{database}.dump"
            files[name] = dump(platform, database, folder / name)
            databases[database] = {"tables": platform.n_tables(database)}
            say(f"database {database}: {files[name]['size'] / 1e6:.1f} MB")

        def take(name: str, content: IO[bytes]) -> None:
            files[name] = copied(content, folder / name)

        say("store" + (" and MLflow's artifacts" if everything else ""))
        platform.export(parts, take)
        counts = Counter(
            next(part for part, _, _ in parts if name.startswith(f"{part}/"))
            for name in files
            if not name.startswith("postgres/")
        )
        for part, _, _ in parts:
            say(f"  {part}: {counts[part]} objects")
        settings = platform.settings
        labels = engines.image_labels(platform.docker, settings["SPIRA_TASKS_IMAGE"]) or {}
        manifest = {
            "format": FORMAT,
            "made_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "project": settings.project,
            "everything": everything,
            "version": labels.get("org.opencontainers.image.version", ""),
            "revision": labels.get("org.opencontainers.image.revision", ""),
            "postgres": platform.sql("SHOW server_version"),
            "store": settings["SPIRA_STORE_URL"],
            "artifacts": settings["SPIRA_MLFLOW_ARTIFACTS"],
            "databases": databases,
            "counts": {part: counts[part] for part, _, _ in parts},
            "files": files,
        }
        content = json.dumps(manifest, indent=1).encode()
        (folder / MANIFEST).write_bytes(content)
        (folder / SEAL).write_text(f"{hashlib.sha256(content).hexdigest()}  {MANIFEST}\n")
        say("reading everything again")
        read_manifest(folder)
        for database in databases:
            check_dump(platform, folder / f"postgres/{database}.dump")
    size = sum(entry["size"] for entry in files.values())
    say(f"{target}: {len(files)} files, {size / 1e6:.1f} MB, whole")
    say(KEEP_SECRETS.format(platform.settings.secrets))


def dump(platform: Platform, database: str, file: Path) -> dict[str, Any]:
    process = platform.postgres(
        "pg_dump", *CONNECT, "--format=custom", database, stdout=subprocess.PIPE
    )
    entry = copied(process.stdout, file)  # type: ignore[arg-type]
    if process.wait():
        raise Refused(f"pg_dump of {database} failed; the reason is above")
    return entry


def check_dump(platform: Platform, file: Path) -> None:
    with file.open("rb") as content:
        process = platform.postgres(
            "pg_restore", "--list", stdin=content, stdout=subprocess.DEVNULL
        )
        if process.wait():
            raise Refused(f"pg_restore cannot read {file.name}; the reason is above")


def main() -> int:
    parser = command_line(__doc__, "is made; must not exist yet")
    parser.add_argument(
        "--everything",
        action="store_true",
        help="also what can be computed again: blobs, trees, memo, and MLflow's artifacts",
    )
    given = parser.parse_args()
    return run(lambda platform: back_up(platform, given.folder, given.everything), given.env_file)


if __name__ == "__main__":
    sys.exit(main())
