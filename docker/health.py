"""Exit 0 when a part of Airflow is well: for compose's health checks.

python health.py PART    metadatabase, scheduler or dag_processor, as the API server sees it; or
                         worker: this container's, asked through Redis if it takes work
python health.py metadatabase COMMAND ...    wait until it is well, then become the command
"""

import json
import os
import socket
import sys
import time
import urllib.request


def state_of(part: str) -> str:
    server = os.environ.get("SPIRA_AIRFLOW_API", "http://airflow-apiserver:8080")
    with urllib.request.urlopen(f"{server}/api/v2/monitor/health", timeout=10) as answer:  # noqa: S310
        return str(json.load(answer)[part]["status"])


def state_of_worker() -> str:
    from airflow.providers.celery.executors.celery_executor import app

    own = f"celery@{socket.gethostname()}"
    return "healthy" if app.control.inspect([own], timeout=10).ping() else "silent"


part, *command = sys.argv[1:]
while True:
    try:
        state = state_of_worker() if part == "worker" else state_of(part)
    except OSError as error:
        state = f"does not answer: {error}"
    print(part, state, flush=True)
    if state == "healthy" or not command:
        break
    time.sleep(2)
if command:
    os.execvp(command[0], command)  # noqa: S606
sys.exit(state != "healthy")
