"""Checks of this machine: settings, disk, secrets, ports."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import stat
from pathlib import Path
from typing import Any

from scripts.doctor.command import Docker
from scripts.doctor.findings import Finding, fail, ok, warn
from scripts.doctor.settings import ROOT, Settings

GB = 10**9
LITTLE_GB, TOO_LITTLE_GB = 20, 5
PORTS = {
    "SPIRA_AIRFLOW_PORT": "airflow-apiserver",
    "SPIRA_MLFLOW_PORT": "mlflow",
    "SPIRA_S3_PORT": "s3",
}
PROXY_PORTS = {"SPIRA_HTTPS_AIRFLOW": "proxy", "SPIRA_HTTPS_MLFLOW": "proxy"}
SECRET_FILES = (
    "postgres/password",
    "airflow/database",
    "airflow/fernet_key",
    "airflow/jwt_secret",
    "airflow/api_secret_key",
    "airflow/admin_password",
    "airflow/connections.json",
    "mlflow/backend_uri",
    "mlflow/basic_auth.ini",
    "mlflow/s3.json",
    "s3/identities.json",
)


def env_file(settings: Settings) -> list[Finding]:
    if settings.env_file_there:
        return [ok("settings", f"{settings.env_file}, project {settings.project!r}")]
    text = f"there is no .env: defaults hold, and the project is called {settings.project!r}"
    return [warn("settings", text, "cp .env.example .env, and read through it")]


def disk(facts: dict[str, Any]) -> list[Finding]:
    """Free space where the engine keeps images and volumes, and here."""
    findings, devices = [], set()
    for what, place in {
        "disk of the engine": Path(facts.get("DockerRootDir") or "/nowhere"),
        "disk here": ROOT,
    }.items():
        if not place.exists():
            continue  # the engine is on another machine, or inside a virtual one
        device = place.stat().st_dev
        if device in devices:
            continue
        devices.add(device)
        free_gb = shutil.disk_usage(place).free / GB
        text = f"{free_gb:.0f} GB free at {place}"
        advice = "free some: docker image prune, docker builder prune; or give it a larger disk"
        if free_gb < TOO_LITTLE_GB:
            findings.append(fail(what, text, advice))
        elif free_gb < LITTLE_GB:
            findings.append(warn(what, text, advice))
        else:
            findings.append(ok(what, text))
    return findings


def secrets(settings: Settings, containers: list[dict[str, Any]]) -> list[Finding]:
    """The folder is closed, and what the servers mount from it is there."""
    folder = settings.secrets
    if not folder.is_dir():
        if containers:
            text = f"{folder} is gone, and containers that need it exist"
            return [fail("secrets", text, "bring the folder back from where you keep a copy")]
        return [ok("secrets", f"{folder} will be made at the first start")]
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        advice = f"chmod 700 {folder} (and think of who may have read them)"
        return [fail("secrets", f"{folder} is open to others: mode {mode:04o}", advice)]
    try:
        missing = [name for name in SECRET_FILES if not _has_content(folder / name)]
    except PermissionError:
        return [ok("secrets", f"{folder} is closed, to you too: what is in it was not looked at")]
    if missing:
        advice = "bring them back from where you keep a copy; only a new platform makes new ones"
        return [fail("secrets", f"{folder} lacks {', '.join(missing)}", advice)]
    closed = [name for name in SECRET_FILES if not (folder / name).stat().st_mode & stat.S_IROTH]
    if closed:
        advice = f"chmod 444 those files: the servers are other users, {folder} itself is closed"
        return [fail("secrets", f"servers cannot read {', '.join(closed)}", advice)]
    return [ok("secrets", f"{folder} is closed (0700) and complete")]


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:
        return False


def ports(docker: Docker, settings: Settings) -> list[Finding]:
    """Each port is held by our own container, or by nobody."""
    listed = docker("ps", "--format", "{{json .}}")
    holders = [json.loads(line) for line in listed.out.splitlines()]
    findings = []
    wanted = PORTS | (PROXY_PORTS if "tls" in settings.profiles else {})
    for name, service in wanted.items():
        address, _, port = settings[name].rpartition(":")
        what = f"port {port}"
        advice = f"end it, or set {name} to another port; it shows with: ss -ltnp 'sport = :{port}'"
        holder = next((one for one in holders if f":{port}->" in one["Ports"]), None)
        if holder and _is(holder, settings.project, service):
            findings.append(ok(what, f"held by our {service}"))
        elif holder:
            text = f"{service} needs it, and container {holder['Names']} holds it"
            findings.append(fail(what, text, advice))
        else:
            findings.append(_try_port(what, name, (address, port), service, advice))
    return findings


def _is(container: dict[str, str], project: str, service: str) -> bool:
    labels = container["Labels"].split(",")
    wanted = f"com.docker.compose.project={project}", f"com.docker.compose.service={service}"
    return all(label in labels for label in wanted)


def _try_port(what: str, name: str, place: tuple[str, str], service: str, advice: str) -> Finding:
    address, port = place
    if not port.isdigit() or not 0 < int(port) < 65536:
        return fail(what, f"{name} is no port number", f"set {name} to a number below 65536")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address or "127.0.0.1", int(port)))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return fail(what, f"{service} needs it, and another program holds it", advice)
            return warn(what, f"cannot be tried by this user: {os.strerror(error.errno or 0)}")
    return ok(what, f"free, for {service}")
