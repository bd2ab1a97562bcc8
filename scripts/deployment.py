"""The platform in containers on this machine: its settings, and the docker client.

The doctor, the backup and the restore share it.  Standard library only: they run with the Python of
the host.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

ROOT = Path(__file__).resolve().parents[1]
COMPOSE_FILE = ROOT / "docker-compose.yaml"
LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")
DEFAULT = re.compile(r"\$\{(\w+):?-([^}]*)\}")
PASSWORD_IN_URL = re.compile(r"(://[^\s:/@]*:)[^\s@]+@")
NOT_THERE, TOO_LATE = 127, 124  # exit statuses
STEP_USER = "10001:10001"
# The password goes from its file into the client's environment: no command line shows it.
AS_ADMIN = 'PGPASSWORD=$(cat /run/secrets/password); export PGPASSWORD; exec "$0" "$@"'
CONNECT = ("-h", "127.0.0.1", "-U", "postgres")
ROWS = ("-XAtq", "-v", "ON_ERROR_STOP=1")  # psql: one line per row, columns with a bar between them


class SettingsError(Exception):
    """The settings cannot be read; names the file and the line."""


def parse_env(text: str, name: str = ".env") -> dict[str, str]:
    """The variables of an env file, without quotes and without comments after a value."""
    variables = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = LINE.fullmatch(line)
        if found is None:
            raise SettingsError(f"{name}, line {number}: it is not NAME=VALUE")
        variable, value = found.groups()
        if value[:1] in ("'", '"') and (end := value.find(value[0], 1)) > 0:
            value = value[1:end]
        else:
            value = "" if value.startswith("#") else re.split(r"\s+#", value)[0]
        variables[variable] = value
    return variables


@dataclass(frozen=True)
class Settings:
    """Values by name: this process's environment, else the env file, else docker-compose.yaml."""

    values: Mapping[str, str]
    env_file: Path

    @classmethod
    def read(cls, env_file: Path | None = None) -> Settings:
        """Read ``env_file`` or the file of SPIRA_ENV_FILE, else ./.env if it exists."""
        if env_file is None and os.environ.get("SPIRA_ENV_FILE"):
            env_file = Path(os.environ["SPIRA_ENV_FILE"])
        file = (env_file or ROOT / ".env").absolute()
        try:
            given = parse_env(file.read_text(), str(file))
        except FileNotFoundError:
            if env_file is not None:
                raise SettingsError(f"there is no file {file}") from None
            given = {}
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{file} cannot be read: {error}") from None
        defaults = dict(DEFAULT.findall(COMPOSE_FILE.read_text()))
        names = {*defaults, *given, "COMPOSE_PROFILES"}
        own = {name: os.environ[name] for name in names if name in os.environ}
        project = os.environ.get("COMPOSE_PROJECT_NAME") or given.get("COMPOSE_PROJECT_NAME")
        filled = {name: value for name, value in {**given, **own}.items() if value}
        values = {**defaults, **filled, "COMPOSE_PROJECT_NAME": project or ROOT.name}
        return cls(values, file)

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    @property
    def compose(self) -> str:
        """The command that calls Compose with these settings."""
        named = self.env_file != ROOT / ".env"
        return f"{f'SPIRA_ENV_FILE={self.env_file} ' if named else ''}scripts/compose.sh"

    @property
    def profiles(self) -> set[str]:
        return set(self.values.get("COMPOSE_PROFILES", "").replace(" ", "").split(","))

    @property
    def project(self) -> str:
        return self["COMPOSE_PROJECT_NAME"]

    @property
    def secrets(self) -> Path:
        return self.folder("SPIRA_SECRETS")

    def folder(self, name: str) -> Path:
        """A path of the settings, relative to the folder of docker-compose.yaml."""
        return (ROOT / Path(self[name]).expanduser()).resolve()

    def bucket(self, name: str) -> tuple[str, str] | None:
        """Bucket and prefix of a setting that is s3://bucket/prefix, else None."""
        found = re.fullmatch(r"s3://([^/]+)/?(.*?)/*", self[name])
        return (found[1], found[2]) if found else None

    def known_secrets(self) -> list[str]:
        """Every secret that this user may read, to keep it out of the output."""
        texts = []
        try:
            for file in self.secrets.rglob("*"):
                if file.is_file():
                    texts.append(file.read_text())
        except (OSError, UnicodeDecodeError):
            pass  # closed to this user: then our output cannot hold it either
        words = [word for text in texts for word in re.findall(r"[A-Za-z0-9_=+/-]{12,}", text)]
        return [word for word in words if any(c.isdigit() for c in word) and "/" not in word[:2]]


def hidden(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` without the secrets, and without the password of any URL."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return PASSWORD_IN_URL.sub(r"\1***@", text)


def last_line(text: str, n_characters: int = 160) -> str:
    """The last line that is not empty, cut to ``n_characters``."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:n_characters] if lines else ""


@dataclass(frozen=True)
class Answer:
    """Exit status and output of a command."""

    status: int
    out: str
    err: str

    @property
    def good(self) -> bool:
        return self.status == 0


def call(command: Sequence[str], seconds: float = 20) -> Answer:
    """Run a command; a missing program and a timeout are answers too."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError:
        return Answer(NOT_THERE, "", f"there is no program {command[0]}")
    except PermissionError:
        return Answer(NOT_THERE, "", f"{command[0]} may not be run by this user")
    except subprocess.TimeoutExpired:
        return Answer(TOO_LATE, "", f"no answer within {seconds:.0f} s")
    return Answer(done.returncode, done.stdout, done.stderr)


class Docker:
    """A docker client for one engine."""

    def __init__(self, *options: str) -> None:
        self.command = [os.environ.get("DOCKER") or "docker", *options]

    def __call__(self, *arguments: str, seconds: float = 20) -> Answer:
        return call([*self.command, *arguments], seconds)

    def run_command(
        self,
        image: str,
        program: str,
        *,
        name: str,
        network: str = "none",
        user: str = STEP_USER,
        mounts: Mapping[Path, str] | None = None,
        variables: Mapping[str, str] | None = None,
        more: Sequence[str] = (),
        arguments: Sequence[str] = (),
    ) -> list[str]:
        """The command that runs a Python program in a hardened container.

        Nothing secret may be among ``variables`` or ``arguments``: secrets are mounted files.
        """
        sources = [
            # --mount, because --volume creates a folder for a missing source
            f'--mount=type=bind,"source={source}",target={target},readonly'
            for source, target in (mounts or {}).items()
        ]
        return [
            *(*self.command, "run", "--rm", "--pull=never", f"--name={name}", "--log-driver=none"),
            *("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--init"),
            *(f"--user={user}", "--tmpfs=/tmp:mode=1777", "--memory=1g", "--pids-limit=128"),
            *(f"--network={network}", *sources, *more),
            *(f"--env={variable}={value}" for variable, value in (variables or {}).items()),
            *(image, "python", "-c", program, *arguments),
        ]

    def probe(self, image: str, program: str, *, seconds: float = 45, **options: Any) -> Answer:
        """Run a program as ``run_command`` says, and remove its container after a timeout."""
        name = f"spira-doctor-{uuid4().hex[:12]}"
        answer = call(self.run_command(image, program, name=name, **options), seconds)
        if answer.status == TOO_LATE:
            self("rm", "--force", name)
        return answer

    def image_labels(self, image: str) -> dict[str, str] | None:
        """The labels of an image; None when the engine does not have it."""
        answer = self("image", "inspect", "--format", "{{json .Config.Labels}}", image)
        return (json.loads(answer.out) or {}) if answer.good else None

    def services(self, settings: Settings) -> dict[str, dict[str, Any]]:
        """The containers of our Compose project by service, as the engine describes them."""
        label = f"label=com.docker.compose.project={settings.project}"
        ids = self("ps", "--all", "--quiet", "--filter", label).out.split()
        described = json.loads(self("inspect", *ids).out or "[]") if ids else []
        labels = [(one["Config"]["Labels"], one) for one in described]
        return {
            found["com.docker.compose.service"]: one
            for found, one in labels
            if found.get("com.docker.compose.oneoff", "False") == "False"
        }


def in_postgres(container: str, *command: str) -> list[str]:
    """Arguments of docker that run a program in Postgres's container as its admin."""
    return ["exec", "-i", container, "sh", "-c", AS_ADMIN, *command]


def s3_options(settings: Settings) -> dict[str, Any]:
    """Options of ``run_command`` for a program that calls the S3 service with users' keys."""
    return {
        "network": settings["SPIRA_NETWORK"],
        "mounts": {settings.secrets / "s3/identities.json": "/run/secrets/identities.json"},
        "variables": {
            "SPIRA_S3_ENDPOINT": settings["SPIRA_S3_ENDPOINT"],
            "SPIRA_S3_REGION": settings.values.get("SPIRA_S3_REGION", ""),
        },
    }
