"""Start the MLflow server with its secrets from files, so that no command line shows one."""

import json
import os
from pathlib import Path

secrets = Path("/run/secrets")
key = json.loads((secrets / "s3.json").read_text())
os.environ |= {
    "MLFLOW_BACKEND_STORE_URI": (secrets / "backend_uri").read_text().strip(),
    "MLFLOW_AUTH_CONFIG_PATH": str(secrets / "basic_auth.ini"),
    "MLFLOW_FLASK_SERVER_SECRET_KEY": (secrets / "flask_secret").read_text().strip(),
    "AWS_ACCESS_KEY_ID": key["accessKey"],  # to show artifacts; the steps write them themselves
    "AWS_SECRET_ACCESS_KEY": key["secretKey"],
    **({"AWS_DEFAULT_REGION": region} if (region := os.environ.get("SPIRA_S3_REGION")) else {}),
    # MLflow's own background jobs, which are not used and take 170 MB each.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
os.execvp(  # noqa: S606
    "mlflow",
    [
        *("mlflow", "server", "--app-name", "basic-auth"),
        *("--host", "0.0.0.0", "--port", "5000", "--workers", "1"),  # noqa: S104  (in a container)
        *("--allowed-hosts", os.environ["SPIRA_MLFLOW_HOSTS"]),
        *("--no-serve-artifacts", "--default-artifact-root", os.environ["SPIRA_MLFLOW_ARTIFACTS"]),
    ],
)
