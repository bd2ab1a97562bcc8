"""The command line with the keys of production: from the secrets into its environment.

    python command_line.py quarantine list

Reads the file of Airflow's connections, which spira_tasks/contract/access.py describes.  The keys are
those of the steps that register, report and erase: they open the store, MLflow and MLflow's
artifacts, make pseudonyms and sign, and do not open the recordings as they came.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

CONNECTIONS = Path("/run/secrets/connections.json")
VARIABLES = {
    "spira_s3": {"host": "SPIRA_S3_ENDPOINT"},
    "spira_s3_models": {"login": "SPIRA_S3_ACCESS_KEY", "password": "SPIRA_S3_SECRET_KEY"},
    "spira_mlflow": {
        "host": "MLFLOW_TRACKING_URI",
        "login": "MLFLOW_TRACKING_USERNAME",
        "password": "MLFLOW_TRACKING_PASSWORD",
    },
    "spira_pseudonyms": {"password": "SPIRA_PSEUDONYM_KEY"},
    "spira_signing": {"password": "SPIRA_SIGNING_KEY"},
}


def variables(connections: dict[str, dict[str, object]]) -> dict[str, str]:
    """The environment that the connections stand for."""
    found = {
        variable: str(connections[name][part])
        for name, parts in VARIABLES.items()
        for part, variable in parts.items()
        if connections.get(name, {}).get(part)
    }
    extra = connections.get("spira_s3", {}).get("extra")
    region = extra.get("region") if isinstance(extra, dict) else None
    return found | ({"SPIRA_S3_REGION": str(region)} if region else {})


if __name__ == "__main__":
    try:
        known = json.loads(CONNECTIONS.read_text())
    except (OSError, ValueError) as error:
        sys.exit(f"the keys cannot be read from {CONNECTIONS} ({error}); see: make doctor")
    command = [sys.executable, "-m", "spira_tasks", *(sys.argv[1:] or ["--help"])]
    os.execve(sys.executable, command, {**os.environ, **variables(known)})  # noqa: S606
