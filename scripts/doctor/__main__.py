"""Say what is wrong with the platform on this machine, and what to do about it.

Exit status 0: nothing is wrong (there may be warnings).  1: something is.

    python scripts/doctor
    python scripts/doctor --env-file /etc/spira/env
    DOCKER_HOST=tcp://10.0.0.7:2375 python scripts/doctor
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036  (a person may run it with another Python)
    sys.exit("the doctor needs Python 3.11 or later: python3.11 scripts/doctor")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:1] = [str(ROOT), str(ROOT / "plugins")]

from scripts.deployment import Settings, SettingsError
from scripts.doctor.checks import examine, fail, shown, status


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
