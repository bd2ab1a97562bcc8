"""The settings of the platform on this machine, read as Compose reads them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yaml"
LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")
DEFAULT = re.compile(r"\$\{(\w+):?-([^}]*)\}")


class SettingsError(Exception):
    """The settings cannot be read; says which file and line."""


def parse_env(text: str, name: str = ".env") -> dict[str, str]:
    """The variables of an env file: quotes go, and so does a comment after a value."""
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
    env_file_there: bool = True

    @classmethod
    def read(cls, env_file: Path | None = None) -> Settings:
        """Read ``env_file`` or what SPIRA_ENV_FILE names, else ./.env if there is one."""
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
        return cls(values, file, file.exists())

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    @property
    def compose(self) -> str:
        """How somebody calls Compose with these settings."""
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
        """A path of the settings; Compose counts from the folder of docker-compose.yaml."""
        return (ROOT / Path(self[name]).expanduser()).resolve()

    def bucket(self, name: str) -> tuple[str, str] | None:
        """Bucket and prefix of a setting that is s3://bucket/prefix, else None."""
        found = re.fullmatch(r"s3://([^/]+)/?(.*?)/*", self[name])
        return (found[1], found[2]) if found else None

    def known_secrets(self) -> list[str]:
        """Every secret that this user may read, to keep it out of what is printed."""
        texts = []
        try:
            for file in self.secrets.rglob("*"):
                if file.is_file():
                    texts.append(file.read_text())
        except (OSError, UnicodeDecodeError):
            pass  # closed to this user: then no output of ours can hold one either
        words = [word for text in texts for word in re.findall(r"[A-Za-z0-9_=+/-]{12,}", text)]
        return [word for word in words if any(c.isdigit() for c in word) and "/" not in word[:2]]
