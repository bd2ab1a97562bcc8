"""Checks of the Docker engines: answer, Compose, images, clock, socket, GPUs, other engines."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from scripts.doctor.command import NOT_THERE, TOO_LATE, Answer, Docker, call
from scripts.doctor.findings import Finding, fail, last_line, ok, warn
from scripts.doctor.settings import ROOT, Settings

SOCKET = Path("/var/run/docker.sock")
BY_PROFILE = {"celery": "REDIS", "tls": "PROXY"}
OLDEST_ENGINE, OLDEST_COMPOSE = (20, 10), (1, 29)
SECONDS_APART = 60  # S3 refuses signatures that are 15 minutes off
NO_RUNTIME = (
    "could not select device driver",
    "no known GPU vendor",
    "unresolvable CDI",
    "unknown or invalid runtime",
)
PING = """
import socket
with socket.socket(socket.AF_UNIX) as s:
    s.settimeout(10)
    s.connect("/var/run/docker.sock")
    s.sendall(b"GET /_ping HTTP/1.0\\r\\n\\r\\n")
    print(s.recv(100).decode().splitlines()[0])
"""
COUNT_GPUS = """
import re, subprocess
from pathlib import Path
try:
    text = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30).stdout
except FileNotFoundError:
    text = ""
listed = re.findall(r"^GPU \\d+:", text, re.M)
print(len(listed) or len([f for f in Path("/dev").glob("nvidia*") if f.name[6:].isdigit()]))
"""


def engine(docker: Docker) -> list[Finding]:
    what = "Docker engine"
    answer = docker("version", "--format", "{{.Server.Version}}")
    if answer.good:
        version = answer.out.strip()
        if _numbers(version) < OLDEST_ENGINE:
            text = f"{version} is older than {'.'.join(map(str, OLDEST_ENGINE))}"
            return [fail(what, text, "bring Docker up to date")]
        return [ok(what, version)]
    return [_no_answer(what, answer, os.environ.get("DOCKER_HOST") or f"unix://{SOCKET}")]


def _no_answer(what: str, answer: Answer, url: str) -> Finding:
    error = answer.err.lower()
    if answer.status == NOT_THERE:
        return fail(what, answer.err, "install Docker's client (docker-ce-cli), or set DOCKER=")
    if answer.status == TOO_LATE:
        return fail(what, f"{url}: {answer.err}", "restart it: sudo systemctl restart docker")
    if "permission denied" in error:
        advice = "add yourself to its group, then log in again: sudo usermod -aG docker $USER"
        return fail(what, f"{url}: this user may not use it", advice)
    if any(word in error for word in ("tls", "x509", "certificate")):
        advice = "see that ca.pem, cert.pem and key.pem are in the tls folder, and in date"
        return fail(what, f"{url}: {last_line(answer.err)}", advice)
    if any(word in error for word in ("cannot connect", "refused", "no such host")):
        advice = f"start it (sudo systemctl start docker), or correct the address {url}"
        return fail(what, f"nobody answers at {url}", advice)
    advice = "see what the engine says: journalctl -u docker"
    return fail(what, f"{url}: {last_line(answer.err)}", advice)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def facts(docker: Docker) -> dict[str, Any]:
    """What the engine says of itself; empty when it does not answer."""
    answer = docker("info", "--format", "{{json .}}")
    return json.loads(answer.out) if answer.good else {}


def compose() -> list[Finding]:
    what = "Compose"
    answer = call([str(ROOT / "scripts/compose.sh"), "version"])
    version = re.search(r"\d+\.\d+\.\d+", answer.out)
    if not answer.good or version is None:
        return [fail(what, last_line(answer.err), "install the package docker-compose-plugin")]
    if _numbers(version[0]) < OLDEST_COMPOSE:
        return [fail(what, f"{version[0]} is too old", "install the package docker-compose-plugin")]
    return [ok(what, version[0])]


def images(docker: Docker, settings: Settings) -> list[Finding]:
    wanted = ["POSTGRES", "S3", "MLFLOW", "AIRFLOW", "TASKS"]
    wanted[:0] = [name for profile, name in BY_PROFILE.items() if profile in settings.profiles]
    names = {settings[f"SPIRA_{name}_IMAGE"]: name for name in wanted}
    findings = []
    for image, name in reversed(names.items()):
        what = f"image {image}"
        labels = image_labels(docker, image)
        if labels is None:
            if name in ("TASKS", "AIRFLOW"):
                findings.append(fail(what, "is not here", "make images"))
            else:
                text = "is not here; the first start pulls it, where there is internet"
                findings.append(warn(what, text, f"docker pull {image}"))
        elif name == "TASKS" and labels.get("spira.lock", "") not in ("", _lock()):
            findings.append(warn(what, "was built from another lock file", "make images"))
        else:
            version = labels.get("org.opencontainers.image.revision", "")
            findings.append(ok(what, f"is here{f', built from {version}' if version else ''}"))
    return findings


def image_labels(docker: Docker, image: str) -> dict[str, str] | None:
    answer = docker("image", "inspect", "--format", "{{json .Config.Labels}}", image)
    return (json.loads(answer.out) or {}) if answer.good else None


def _lock() -> str:
    return hashlib.sha256((ROOT / "docker/tasks.txt").read_bytes()).hexdigest()


def clock(docker: Docker) -> list[Finding]:
    before = time.time()
    text = facts(docker).get("SystemTime", "")
    found = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)$", text)
    if found is None:
        return [warn("clock", f"the engine says no time that can be read: {text!r}")]
    theirs = datetime.fromisoformat(found[1] + found[2].replace("Z", "+00:00")).timestamp()
    apart = abs(theirs - (before + time.time()) / 2)
    if apart > SECONDS_APART:
        text = f"the engine's is {apart:.0f} s from this machine's"
        return [fail("clock", text, "let both follow NTP: sudo timedatectl set-ntp true")]
    return [ok("clock", f"the engine's is within {max(1, round(apart))} s of this machine's")]


def socket(docker: Docker, settings: Settings) -> list[Finding]:
    """Airflow's user reaches the engine by the group DOCKER_GID, tried as the scheduler does it."""
    what, group = "Docker socket", settings["DOCKER_GID"]
    if not group.isdigit():
        return [fail(what, "DOCKER_GID is no number", f"stat -c %g {SOCKET} says it")]
    try:
        status = SOCKET.stat()
    except OSError:
        text = f"{SOCKET} is not here; Airflow's scheduler mounts it"
        return [fail(what, text, "run Docker as a service of this machine, not as one user's")]
    if not stat.S_ISSOCK(status.st_mode):
        return [fail(what, f"{SOCKET} is no socket", "remove it and restart Docker")]
    answer = docker.probe(
        settings["SPIRA_TASKS_IMAGE"],
        PING,
        user="10001:0",
        mounts={SOCKET: str(SOCKET)},
        more=[f"--group-add={group}"],
    )
    if answer.good and " 200 " in answer.out:
        return [ok(what, f"Airflow may use it, by group {group}")]
    if "PermissionError" in answer.err or (not answer.good and str(status.st_gid) != group):
        text = f"Airflow may not use it: DOCKER_GID is {group}, the group is {status.st_gid}"
        return [fail(what, text, f"write DOCKER_GID={status.st_gid} into {settings.env_file}")]
    return [warn(what, f"could not be tried: {last_line(answer.err)}")]


def gpus(docker: Docker, settings: Settings) -> list[Finding]:
    """GPUs that containers can have, on the engine where the step ``train`` runs."""
    what, lent = "GPU", settings["SPIRA_GPUS"]
    with _site(settings) as known:
        from spira_tasks.contract.pipelines import TRAINING

        train = TRAINING.step("train")
        resources = known.resources(train)
        place = known.place(resources)
    if resources.engine:
        docker = Docker(*_options(place, settings))
    image = settings["SPIRA_TASKS_IMAGE"]
    labels = image_labels(docker, image)
    if labels is None:
        return []  # said before
    answer = docker.probe(image, COUNT_GPUS, more=["--gpus=all"])
    if not answer.good:
        return [_no_gpu(what, answer)]
    n_gpus = int(answer.out.strip() or 0)
    if n_gpus == 0:
        advice = "see that nvidia-smi works on that machine"
        return [warn(what, "the engine lends GPUs, and has none: train runs on the CPU", advice)]
    if labels.get("spira.device") == "cpu":
        advice = "set SPIRA_DEVICE=cuda, then make images"
        return [warn(what, f"{n_gpus}, and {image} is built for the CPU", advice)]
    if str(n_gpus) != lent:
        advice = f"set SPIRA_GPUS={n_gpus}, then up -d airflow-init"
        return [warn(what, f"there are {n_gpus}, and the pool lends {lent}", advice)]
    return [ok(what, f"{n_gpus}, and the pool lends {lent}")]


def _no_gpu(what: str, answer: Answer) -> Finding:
    if any(text in answer.err for text in NO_RUNTIME):
        text = "the engine can lend none: train runs on the CPU"
        return warn(what, text, "if there is one, install NVIDIA's container toolkit")
    if "nvidia" in answer.err.lower():
        reason = re.search(r"nvidia-container-cli: (.*)", answer.err)
        text = f"the driver does not work: {reason[1] if reason else last_line(answer.err)}"
        return fail(what, text[:200], "make nvidia-smi work on that machine: driver, then reboot")
    return warn(what, f"could not be tried: {last_line(answer.err)}")


def site(settings: Settings) -> list[Finding]:
    """The site file says what Airflow understands, and the engines that it names can work."""
    what, file = "site file", settings.folder("SPIRA_SITE_FILE")
    try:
        mode = file.stat().st_mode
        with _site(settings) as known:
            engines = {name: place for name, place in known.engines.items() if name}
    except (OSError, ValueError, TypeError) as error:
        return [fail(what, str(error), f"correct {file}; plugins/spira_site.py says how")]
    if not mode & stat.S_IROTH:
        return [fail(what, f"Airflow's user cannot read {file}", f"chmod o+r {file}")]
    findings = [ok(what, f"{file}, {len(engines)} more engines")]
    for name, place in engines.items():
        findings += _other_engine(name, place, settings)
    return findings


def _other_engine(name: str, place: Any, settings: Settings) -> list[Finding]:
    what = f"engine {name}"
    docker = Docker(*_options(place, settings))
    answer = docker("version", "--format", "{{.Server.Version}}")
    if not answer.good:
        return [_no_answer(what, answer, place.url)]
    image, network = settings["SPIRA_TASKS_IMAGE"], settings["SPIRA_NETWORK"]
    findings = [ok(what, f"{answer.out.strip()} at {place.url}")]
    if image_labels(docker, image) is None:
        advice = f"docker save {image} | docker -H {place.url} load (or publish it)"
        findings.append(warn(what, f"has no image {image}; the first step pulls it", advice))
    if not docker("network", "inspect", network).good:
        advice = f"make it there, with a way to S3 and MLflow: docker network create {network}"
        findings.append(fail(what, f"has no network {network}", advice))
    return findings


def _options(place: Any, settings: Settings) -> list[str]:
    options = [f"--host={place.url}"]
    if place.tls:  # a path as Airflow's containers see it
        folder = place.tls.replace("/run/secrets", str(settings.secrets / "airflow"), 1)
        options += ["--tlsverify", f"--tlscacert={folder}/ca.pem"]
        options += [f"--tlscert={folder}/cert.pem", f"--tlskey={folder}/key.pem"]
    return options


@contextmanager
def _site(settings: Settings) -> Iterator[Any]:
    """The site file as Airflow's own code reads it, so that both say the same of it."""
    import sys

    sys.path.append(str(ROOT / "plugins"))
    saved = os.environ.get("SPIRA_SITE")
    os.environ["SPIRA_SITE"] = str(settings.folder("SPIRA_SITE_FILE"))
    try:
        from spira_site import Site

        yield Site.from_environment()
    finally:
        sys.path.remove(str(ROOT / "plugins"))
        os.environ.pop("SPIRA_SITE")
        if saved is not None:
            os.environ["SPIRA_SITE"] = saved
