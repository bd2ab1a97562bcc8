"""Say what is wrong with the platform on this machine, and what to do about it.

Exit status 0: nothing is wrong (there may be something to look at).  1: something is.

    python scripts/doctor
    python scripts/doctor --env-file /etc/spira/env
    DOCKER_HOST=tcp://10.0.0.7:2375 python scripts/doctor
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036  (whoever runs it by hand may have another)
    sys.exit("the doctor needs Python 3.11 or later: python3.11 scripts/doctor")
sys.path[0] = str(Path(__file__).resolve().parents[2])

from collections.abc import Callable, Iterator

from scripts.doctor import engines, host, stack
from scripts.doctor.command import Docker
from scripts.doctor.findings import Finding, fail, shown, status, warn
from scripts.doctor.settings import Settings, SettingsError


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check, in the order in which one thing needs another."""
    docker = Docker()
    yield from guarded("settings", host.env_file, settings)
    answers = list(guarded("Docker engine", engines.engine, docker))
    yield from answers
    yield from guarded("Compose", engines.compose)
    yield from guarded("disk", host.disk, engines.facts(docker))
    yield from guarded("secrets", host.secrets, settings, stack.containers(docker, settings))
    if any(one.level == "FAIL" for one in answers):
        yield warn("everything else", "not looked at: there is no engine to ask")
        return
    yield from guarded("clock", engines.clock, docker)
    yield from guarded("images", engines.images, docker, settings)
    yield from guarded("site file", engines.site, settings)
    yield from guarded("Docker socket", engines.socket, docker, settings)
    yield from guarded("GPU", engines.gpus, docker, settings)
    yield from guarded("ports", host.ports, docker, settings)
    yield from guarded("services", stack.services, docker, settings)
    yield from guarded("recordings", stack.recordings, docker, settings)
    yield from guarded("network of the steps", stack.inside, docker, settings)


def guarded(what: str, check: Callable[..., list[Finding]], *arguments: object) -> list[Finding]:
    """A check's findings; one that breaks is a line like every other."""
    try:
        return check(*arguments)
    except Exception as error:
        text = f"this check broke: {type(error).__name__}: {error}"
        return [fail(what, text, "see the detail; if the platform is well, the doctor is not")]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env-file", type=Path, help="another file than the .env of the project")
    arguments = parser.parse_args()
    try:
        settings = Settings.read(arguments.env_file)
    except SettingsError as error:
        print(shown([fail("settings", str(error), "correct it: .env.example shows how it looks")]))
        return 1
    findings = list(examine(settings))
    text = shown(findings, settings.known_secrets())
    print(text.replace("scripts/compose.sh", settings.compose))
    return status(findings)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
