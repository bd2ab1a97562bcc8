"""Random requests to the services' interface, by its own description.

python benchmarks/interface.py [--examples 50] [--seed 1]

Schemathesis, in an environment of its own under .spira, reads /openapi.json of a server that is
started here, and sends what the description allows and what it forbids, with the key of a device
and the sign-in of a person.  It fails on an answer of 5xx and on one that is not as described.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from collecting import SITE, Phone, served, session  # noqa: E402

from spira_services import devices, people, server, web  # noqa: E402
from spira_services.database import migrate, open_engine  # noqa: E402

PINNED = "schemathesis==4.32.5"
PROGRAM = ROOT / ".spira" / PINNED
SIGN_IN = {"name": "ana", "password": "a long password"}


def installed() -> Path:
    """The program, which is installed first where it is not there."""
    program = PROGRAM / "bin" / "schemathesis"
    if not program.exists():
        venv.create(PROGRAM, with_pip=True, clear=True)
        pip = [str(PROGRAM / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, PINNED], check=True)
    return program


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=50, help="of each path and phase")
    parser.add_argument("--seconds", type=int, help="go on with the last phase so long in all")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    program = installed()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {server.FOLDER_VARIABLE: folder, server.AUDIO_VARIABLE: f"{folder}/audio"}
        engine = open_engine(f"sqlite:///{folder}/services.db")
        migrate(engine)
        with engine.begin() as connection:
            devices.add_site(connection, SITE, "Hospital", "cli:benchmark")
            person = people.add(
                connection, SIGN_IN["name"], people.ROLES, SIGN_IN["password"], "cli:benchmark"
            )
            code = devices.new_code(connection, SITE, person, "cli:benchmark")
            found = devices.enrol(connection, code, "benchmark", "")
        assert found is not None
        with server.application(engine) as app, served(app) as address:
            with httpx.Client(base_url=address) as client:
                assert client.post("/sign-in", json=SIGN_IN).status_code == 204
                phone, token = Phone(client, found[1]), client.cookies[web.COOKIE]
                for seed in range(2):  # something to label
                    phone.send(session(seed))
            command = [
                *(str(program), "run", f"{address}/openapi.json", "--no-color"),
                *("--header", f"Authorization: {phone.headers['Authorization']}"),
                *("--header", f"Cookie: {web.COOKIE}={token}"),
                *("--exclude-path", "/sign-out"),  # it would end the sign-in of all others
                *("--max-examples", str(arguments.examples), "--seed", str(arguments.seed)),
                *("--phases", "examples,coverage,fuzzing", "--warnings", "off"),
                *("--checks", ",".join(CHECKS), "--continue-on-failure"),
                *(("--max-time", str(arguments.seconds)) if arguments.seconds else ()),
            ]
            done = subprocess.run(command, check=False, cwd=folder)
        engine.dispose()
    return done.returncode


CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "ignored_auth",
)

if __name__ == "__main__":
    sys.exit(main())
