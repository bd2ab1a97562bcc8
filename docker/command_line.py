"""The command line with the keys of production: from the secrets into its environment.

    python command_line.py quarantine list

Reads the file of Airflow's connections.  ``spira_tasks.contract.access.COMMAND_LINE``
says which keys it takes: none opens the recordings as they came.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from spira_tasks.contract.access import COMMAND_LINE, variables

CONNECTIONS = Path("/run/keys/connections.json")


def environment(connections: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The variables that the connections stand for."""

    def fields(name: str) -> dict[str, Any] | None:
        found = connections.get(name)
        if found is None:
            return None
        extra = found.get("extra")
        return {**(extra if isinstance(extra, dict) else {}), **found}

    found = variables(COMMAND_LINE, fields)
    # The map is a file of the engine's host, which this container does not mount.
    found.pop("SPIRA_PSEUDONYM_MAP", None)
    return found


if __name__ == "__main__":
    try:
        added = environment(json.loads(CONNECTIONS.read_text()))
    except (OSError, ValueError, LookupError) as error:
        sys.exit(f"the keys cannot be read from {CONNECTIONS} ({error}); see: make doctor")
    command = [sys.executable, "-m", "spira_tasks", *(sys.argv[1:] or ["--help"])]
    os.execve(sys.executable, command, {**os.environ, **added})  # noqa: S606
