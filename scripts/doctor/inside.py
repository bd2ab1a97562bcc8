"""What a step sees of its network.  Runs in a container of the tasks image, as a step's user.

Prints one finding per line, as JSON.  Keys come from a mounted file; none is printed.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.utils import parsedate_to_datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import urllib3
from minio import Minio
from minio.error import S3Error

from spira_tasks.s3_client import Service

IDENTITIES = Path("/run/secrets/identities.json")
ENDPOINT = os.environ["SPIRA_S3_ENDPOINT"]
STORE, _, PREFIX = os.environ["STORE"].partition("/")
DATA, _, DATA_PREFIX = os.environ["DATA"].partition("/")
MLFLOW = "http://mlflow:5000"
BOOTSTRAP = "scripts/compose.sh up -d --force-recreate bootstrap"
RIGHT_KEYS = (
    "bring back the secrets that this service was set up with, or give it the users of "
    "secrets/s3/identities.json"
)
POLICIES = f"correct its grants: {BOOTSTRAP} (SPIRA_S3_GRANTS=policy), or its identities file"
DANGEROUS = (2375, 2376, 5432)  # Docker engines, and a database
SECONDS_APART = 60  # S3 refuses signatures that are 15 minutes off

ASKED_OUTSIDE: list[str] = []
LOST: list[str] = []  # services that do not answer: not asked again


def say(level: str, what: str, detail: str, fix: str = "") -> None:
    finding = {"level": level, "what": what, "detail": detail[:240], "fix": fix}
    print(json.dumps(finding), flush=True)


def client(service: Service) -> Minio:
    # A service without a region asks for it, which needs a right that the keys may lack.
    service = replace(service, region=service.region or "us-east-1")
    return service.client(read_seconds=15, n_retries=0)


def refusal(attempt: Callable[[], object]) -> str | None:
    """The S3 error code of an attempt; None when it succeeded."""
    try:
        attempt()
    except S3Error as error:
        return error.code
    return None


def s3() -> None:
    what = f"S3 at {ENDPOINT}"
    store = Service.of_user("store", IDENTITIES)
    try:
        code = refusal(lambda: list_some(client(store), STORE, PREFIX))
    except urllib3.exceptions.HTTPError as error:
        LOST.append(what)
        fix = "scripts/compose.sh up -d s3, or correct SPIRA_S3_ENDPOINT"
        return say("FAIL", what, f"does not answer steps: {type(error).__name__}", fix)
    if code == "NoSuchBucket":
        return say("FAIL", what, f"there is no bucket {STORE}", BOOTSTRAP)
    if code == "RequestTimeTooSkewed":
        return say("FAIL", what, "its clock is minutes from ours", "let all clocks follow NTP")
    if code in ("SignatureDoesNotMatch", "InvalidAccessKeyId"):
        return say("FAIL", what, f"it does not know the key of the store ({code})", RIGHT_KEYS)
    if code:
        return say("FAIL", what, f"the store's key may not list {STORE} ({code})", POLICIES)
    if use(client(store), what):
        say("ok", what, f"bucket {STORE}: list, put, get, delete, put on a condition")
    closed(store, what)
    recordings()
    return None


def list_some(s3_client: Minio, bucket: str, prefix: str) -> Any:
    """The first name under a prefix: one request."""
    found = s3_client.list_objects(bucket, prefix=f"{prefix}/" if prefix else None, recursive=True)
    return next(iter(found), None)


def use(s3_client: Minio, what: str) -> bool:
    """Put, get, overwrite on a condition and delete one small object, as steps do."""
    name = f"{PREFIX}/doctor/{uuid4().hex}".lstrip("/")
    content = b"doctor"
    try:
        s3_client.put_object(STORE, name, BytesIO(content), len(content))
    except S3Error as error:
        say("FAIL", what, f"the store's key may not write ({error.code})", POLICIES)
        return False
    try:
        if s3_client.get_object(STORE, name).data != content:
            say("FAIL", what, "gives back other bytes than it was given", "use another S3 service")
            return False
        # no public method of the client puts on a condition
        code = refusal(
            lambda: s3_client._execute("PUT", STORE, name, b"second", {"If-None-Match": "*"})
        )
        if code is None or s3_client.get_object(STORE, name).data != content:
            text = "this S3 service has no conditional put; results could be overwritten"
            say("FAIL", what, text, "take one that honours If-None-Match: docs/production.md")
            return False
        if code != "PreconditionFailed":
            text = f"a second put on condition is answered by {code}"
            say("FAIL", what, text, "take a service that answers PreconditionFailed")
            return False
    except S3Error as error:
        say("FAIL", what, f"the store's key may write, and not read ({error.code})", POLICIES)
        return False
    finally:
        code = refusal(lambda: s3_client.remove_object(STORE, name))
        if code:
            say("FAIL", what, f"the store's key may not delete ({code})", POLICIES)
    return not code


def closed(store: Service, what: str) -> None:
    """Without a right key nothing opens, and the store's key opens the store only."""
    fix = "give it its users, and let it refuse all others; see its manual"
    wrong = replace(store, secret_key=uuid4().hex)
    if refusal(lambda: list_some(client(wrong), STORE, PREFIX)) is None:
        return say("FAIL", what, "the store is open: a wrong key is accepted", fix)
    for bucket in filter(None, (STORE, DATA)):
        if refusal(partial(list_some, client(Service(ENDPOINT)), bucket, "")) is None:
            text = f"bucket {bucket} is open: it can be read without a key"
            return say("FAIL", what, text, f"remove its public policy; {POLICIES}")
    say("ok", what, "refuses a wrong key, and none at all")
    if DATA and DATA != STORE:
        if refusal(lambda: list_some(client(store), DATA, "")) in (None, "NoSuchBucket"):
            text = f"the store's key can read {DATA}: every step could read recordings"
            return say("warn", what, text, POLICIES)
        say("ok", what, f"the store's key cannot read {DATA}")
    return None


def recordings() -> None:
    if not DATA:
        return
    found: list[object] = []
    s3_client = client(Service.of_user("data", IDENTITIES))
    code = refusal(lambda: found.append(list_some(s3_client, DATA, DATA_PREFIX)))
    place = f"s3://{DATA}/{DATA_PREFIX}"
    if code:
        say("FAIL", "recordings", f"{place} cannot be read ({code})", BOOTSTRAP)
    elif found == [None]:
        say("warn", "recordings", f"{place} is empty", "put recordings there: docs/recordings.md")
    else:
        say("ok", "recordings", f"{place} can be read by the steps that take them in")


def clock() -> None:
    """Compare S3's clock, the Date of its answers, with this one."""
    what = "clock of S3"
    if LOST:
        return None
    pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=5, read=10), retries=False)
    date = pool.request("GET", ENDPOINT).headers.get("Date")
    if date is None:
        return say("warn", what, "its answers have no Date")
    apart = abs(parsedate_to_datetime(date).timestamp() - time.time())
    if apart > SECONDS_APART:
        return say("FAIL", what, f"is {apart:.0f} s from the engine's", "let both follow NTP")
    return say("ok", what, f"within {max(1, round(apart))} s of the engine's")


def mlflow() -> None:
    what = f"MLflow at {MLFLOW}"
    if not os.environ["MLFLOW"]:
        return None  # it was never started: a finding of the services
    try:
        status = urllib.request.urlopen(f"{MLFLOW}/health", timeout=10).status
    except urllib.error.HTTPError as error:
        status = error.code
    except OSError as error:
        fix = "scripts/compose.sh up -d mlflow; scripts/compose.sh logs mlflow"
        return say("FAIL", what, f"does not answer: {getattr(error, 'reason', error)}", fix)
    if status != 200:
        return say("FAIL", what, f"answers {status}", "scripts/compose.sh logs mlflow")
    path = "/api/2.0/mlflow/experiments/search?max_results=1"
    try:
        urllib.request.urlopen(MLFLOW + path, timeout=20).close()
    except urllib.error.HTTPError as error:
        if error.code == 401:
            return say("ok", what, "works, and refuses a request without a password")
        if error.code == 403:  # a host name that it does not allow; its health needs none
            fix = "add mlflow:5000 to SPIRA_MLFLOW_HOSTS, then scripts/compose.sh up -d mlflow"
            return say("FAIL", what, "refuses the name by which steps call it", fix)
        text = f"answers a request without a password by {error.code}, not 401"
        return say("warn", what, text, "scripts/compose.sh logs mlflow")
    fix = "start it with --app-name basic-auth, as docker/serve_mlflow.py does"
    return say("FAIL", what, "is open: it answers without a password", fix)


def egress() -> None:
    """Nothing outside can be reached, so that what a step has read cannot leave."""
    what = "way out of the steps"
    fix = "the network must be internal: scripts/compose.sh down, then up -d makes it anew"
    if os.environ["INTERNAL"] == os.environ["WANTED_INTERNAL"] == "false":
        text = "open, as SPIRA_STEPS_INTERNAL=false says: only the host's firewall restricts it"
        return say("warn", what, text, "let them reach the S3 service and MLflow only")
    if os.environ["INTERNAL"] != "true":
        return say("FAIL", what, "their network is not internal: they reach the internet", fix)
    # Two addresses reserved for documentation, which no server has.  The engine may drop packets
    # instead of refusing a connection, so a timeout is the right answer.
    outside = [("192.0.2.1", 443), ("198.51.100.1", 443)]
    ports = {*DANGEROUS, *map(int, filter(None, os.environ["HOST_PORTS"].split(",")))}
    host = [(os.environ["GATEWAY"], port) for port in sorted(ports)]
    name = looked_up("postgres")
    postgres = [(one, 5432) for one in [*name, *os.environ["POSTGRES"].split(",")]]
    tried = [place for place in outside + host + postgres if place[0]]
    with ThreadPoolExecutor(64) as pool:  # each may take until its timeout
        made = dict(zip(tried, pool.map(connects, tried), strict=True))
    if any(made[place] for place in outside):
        return say("FAIL", what, "a connection to the internet was made", fix)
    if any(made.get(place) for place in postgres):
        return say("FAIL", what, "Postgres can be reached from the steps", fix)
    say("ok", what, "none: no internet, no Postgres")
    if name is ASKED_OUTSIDE:
        text = "none but DNS: names that steps look up are asked outside (CVE-2024-29018)"
        say("warn", what, text, "bring Docker up to 26 or later")
    if reached := [port for (_, port) in host if made.get((os.environ["GATEWAY"], port))]:
        text = f"steps can reach port {', '.join(map(str, reached))} of the Docker host itself"
        fix = "let those programs listen on 127.0.0.1, or refuse the bridge in the firewall"
        say("FAIL" if {*reached} & {*DANGEROUS} else "warn", what, text, fix)
    return None


def looked_up(name: str) -> list[str]:
    """The addresses of a name; ASKED_OUTSIDE when a server outside answered that it has none."""
    asked = ThreadPoolExecutor(1).submit(socket.getaddrinfo, name, 1, socket.AF_INET)
    try:
        return [str(one[4][0]) for one in asked.result(timeout=3)]
    except TimeoutError:  # an engine that asks outside and reaches no server takes half a minute
        return []
    except socket.gaierror as error:
        # A server outside answers "no such name"; the engine alone answers "cannot tell".
        return ASKED_OUTSIDE if error.errno == socket.EAI_NONAME else []


def connects(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, timeout=2).close()
    except OSError:
        return False
    return True


def main() -> None:
    for what, check in {
        "S3": s3,
        "clock of S3": clock,
        "MLflow": mlflow,
        "way out of the steps": egress,
    }.items():
        try:
            check()
        except Exception as error:  # a finding too
            text = f"could not be looked at: {type(error).__name__}: {error}"
            say("FAIL", what, text, "see that the service runs: scripts/compose.sh ps")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # without waiting for a look-up that gets no answer
