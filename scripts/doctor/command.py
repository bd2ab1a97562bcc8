"""The docker client: every call has a time limit, and every failure is an answer."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

NOT_THERE, TOO_LATE = 127, 124
STEP_USER = "10001:10001"


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it said."""

    status: int
    out: str
    err: str

    @property
    def good(self) -> bool:
        return self.status == 0


def call(command: Sequence[str], seconds: float = 20, **variables: str) -> Answer:
    """Run a command; one that is missing or takes too long is an answer too."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            env={**os.environ, **variables},
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
        """The command that runs a Python program in a container that can do no harm.

        Nothing secret may be among ``variables`` or ``arguments``: secrets are mounted files.
        """
        sources = [
            # --mount, not --volume: that makes a folder of whatever is missing
            f"--mount=type=bind,source={source},target={target},readonly"
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

    def probe(self, image: str, program: str, *, seconds: float = 45, **options: object) -> Answer:
        """Run a program as ``run_command`` says, and remove it when it takes too long."""
        name = f"spira-doctor-{uuid4().hex[:12]}"
        command = self.run_command(image, program, name=name, **options)  # type: ignore[arg-type]
        answer = call(command, seconds)
        if answer.status == TOO_LATE:
            self("rm", "--force", name)
        return answer
