"""Exit 0 when a part of Airflow is well, as the API server sees it: for compose's health checks.

python health.py PART    one of metadatabase, scheduler, dag_processor, triggerer
"""

import json
import os
import sys
import urllib.request

part = sys.argv[1]
server = os.environ.get("SPIRA_AIRFLOW_API", "http://airflow-apiserver:8080")
with urllib.request.urlopen(f"{server}/api/v2/monitor/health", timeout=10) as answer:  # noqa: S310
    status = json.load(answer)[part]["status"]
print(part, status)
sys.exit(status != "healthy")
