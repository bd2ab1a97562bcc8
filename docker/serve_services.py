"""Start ``python -m spira_services`` with secrets from a file, so that no command line shows one.

python serve_services.py                              the server
python serve_services.py devices code hc --collector ana
"""

import json
import os
import sys
from pathlib import Path

secrets = Path("/run/secrets")
os.environ |= json.loads((secrets / "environment.json").read_text())
serve = ("serve", "--host", "0.0.0.0", "--port", "8090")  # noqa: S104  (in a container)
command = [sys.executable, "-m", "spira_services", *(sys.argv[1:] or serve)]
os.execv(sys.executable, command)  # noqa: S606
