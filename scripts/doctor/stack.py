"""Checks of the running platform: its services, its recordings, and what a step sees of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scripts.doctor.command import Docker
from scripts.doctor.findings import Finding, fail, hidden, last_line, ok, warn
from scripts.doctor.settings import Settings

SERVERS = (
    "postgres",
    "s3",
    "mlflow",
    "airflow-apiserver",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-triggerer",
)
BY_PROFILE = {"celery": ("redis", "airflow-worker"), "tls": ("proxy",)}
ONCE = ("secrets", "bootstrap", "mlflow-user", "airflow-init")
START = "scripts/compose.sh up -d"
INSIDE = Path(__file__).with_name("inside.py")
LOOK_AT_FOLDER = """
import os, sys
names = sorted(os.listdir("/data"))
for name in names[:1]:
    path = os.path.join("/data", name)
    os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1)
print(len(names))
"""


def containers(docker: Docker, settings: Settings) -> list[dict[str, Any]]:
    """The containers of our Compose project, as the engine describes them."""
    label = f"label=com.docker.compose.project={settings.project}"
    ids = docker("ps", "--all", "--quiet", "--filter", label).out.split()
    described = json.loads(docker("inspect", *ids).out or "[]") if ids else []
    return [
        one
        for one in described
        if one["Config"]["Labels"].get("com.docker.compose.oneoff", "False") == "False"
    ]


def services(docker: Docker, settings: Settings) -> list[Finding]:
    found = {
        one["Config"]["Labels"]["com.docker.compose.service"]: one
        for one in containers(docker, settings)
    }
    if not any(one["State"]["Running"] for one in found.values()):
        n = len(found)
        text = f"none is up ({n} are stopped)" if n else "none is up"
        return [warn("services", text, START)]
    findings = []
    wanted = [*ONCE, *SERVERS]
    for profile, names in BY_PROFILE.items():
        wanted += names if profile in settings.profiles else ()
    for name in (*wanted, *sorted(set(found) - set(wanted))):
        if name not in found:
            findings.append(warn(f"service {name}", "was never started", START))
        else:
            findings.append(_service(docker, settings, name, found[name]))
    return findings


def _service(docker: Docker, settings: Settings, name: str, one: dict[str, Any]) -> Finding:
    what, state = f"service {name}", one["State"]
    health = (state.get("Health") or {}).get("Status", "")
    status, code = state["Status"], state["ExitCode"]
    if status == "running" and health in ("", "healthy"):
        return ok(what, health or "running")
    if status == "exited" and code == 0 and name in ONCE:
        return ok(what, "done")
    if status == "running" and health == "starting":
        return warn(what, "is starting", "look again in a minute")
    if status in ("created", "exited") and code == 0:
        return fail(what, f"does not run ({status})", START)
    logs = docker("logs", "--tail", "20", one["Id"])
    line = hidden(last_line(logs.err) or last_line(logs.out), settings.known_secrets())
    outcome = "is not healthy" if status == "running" else status
    memory = " for want of memory" if state.get("OOMKilled") else ""
    text = f"{outcome}{f', exit status {code}' if code else ''}{memory}; it says last: {line}"
    return fail(what, text, f"scripts/compose.sh logs {name}; then {START}")


def recordings(docker: Docker, settings: Settings) -> list[Finding]:
    """Recordings in a folder can be read by the user that steps are."""
    what, place = "recordings", settings["SPIRA_DATA_URL"]
    if settings.bucket("SPIRA_DATA_URL"):
        return []  # looked at from inside
    if not place.startswith("/"):
        advice = "write s3://bucket/prefix, or the whole path of a folder: /srv/recordings"
        return [fail(what, f"SPIRA_DATA_URL is neither: {place}", advice)]
    image = settings["SPIRA_TASKS_IMAGE"]
    answer = docker.probe(image, LOOK_AT_FOLDER, mounts={Path(place): "/data"})
    if answer.good:
        n_entries = int(answer.out)
        if n_entries == 0:
            return [warn(what, f"{place} is empty", "put recordings there: docs/recordings.md")]
        return [ok(what, f"{place}: {n_entries} entries, and steps may read it")]
    if "PermissionError" in answer.err:
        advice = f"let user 10001 read it: setfacl -R -m u:10001:rX {place}"
        return [fail(what, f"steps may not read {place}", advice)]
    if "does not exist" in answer.err:
        return [fail(what, f"there is no folder {place}", "make it, or correct SPIRA_DATA_URL")]
    return [warn(what, f"could not be looked at: {last_line(answer.err)}")]


def inside(docker: Docker, settings: Settings) -> list[Finding]:
    """What a step sees from its network, tried in a container as hard as a step's."""
    what, network = "network of the steps", settings["SPIRA_NETWORK"]
    found = {
        one["Config"]["Labels"]["com.docker.compose.service"]: one
        for one in containers(docker, settings)
    }
    if not any(one["State"]["Running"] for one in found.values()):
        return []  # said before
    shape = docker("network", "inspect", network)
    if not shape.good:
        return [fail(what, f"there is no network {network}", START)]
    described = json.loads(shape.out)[0]
    store, data = settings.bucket("SPIRA_STORE_URL"), settings.bucket("SPIRA_DATA_URL")
    if store is None:
        text = f"SPIRA_STORE_URL is no bucket: {settings['SPIRA_STORE_URL']}"
        return [fail("store", text, "write s3://bucket/prefix")]
    postgres = found.get("postgres", {}).get("NetworkSettings", {}).get("Networks", {})
    gateway = (described["IPAM"]["Config"] or [{}])[0].get("Gateway", "")
    answer = docker.probe(
        settings["SPIRA_TASKS_IMAGE"],
        INSIDE.read_text(),
        network=network,
        mounts={settings.secrets / "s3/identities.json": "/run/secrets/identities.json"},
        variables={
            "S3_ENDPOINT": settings["SPIRA_S3_ENDPOINT"],
            "S3_REGION": settings.values.get("SPIRA_S3_REGION", ""),
            "STORE": "/".join(store),
            "DATA": "/".join(data) if data else "",
            "POSTGRES": ",".join(one["IPAddress"] for one in postgres.values()),
            "GATEWAY": gateway,
            "MLFLOW": "there" if "mlflow" in found else "",
            "INTERNAL": str(described["Internal"]).lower(),
            "WANTED_INTERNAL": settings["SPIRA_STEPS_INTERNAL"].lower(),
        },
        seconds=90,
    )
    findings = []
    for line in answer.out.splitlines():
        if line.startswith("{"):
            findings.append(Finding(**json.loads(line)))
    if not answer.good:
        text = f"the look from inside stopped: {last_line(answer.err)}"
        advice = "correct what is said above; if there is nothing, see the detail"
        findings.append(fail(what, text, advice))
    return findings
