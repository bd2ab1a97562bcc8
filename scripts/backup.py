#!/usr/bin/env python3
"""Copy what cannot be computed again: Postgres, and the store's results and records of runs.

    scripts/backup.py /backup/spira-2025-11-21
    scripts/backup.py --everything /backup/spira-2025-11-21      recordings' features and models too

The platform may go on working meanwhile.  The folder appears once it is whole and verified.
docs/backup.md says what it holds; the secrets are not in it.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.deployment import (
    CONNECT,
    ROOT,
    ROWS,
    Docker,
    Settings,
    SettingsError,
    hidden,
    in_postgres,
    last_line,
    s3_options,
)
from spira_tasks.contract.access import COLLECTED, DATABASES

FORMAT = 1
MANIFEST, SEAL = "manifest.json", "manifest.sha256"
CHUNK_BYTES = 1 << 20
# Results come first: what they refer to exists already, and is copied after them.
# GOVERNANCE is what people decided and did, which cannot be computed again.  The audit log comes
# after the documents that quote its events: the platform goes on working meanwhile.
GOVERNANCE = ("decisions", "certificates", "erasures", "audit", "redactions", "site")
ALWAYS, ONLY_EVERYTHING = ("results", "runs", "evidence", *GOVERNANCE), ("memo", "trees", "blobs")
OWNERS = {database: role for role, names in DATABASES.items() for database in names}
KEEP_SECRETS = (
    "The secrets are not in it. Keep {} elsewhere, closed: without its fernet key Airflow's\n"
    "connections are lost, without its pseudonym key the same patient becomes another person."
)


class Refused(Exception):
    """What was asked for cannot or must not be done; says why and what to do."""


def say(text: str) -> None:
    print(text, flush=True)


@dataclass(frozen=True)
class Platform:
    """The Postgres and the S3 of the Compose project on this machine."""

    docker: Docker
    settings: Settings

    @cached_property
    def running(self) -> dict[str, str]:
        """Running services of the project, and their containers."""
        answer = self.docker("version")
        if not answer.good:
            raise Refused(f"no Docker engine answers ({last_line(answer.err)}): make doctor")
        return {
            name: one["Id"]
            for name, one in self.docker.services(self.settings).items()
            if one["State"]["Running"]
        }

    def check(self) -> None:
        """Refuse unless both services run and hold the store and MLflow's artifacts."""
        missing = [name for name in ("postgres", "s3") if name not in self.running]
        if missing:
            text = f"{' and '.join(missing)} of project {self.settings.project!r} do not run"
            raise Refused(f"{text}; start them: {self.settings.compose} up -d bootstrap")
        for name in ("SPIRA_STORE_URL", "SPIRA_MLFLOW_ARTIFACTS"):
            if self.settings.bucket(name) is None:
                raise Refused(f"{name} is no s3://bucket: copy that folder by other means")

    def postgres(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program of Postgres's container."""
        container = self.running["postgres"]
        return subprocess.Popen(
            [*self.docker.command, *in_postgres(container, *command)], **options
        )

    def sql(self, statements: str, database: str = "postgres") -> str:
        """What ``psql`` prints: one line per row, columns with a bar between them."""
        psql = self.postgres(
            *("psql", *CONNECT, "-d", database, *ROWS, "-f", "-"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = psql.communicate(statements.encode())
        if psql.returncode:
            raise Refused(f"Postgres refused: {last_line(err.decode(errors='replace'))}")
        return out.decode().strip()

    def n_tables(self, database: str) -> int:
        own = "schemaname NOT IN ('pg_catalog', 'information_schema')"
        return int(self.sql(f"SELECT count(*) FROM pg_tables WHERE {own}", database))

    def parts(self, everything: bool) -> list[tuple[str, str, str]]:
        """What is copied: the folder in the backup, the bucket and the prefix."""
        bucket, prefix = self.settings.bucket("SPIRA_STORE_URL") or ("", "")
        prefix = f"{prefix}/" if prefix else ""
        names = ALWAYS + (ONLY_EVERYTHING if everything else ())
        parts = [(f"store/{name}", bucket, f"{prefix}{name}/") for name in names]
        parts.append(("collected", COLLECTED, ""))  # nobody else has what devices sent
        if everything:
            models, artifacts = self.settings.bucket("SPIRA_MLFLOW_ARTIFACTS") or ("", "")
            parts.append(("mlflow", models, f"{artifacts}/" if artifacts else ""))
        return parts

    def objects(self, action: str, everything: bool, folder: Path, failure: str) -> Any:
        """Run ``backup_store.py`` on the objects and the files of ``folder``; its answer.

        Raises Refused that says ``failure``; the program itself has printed the reason.
        """
        name = f"spira-backup-{uuid4().hex[:12]}"
        access = "" if action == "export" else ",readonly"
        command = self.docker.run_command(
            self.settings["SPIRA_TASKS_IMAGE"],
            (ROOT / "scripts/backup_store.py").read_text(),
            name=name,
            user=f"{os.getuid()}:{os.getgid()}",
            more=["--interactive", f'--mount=type=bind,"source={folder}",target=/backup{access}'],
            arguments=[action, json.dumps(self.parts(everything))],
            **s3_options(self.settings),
        )
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None  # noqa: S101  (it is a pipe)
        try:
            answer = process.stdout.read()
            if process.wait():
                raise Refused(f"{failure}; the reason is above")
            return json.loads(answer)
        finally:
            if process.poll() is None:
                process.kill()
                self.docker("rm", "--force", name)
                process.wait()


def hashed(source: IO[bytes], target: IO[bytes] | None = None) -> dict[str, Any]:
    """The entry of a stream in the manifest; writes it to ``target`` too."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
        if target:
            target.write(chunk)
    return {"sha256": digest.hexdigest(), "size": size}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a backup, after a check of every file."""
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
    """A folder beside ``target`` that is renamed to it on success.

    Removes what a killed backup left there; refuses while another backup uses it.
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


def back_up(platform: Platform, target: Path, everything: bool) -> None:
    platform.check()
    with set_up(target) as folder:
        files: dict[str, Any] = {}
        databases = {}
        # Databases before the store: what they mention is then in the store's copy, too.
        for database in OWNERS:
            name = f"postgres/{database}.dump"
            files[name] = dump(platform, database, folder / name)
            databases[database] = {"tables": platform.n_tables(database)}
            say(f"database {database}: {files[name]['size'] / 1e6:.1f} MB")

        say("store" + (" and MLflow's artifacts" if everything else ""))
        failure = "the objects could not be read to the end"
        files |= platform.objects("export", everything, folder, failure)
        counts = {
            part: sum(name.startswith(f"{part}/") for name in files)
            for part, _, _ in platform.parts(everything)
        }
        for part, n_objects in counts.items():
            say(f"  {part}: {n_objects} objects")
        settings = platform.settings
        labels = platform.docker.image_labels(settings["SPIRA_TASKS_IMAGE"]) or {}
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
            "counts": counts,
            "files": files,
        }
        content = json.dumps(manifest, indent=1).encode()
        (folder / MANIFEST).write_bytes(content)
        (folder / SEAL).write_text(f"{hashlib.sha256(content).hexdigest()}  {MANIFEST}\n")
        say("reading everything again")
        read_manifest(folder)
        for database in databases:
            with (folder / f"postgres/{database}.dump").open("rb") as dumped:
                listing = {"stdin": dumped, "stdout": subprocess.DEVNULL}
                if platform.postgres("pg_restore", "--list", **listing).wait():
                    raise Refused(f"pg_restore cannot read {database}.dump; the reason is above")
    size = sum(entry["size"] for entry in files.values())
    say(f"{target}: {len(files)} files, {size / 1e6:.1f} MB, whole")
    say(KEEP_SECRETS.format(platform.settings.secrets))


def dump(platform: Platform, database: str, file: Path) -> dict[str, Any]:
    process = platform.postgres(
        "pg_dump", *CONNECT, "--format=custom", database, stdout=subprocess.PIPE
    )
    file.parent.mkdir(exist_ok=True)
    with file.open("xb") as target:
        entry = hashed(process.stdout, target)  # type: ignore[arg-type]
        target.flush()
        os.fsync(target.fileno())
    if process.wait():
        raise Refused(f"pg_dump of {database} failed; the reason is above")
    return entry


def command_line(about: str | None, folder: str) -> argparse.ArgumentParser:
    """The arguments that backup and restore share."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=lambda text: Path(text).absolute(), help=folder)
    parser.add_argument("--env-file", type=Path, help="another file than the .env of the project")
    return parser


def run(work: Callable[[Platform], None], env_file: Path | None) -> int:
    """Do the work; an error that the user can correct is a line without a stack trace."""
    os.umask(0o077)  # a backup holds hashes of passwords and verdicts on patients' recordings
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    try:
        work(Platform(Docker(), Settings.read(env_file)))
    except (Refused, SettingsError) as error:
        print(hidden(f"refused: {error}"), file=sys.stderr)
    except OSError as error:
        print(f"stopped: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    else:
        return 0
    return 1


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
