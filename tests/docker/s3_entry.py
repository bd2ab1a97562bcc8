"""Run Ceph's gateway on port 8333 with the users of an identities file, as SeaweedFS reads one."""

import json
import os
import subprocess
import sys
from pathlib import Path

identities = json.loads(Path(sys.argv[1]).read_text())["identities"]
keys = {one["name"]: one["credentials"][0] for one in identities}
first = keys.pop("admin")
environment = {**os.environ, "S3_LISTEN": "0.0.0.0", "S3_USER": "admin", "HOME": "/tmp"}
server = subprocess.Popen(
    ["s3_server.sh", "/data", "8333", first["accessKey"], first["secretKey"]],
    env=environment,
    stdout=subprocess.PIPE,
    text=True,
)
for line in server.stdout or ():
    print(line, end="", flush=True)
    if line.startswith("READY"):
        break
admin = ["radosgw-admin", "--log-file=/tmp/admin.log"]
environment["CEPH_CONF"] = "/data/ceph.conf"
for name, key in keys.items():
    if subprocess.run(
        [*admin, "user", "info", f"--uid={name}"], env=environment, capture_output=True, check=False
    ).returncode:
        subprocess.run(
            [
                *(*admin, "user", "create", f"--uid={name}", f"--display-name={name}"),
                *(f"--access-key={key['accessKey']}", f"--secret={key['secretKey']}"),
            ],
            env=environment,
            capture_output=True,
            check=True,
        )
print("users: admin,", ", ".join(keys), flush=True)
Path("/tmp/ready").touch()
sys.exit(server.wait())
