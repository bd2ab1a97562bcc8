"""S3 servers for tests: SeaweedFS, which the compose file names, and Ceph's gateway.

Ceph adds what SeaweedFS does not know: grants to its users by the policy of a bucket.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from minio import Minio

N_PORTS = 10
CEPH_PROGRAMS = ("radosgw", "radosgw-admin", "ceph", "ceph-mon", "ceph-osd", "monmaptool")
START_SECONDS = 120
# With pdeathsig a server ends even when pytest is killed.
ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")


@dataclass(frozen=True)
class S3Server:
    endpoint: str
    access_key: str
    secret_key: str


def client_of(server: S3Server) -> Minio:
    host = server.endpoint.removeprefix("http://")
    return Minio(host, server.access_key, server.secret_key, secure=False)


@contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Server]:
    """Run SeaweedFS on free ports, with one user who may do everything."""
    server_key = {"accessKey": uuid4().hex[:20], "secretKey": uuid4().hex}
    user = {"name": "tests", "credentials": [server_key], "actions": ["Admin"]}
    (folder / "identities.json").write_text(json.dumps({"identities": [user]}))
    (folder / "data").mkdir()
    port = free_ports(N_PORTS)
    # Its parts do not say which port is taken, so each gets one that is free.
    ports = [f"{part}.port" for part in ("s3", "master", "volume", "filer")]
    ports += [f"{name}.grpc" for name in ports]
    command = [
        *(str(Path(sys.executable).with_name("weed")), "-logtostderr=true", "server", "-s3"),
        *(f"-{name}={port + number}" for number, name in enumerate(ports)),
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}/data"),
        *(f"-s3.config={folder}/identities.json", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *("-volume.max=200", "-master.volumeSizeLimitMB=1024", "-master.telemetry=false"),
    ]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([*ENDS_WITH_US, *command], stdout=log, stderr=log)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_healthy(endpoint):
            log_text = (folder / "log").read_text()[-3000:]
            assert process.poll() is None, f"SeaweedFS ended:\n{log_text}"
            assert time.monotonic() < deadline, f"SeaweedFS does not answer:\n{log_text}"
            time.sleep(0.1)
        yield S3Server(endpoint, server_key["accessKey"], server_key["secretKey"])
    finally:
        process.kill()  # it takes fifteen seconds to end by itself, and nothing of it is kept
        process.wait()
        shutil.rmtree(folder / "data")


def _is_healthy(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(f"{endpoint}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def is_ceph_installed() -> bool:
    return all(shutil.which(program) for program in CEPH_PROGRAMS)


@contextmanager
def ceph(folder: Path) -> Iterator[S3Server]:
    """Run Ceph's gateway on free ports, with one user; ``ceph_user`` adds others."""
    port, access_key, secret_key = free_ports(N_PORTS), uuid4().hex[:20], uuid4().hex
    script = Path(__file__).with_name("ceph.sh")
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "TERM", "--", script, folder, str(port), access_key, secret_key],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()  # the script gives up by itself after some minutes
        assert line.startswith("READY "), f"the S3 server did not start; see {folder}/log"
        yield S3Server(line.split()[1], access_key, secret_key)
    finally:
        process.terminate()
        process.wait(timeout=60)
        process.stdout.close()
        shutil.rmtree(folder / "osd", ignore_errors=True)  # its disk; the logs stay


def ceph_user(folder: Path, name: str, access_key: str, secret_key: str) -> None:
    subprocess.run(
        [
            *("radosgw-admin", f"--log-file={folder}/log/{name}.log", "user", "create"),
            *(f"--uid={name}", f"--display-name={name}"),
            *(f"--access-key={access_key}", f"--secret={secret_key}"),
        ],
        env=os.environ | {"CEPH_CONF": str(folder / "ceph.conf")},
        capture_output=True,
        check=True,
    )


def free_ports(count: int) -> int:
    """Return the first of ``count`` neighbouring ports that nobody listens on."""
    rng = random.Random(os.getpid())  # parallel sessions look in different places
    for _ in range(100):
        first = rng.randrange(20_000, 30_000, count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError("no free ports for the S3 server between 20000 and 30000")


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
