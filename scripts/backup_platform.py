"""What backup.py and restore.py share: the services that they copy, and how they are called."""

from __future__ import annotations

import argparse
import json
import os
import runpy
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any
from uuid import uuid4

from scripts.doctor import stack
from scripts.doctor.command import Docker
from scripts.doctor.findings import hidden, last_line
from scripts.doctor.settings import ROOT, Settings, SettingsError

CHUNK_BYTES = 1 << 20
DONE = ".done"  # the last object of a stream: without it the stream was cut
# Results first: whatever one that was copied refers to is there already, and is copied after it.
# What people decided and what was done cannot be computed again.
# The log after what quotes its events: the platform works meanwhile, and each is then there.
GOVERNANCE = ("decisions", "certificates", "erasures", "audit", "redactions", "site")
ALWAYS, ONLY_EVERYTHING = ("results", "runs", *GOVERNANCE), ("memo", "trees", "blobs")
# The password goes from its file into the client's environment: no command line shows it.
AS_ADMIN = 'PGPASSWORD=$(cat /run/secrets/password); export PGPASSWORD; exec "$0" "$@"'
CONNECT = ("-h", "127.0.0.1", "-U", "postgres")


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
            one["Config"]["Labels"]["com.docker.compose.service"]: one["Id"]
            for one in stack.containers(self.docker, self.settings)
            if one["State"]["Running"]
        }

    def check(self) -> None:
        """Both services run, and there is what opens them."""
        missing = [name for name in ("postgres", "s3") if name not in self.running]
        if missing:
            text = f"{' and '.join(missing)} of project {self.settings.project!r} do not run"
            raise Refused(f"{text}; start them: {self.settings.compose} up -d bootstrap")
        for name in ("SPIRA_STORE_URL", "SPIRA_MLFLOW_ARTIFACTS"):
            if self.settings.bucket(name) is None:
                raise Refused(f"{name} is no s3://bucket: copy that folder by other means")

    # -- Postgres ----------------------------------------------------------------------------

    def postgres(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program of Postgres's container."""
        container = self.running["postgres"]
        arguments = ["exec", "-i", container, "sh", "-c", AS_ADMIN, *command]
        return subprocess.Popen([*self.docker.command, *arguments], **options)

    def sql(self, statements: str, database: str = "postgres") -> str:
        """What ``psql`` prints: one line per row, columns with a bar between them."""
        psql = self.postgres(
            *("psql", *CONNECT, "-d", database, "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = psql.communicate(statements.encode())
        if psql.returncode:
            raise Refused(f"Postgres refused: {last_line(err.decode(errors='replace'))}")
        return out.decode().strip()

    def n_tables(self, database: str) -> int:
        return int(
            self.sql(
                "SELECT count(*) FROM pg_tables "
                "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
                database,
            )
        )

    def databases(self) -> dict[str, str]:
        """Each database and the role that owns it, as docker/bootstrap.py makes them."""
        roles = runpy.run_path(str(ROOT / "docker/bootstrap.py"))["DATABASES"]
        return {database: role for role, names in roles.items() for database in names}

    # -- S3 ----------------------------------------------------------------------------------

    def parts(self, everything: bool) -> list[tuple[str, str, str]]:
        """What is copied: the folder in the backup, the bucket and the prefix."""
        bucket, prefix = self.settings.bucket("SPIRA_STORE_URL") or ("", "")
        prefix = f"{prefix}/" if prefix else ""
        names = ALWAYS + (ONLY_EVERYTHING if everything else ())
        parts = [(f"store/{name}", bucket, f"{prefix}{name}/") for name in names]
        if everything:
            models, artifacts = self.settings.bucket("SPIRA_MLFLOW_ARTIFACTS") or ("", "")
            parts.append(("mlflow", models, f"{artifacts}/" if artifacts else ""))
        return parts

    @contextmanager
    def objects(
        self, action: str, parts: Sequence[tuple[str, str, str]], **options: Any
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A container that copies objects by its standard input or output; gone afterwards."""
        name = f"spira-backup-{uuid4().hex[:12]}"
        command = self.docker.run_command(
            self.settings["SPIRA_TASKS_IMAGE"],
            (ROOT / "scripts/backup_store.py").read_text(),
            name=name,
            network=self.settings["SPIRA_NETWORK"],
            mounts={self.settings.secrets / "s3/identities.json": "/run/secrets/identities.json"},
            variables={
                "S3_ENDPOINT": self.settings["SPIRA_S3_ENDPOINT"],
                "S3_REGION": self.settings.values.get("SPIRA_S3_REGION", ""),
                "PARTS": json.dumps(parts),
            },
            more=["--interactive"],
            arguments=[action],
        )
        process = subprocess.Popen(command, **options)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                self.docker("rm", "--force", name)
            process.wait()

    def export(
        self, parts: Sequence[tuple[str, str, str]], take: Callable[[str, IO[bytes]], object]
    ) -> int:
        """Hand every object of the parts to ``take``; return how many there were."""
        n_taken, n_sent = 0, -1
        with self.objects("export", parts, stdout=subprocess.PIPE) as process:
            try:
                with tarfile.open(fileobj=process.stdout, mode="r|", bufsize=CHUNK_BYTES) as files:
                    for member in files:
                        content = files.extractfile(member)
                        if content is None or not is_safe(member.name):
                            raise Refused(f"an object's name cannot be a file: {member.name!r}")
                        if member.name == DONE:
                            n_sent = int(content.read())
                            break
                        take(member.name, content)
                        n_taken += 1
            except tarfile.TarError:
                pass  # the exit status and the count tell
            for _ in iter(lambda: process.stdout.read(CHUNK_BYTES), b""):  # type: ignore[union-attr]
                pass
            if process.wait() or n_sent != n_taken:
                raise Refused("the objects could not be read to the end; the reason is above")
        return n_taken


def is_safe(name: str) -> bool:
    """Whether a name of an object can be the path of a file in the backup."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and str(path) == name


# -- how they are called ---------------------------------------------------------------------


def command_line(about: str | None, folder: str) -> argparse.ArgumentParser:
    """What both are told: a folder, and where the settings of the platform are."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=lambda text: Path(text).absolute(), help=folder)
    parser.add_argument("--env-file", type=Path, help="another file than the .env of the project")
    return parser


def run(work: Callable[[Platform], None], env_file: Path | None) -> int:
    """Do the work; what the user can do something about is a line, and no stack trace."""
    os.umask(0o077)  # a backup holds hashes of passwords and what was said of patients' recordings
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    try:
        work(Platform(Docker(), Settings.read(env_file)))
    except (Refused, SettingsError) as error:
        print(hidden(f"refused: {error}", []), file=sys.stderr)
    except OSError as error:
        print(f"stopped: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    else:
        return 0
    return 1
