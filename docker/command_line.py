"""The command line with the keys of production: from the secrets into its environment.

    python command_line.py quarantine list

Reads the file of Airflow's connections.  ``spira_tasks.contract.access`` says which keys it takes.
``data put`` gets one that writes recordings and opens nothing else; no other command may read them.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from spira_tasks.contract.access import COMMAND_LINE, INTAKE, variables

CONNECTIONS = Path("/run/keys/connections.json")


def environment(connections: dict[str, dict[str, Any]], *command: str) -> dict[str, str]:
    """The variables that the connections stand for, for a command such as ``audit verify``."""

    def fields(name: str) -> dict[str, Any] | None:
        found = connections.get(name)
        if found is None:
            return None
        extra = found.get("extra")
        return {**(extra if isinstance(extra, dict) else {}), **found}

    found = variables(INTAKE if command == ("data", "put") else COMMAND_LINE, fields)
    # The map is a file of the engine's host, which this container does not mount.
    found.pop("SPIRA_PSEUDONYM_MAP", None)
    return found


if __name__ == "__main__":
    try:
        added = environment(json.loads(CONNECTIONS.read_text()), *sys.argv[1:3])
    except (OSError, ValueError, LookupError) as error:
        sys.exit(f"the keys cannot be read from {CONNECTIONS} ({error}); see: make doctor")
    command = [sys.executable, "-m", "spira_tasks", *(sys.argv[1:] or ["--help"])]
    os.execve(sys.executable, command, {**os.environ, **added})  # noqa: S606
