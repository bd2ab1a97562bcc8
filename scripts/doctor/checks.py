"""The checks of the doctor: this machine, the Docker engines, the services, and a step's view."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket as sockets
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from scripts.deployment import (
    CONNECT,
    NOT_THERE,
    ROOT,
    ROWS,
    TOO_LATE,
    Answer,
    Docker,
    Settings,
    call,
    hidden,
    in_postgres,
    last_line,
    s3_options,
)
from spira.site import Place, Site
from spira_tasks.contract.access import SECRET_FILES
from spira_tasks.contract.pipelines import TRAINING

OK, WARN, FAIL = "ok", "warn", "FAIL"
SOCKET = Path("/var/run/docker.sock")
OLDEST_ENGINE, OLDEST_COMPOSE = (20, 10), (1, 29)
LITTLE_GB, TOO_LITTLE_GB = 20, 5
LATE_HOURS = 2  # spira_maintenance runs every hour
LISTENS, LOOPBACK = "0A", ("0100007F", "00000000000000000000000001000000")  # of /proc/net/tcp
LATE_START = timedelta(minutes=15)
SECONDS_APART = 60  # S3 refuses signatures that are 15 minutes off
START = "scripts/compose.sh up -d"
PORTS = {
    "SPIRA_AIRFLOW_PORT": "airflow-apiserver",
    "SPIRA_MLFLOW_PORT": "mlflow",
    "SPIRA_S3_PORT": "s3",
}
PORTS_BY_PROFILE = {
    "tls": dict.fromkeys(
        ("SPIRA_HTTPS_AIRFLOW", "SPIRA_HTTPS_MLFLOW", "SPIRA_HTTPS_COLLECTION"), "proxy"
    ),
    "collection": {"SPIRA_COLLECTION_PORT": "collection"},
    "monitoring": {
        "SPIRA_PROMETHEUS_PORT": "prometheus",
        "SPIRA_ALERTMANAGER_PORT": "alertmanager",
    },
    "queue": {"SPIRA_NATS_PORT": "nats"},
}
SERVERS = (
    *("postgres", "s3", "mlflow"),
    *("airflow-apiserver", "airflow-scheduler", "airflow-dag-processor"),
)
ONCE = ("secrets", "bootstrap", "mlflow-user", "airflow-init")
SERVERS_BY_PROFILE = {
    "celery": ("redis", "airflow-worker"),
    "tls": ("proxy",),
    "collection": ("collection",),
    "serving": ("worker",),
    "queue": ("nats",),
    "monitoring": ("prometheus", "alertmanager"),
}
IMAGES_BY_PROFILE = {
    "celery": ("REDIS",),
    "tls": ("PROXY",),
    "queue": ("NATS",),
    "monitoring": ("PROMETHEUS", "ALERTMANAGER"),
}
NO_RUNTIME = (
    *("could not select device driver", "no known GPU vendor"),
    *("unresolvable CDI", "unknown or invalid runtime"),
)
INSIDE = Path(__file__).with_name("inside.py")
# In SQL of SQLite too; the states of runs are Airflow's.
SCHEDULES = """
SELECT d.dag_id, d.is_paused, d.next_dagrun_create_after, r.start_date, r.state
FROM dag d LEFT JOIN dag_run r ON r.dag_id = d.dag_id AND r.start_date =
  (SELECT max(start_date) FROM dag_run WHERE dag_id = d.dag_id)
WHERE NOT d.is_stale AND d.timetable_summary <> 'None' ORDER BY d.dag_id
"""
# Programs that run in a container of the tasks image.
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
READ_FOLDER = """
import os, sys
names = sorted(os.listdir("/data"))
for name in names[:1]:
    path = os.path.join("/data", name)
    os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1)
print(len(names))
"""


@dataclass(frozen=True)
class Finding:
    """One line of the table: what was checked, what was found, and what to do."""

    level: str
    what: str
    detail: str
    fix: str = ""


ok, warn, fail = partial(Finding, OK), partial(Finding, WARN), partial(Finding, FAIL)


def shown(findings: Iterable[Finding], secrets: Iterable[str] = ()) -> str:
    """The table and the fixes, as text that holds none of ``secrets``."""
    findings = list(findings)
    width = max((len(one.what) for one in findings), default=0)
    lines = [f"{one.level:<4}  {one.what:<{width}}  {one.detail}" for one in findings]
    fixes: dict[str, list[Finding]] = {}  # one fix can answer several findings
    for one in findings:
        if one.fix:
            fixes.setdefault(one.fix, []).append(one)
    if fixes:
        lines += ["", "What to do:"]
    ordered = sorted(fixes.items(), key=lambda item: all(one.level != FAIL for one in item[1]))
    lines += [f"  {', '.join(one.what for one in about)}: {fix}" for fix, about in ordered]
    n_failed = sum(one.level == FAIL for one in findings)
    n_warned = sum(one.level == WARN for one in findings)
    lines += ["", f"{n_failed} wrong, {n_warned} to look at, {len(findings)} looked at"]
    return hidden("\n".join(lines), secrets)


def status(findings: Iterable[Finding]) -> int:
    """The exit status."""
    return int(any(one.level == FAIL for one in findings))


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check, each after those that it depends on."""
    docker = Docker()
    yield from guarded("settings", env_file, settings)
    answers = list(guarded("Docker engine", engine, docker))
    yield from answers
    yield from guarded("Compose", compose)
    yield from guarded("disk", disk, _facts(docker))
    yield from guarded("secrets", secrets, settings, docker.services(settings))
    if status(answers):
        yield warn("everything else", "not looked at: no Docker engine answers")
        return
    yield from guarded("clock", clock, docker)
    for what, check in {
        "images": images,
        "site file": site,
        "Docker socket": socket,
        "GPU": gpus,
        "ports": ports,
        "services": services,
        "schedules": schedules,
        "recordings": recordings,
        "ended containers": ended_containers,
        "network of the steps": inside,
    }.items():
        yield from guarded(what, check, docker, settings)


def guarded(
    what: str, check: Callable[..., Iterable[Finding]], *arguments: object
) -> Iterator[Finding]:
    """The findings of a check; an exception is a finding too."""
    try:
        yield from check(*arguments)
    except Exception as error:
        text = f"this check broke: {type(error).__name__}: {error}"
        yield fail(what, text, "see the detail; if the platform works, the doctor has a bug")


def env_file(settings: Settings) -> Iterator[Finding]:
    if settings.env_file.exists():
        yield ok("settings", f"{settings.env_file}, project {settings.project!r}")
    else:
        text = f"there is no .env: defaults apply, and the project is called {settings.project!r}"
        yield warn("settings", text, "cp .env.example .env, and read through it")
    if "serving" in settings.profiles and not settings.values.get("SPIRA_TELEMETRY_SCHEDULE"):
        text = "SPIRA_TELEMETRY_SCHEDULE is empty: audio that is past its time is not deleted"
        yield warn("retention of answers", text, "write when in .env, such as 0 2 * * *")


def disk(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Free space where the engine keeps images and volumes, and here."""
    devices = set()
    for what, place in {
        "disk of the engine": Path(facts.get("DockerRootDir") or "/nowhere"),
        "disk here": ROOT,
    }.items():
        # an engine on another machine, or inside a virtual one, has its folder elsewhere
        if not place.exists() or (device := place.stat().st_dev) in devices:
            continue
        devices.add(device)
        free_gb = shutil.disk_usage(place).free / 1e9
        text = f"{free_gb:.0f} GB free at {place}"
        advice = "free some: docker image prune, docker builder prune; or give it a larger disk"
        if free_gb >= LITTLE_GB:
            yield ok(what, text)
        else:
            yield (fail if free_gb < TOO_LITTLE_GB else warn)(what, text, advice)


def secrets(settings: Settings, services: Mapping[str, object]) -> Iterator[Finding]:
    """The folder is closed, and holds the files that the servers mount."""
    folder = settings.secrets
    files = [folder / name / file for name, own in SECRET_FILES.items() for file in own]
    if not folder.is_dir():
        if services:
            text = f"{folder} is gone, and containers that need it exist"
            yield fail("secrets", text, "bring the folder back from your copy")
        else:
            yield ok("secrets", f"{folder} will be made at the first start")
        return
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        advice = f"chmod 700 {folder} (and consider who may have read them)"
        yield fail("secrets", f"{folder} is open to others: mode {mode:04o}", advice)
        return
    try:
        modes = {str(file.relative_to(folder)): _mode(file) for file in files}
    except PermissionError:
        yield ok("secrets", f"{folder} is closed, to you too: its files were not looked at")
        return
    missing = ", ".join(name for name, found in modes.items() if found is None)
    closed = ", ".join(n for n, found in modes.items() if found and not found & stat.S_IROTH)
    if missing:
        advice = "bring them back from your copy; only a new platform makes new ones"
        yield fail("secrets", f"{folder} lacks {missing}", advice)
    elif closed:
        advice = f"chmod 444 those files: the servers are other users, {folder} itself is closed"
        yield fail("secrets", f"servers cannot read {closed}", advice)
    else:
        yield ok("secrets", f"{folder} is closed (0700) and complete")


def _mode(file: Path) -> int | None:
    """The mode of a file; None when it is missing or empty."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_mode if found.st_size else None


def ports(docker: Docker, settings: Settings) -> Iterator[Finding]:
    """Each port is free, or our own container has it."""
    listed = docker("ps", "--format", "{{json .}}").out.splitlines()
    containers = [json.loads(line) for line in listed]
    wanted = dict(PORTS)
    for profile in PORTS_BY_PROFILE.keys() & settings.profiles:
        wanted |= PORTS_BY_PROFILE[profile]
    for name, service in wanted.items():
        address, _, port = settings[name].rpartition(":")
        what = f"port {port}"
        advice = f"end it, or set {name} to another port; it shows with: ss -ltnp 'sport = :{port}'"
        owner = next((one for one in containers if f":{port}->" in one["Ports"]), None)
        if owner and _is(owner, settings.project, service):
            yield ok(what, f"held by our {service}")
        elif owner:
            text = f"{service} needs it, and container {owner['Names']} holds it"
            yield fail(what, text, advice)
        else:
            yield _try_port(what, name, (address, port), service, advice)


def _is(container: dict[str, str], project: str, service: str) -> bool:
    labels = container["Labels"].split(",")
    wanted = f"com.docker.compose.project={project}", f"com.docker.compose.service={service}"
    return all(label in labels for label in wanted)


def _try_port(what: str, name: str, place: tuple[str, str], service: str, advice: str) -> Finding:
    address, port = place
    if not port.isdigit() or not 0 < int(port) < 65536:
        return fail(what, f"{name} is no port number", f"set {name} to a number below 65536")
    with sockets.socket() as listener:
        listener.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        try:
            listener.bind((address or "127.0.0.1", int(port)))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return fail(what, f"{service} needs it, and another program holds it", advice)
            return warn(what, f"cannot be tried by this user: {os.strerror(error.errno or 0)}")
    return ok(what, f"free, for {service}")


def engine(docker: Docker) -> Iterator[Finding]:
    what = "Docker engine"
    answer = docker("version", "--format", "{{.Server.Version}}")
    version = answer.out.strip()
    if not answer.good:
        yield _no_answer(what, answer, os.environ.get("DOCKER_HOST") or f"unix://{SOCKET}")
    elif _numbers(version) < OLDEST_ENGINE:
        text = f"{version} is older than {'.'.join(map(str, OLDEST_ENGINE))}"
        yield fail(what, text, "update Docker")
    else:
        yield ok(what, version)


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
        advice = "see that ca.pem, cert.pem and key.pem are in the tls folder, and not expired"
        return fail(what, f"{url}: {last_line(answer.err)}", advice)
    if any(word in error for word in ("cannot connect", "refused", "no such host")):
        advice = f"start it (sudo systemctl start docker), or correct the address {url}"
        return fail(what, f"no engine answers at {url}", advice)
    advice = "see what the engine says: journalctl -u docker"
    return fail(what, f"{url}: {last_line(answer.err)}", advice)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _facts(docker: Docker) -> dict[str, Any]:
    """The answer of ``docker info``; empty when the engine does not answer."""
    answer = docker("info", "--format", "{{json .}}")
    return json.loads(answer.out) if answer.good else {}


def compose() -> Iterator[Finding]:
    what, advice = "Compose", "install the package docker-compose-plugin"
    answer = call([str(ROOT / "scripts/compose.sh"), "version"])
    version = re.search(r"\d+\.\d+\.\d+", answer.out)
    if not answer.good or version is None:
        yield fail(what, last_line(answer.err), advice)
    elif _numbers(version[0]) < OLDEST_COMPOSE:
        yield fail(what, f"{version[0]} is too old", advice)
    else:
        yield ok(what, version[0])


def images(docker: Docker, settings: Settings) -> Iterator[Finding]:
    wanted = ["TASKS", "AIRFLOW", "MLFLOW", "S3", "POSTGRES"]
    for profile in IMAGES_BY_PROFILE.keys() & settings.profiles:
        wanted += IMAGES_BY_PROFILE[profile]
    lock = hashlib.sha256((ROOT / "docker/tasks.txt").read_bytes()).hexdigest()
    seen = set()
    for name in wanted:
        image = settings[f"SPIRA_{name}_IMAGE"]
        if image in seen:
            continue
        seen.add(image)
        what, labels = f"image {image}", docker.image_labels(image)
        if labels is None and name in ("TASKS", "AIRFLOW"):
            yield fail(what, "is not here", "make images")
        elif labels is None:
            text = "is not here; the first start pulls it, where there is internet"
            yield warn(what, text, f"docker pull {image}")
        elif name == "TASKS" and labels.get("spira.lock", "") not in ("", lock):
            yield warn(what, "was built from another lock file", "make images")
        else:
            version = labels.get("org.opencontainers.image.revision", "")
            yield ok(what, f"is here{f', built from {version}' if version else ''}")


def clock(docker: Docker) -> Iterator[Finding]:
    before = time.time()
    text = _facts(docker).get("SystemTime", "")
    found = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)$", text)
    if found is None:
        yield warn("clock", f"the engine's time cannot be read: {text!r}")
        return
    theirs = datetime.fromisoformat(found[1] + found[2].replace("Z", "+00:00")).timestamp()
    apart = abs(theirs - (before + time.time()) / 2)
    if apart > SECONDS_APART:
        text = f"the engine's is {apart:.0f} s from this machine's"
        yield fail("clock", text, "let both follow NTP: sudo timedatectl set-ntp true")
    else:
        yield ok("clock", f"the engine's is within {max(1, round(apart))} s of this machine's")


def socket(docker: Docker, settings: Settings) -> Iterator[Finding]:
    """Airflow's user reaches the engine by the group DOCKER_GID; tried as the scheduler does it."""
    what, group = "Docker socket", settings["DOCKER_GID"]
    if not group.isdigit():
        yield fail(what, "DOCKER_GID is no number", f"stat -c %g {SOCKET} shows it")
        return
    try:
        status = SOCKET.stat()
    except OSError:
        text = f"{SOCKET} is not here; Airflow's scheduler mounts it"
        yield fail(what, text, "run Docker as a service of this machine, not as one user's")
        return
    if not stat.S_ISSOCK(status.st_mode):
        yield fail(what, f"{SOCKET} is no socket", "remove it and restart Docker")
        return
    answer = docker.probe(
        settings["SPIRA_TASKS_IMAGE"],
        PING,
        user="10001:0",
        mounts={SOCKET: str(SOCKET)},
        more=[f"--group-add={group}"],
    )
    if answer.good and " 200 " in answer.out:
        yield ok(what, f"Airflow may use it, by group {group}")
    elif "PermissionError" in answer.err or (not answer.good and str(status.st_gid) != group):
        text = f"Airflow may not use it: DOCKER_GID is {group}, the group is {status.st_gid}"
        yield fail(what, text, f"write DOCKER_GID={status.st_gid} into {settings.env_file}")
    else:
        yield warn(what, f"could not be tried: {last_line(answer.err)}")


def gpus(docker: Docker, settings: Settings) -> Iterator[Finding]:
    """GPUs that containers can have, on the engine where the step ``train`` runs."""
    what, n_slots = "GPU", settings["SPIRA_GPUS"]
    known = _site(settings)
    resources = known.resources(TRAINING.step("train"))
    if resources.engine:
        docker = Docker(*_options(known.place(resources), settings))
    image = settings["SPIRA_TASKS_IMAGE"]
    labels = docker.image_labels(image)
    if labels is None:
        return  # a finding of ``images``
    answer = docker.probe(image, COUNT_GPUS, more=["--gpus=all"])
    if not answer.good:
        yield _no_gpu(what, answer)
        return
    n_gpus = int(answer.out.strip() or 0)
    if n_gpus == 0:
        advice = "see that nvidia-smi works on that machine"
        yield warn(what, "the engine supports GPUs and has none: train runs on the CPU", advice)
    elif labels.get("spira.device") == "cpu":
        advice = "set SPIRA_DEVICE=cuda, then make images"
        yield warn(what, f"{n_gpus}, and {image} is built for the CPU", advice)
    elif str(n_gpus) != n_slots:
        advice = f"set SPIRA_GPUS={n_gpus}, then up -d airflow-init"
        yield warn(what, f"there are {n_gpus}, and the pool has {n_slots} slots", advice)
    else:
        yield ok(what, f"{n_gpus}, and the pool has {n_slots} slots")


def _no_gpu(what: str, answer: Answer) -> Finding:
    if any(text in answer.err for text in NO_RUNTIME):
        text = "the engine has none for containers: train runs on the CPU"
        return warn(what, text, "if there is one, install NVIDIA's container toolkit")
    if "nvidia" in answer.err.lower():
        reason = re.search(r"nvidia-container-cli: (.*)", answer.err)
        text = f"the driver does not work: {reason[1] if reason else last_line(answer.err)}"
        return fail(what, text[:200], "make nvidia-smi work on that machine: driver, then reboot")
    return warn(what, f"could not be tried: {last_line(answer.err)}")


def site(docker: Docker, settings: Settings) -> Iterator[Finding]:
    """Airflow can read the site file, and the engines that it names can run steps."""
    what, file = "site file", settings.folder("SPIRA_SITE_FILE")
    try:
        mode = file.stat().st_mode
        engines = {name: place for name, place in _site(settings).engines.items() if name}
    except (OSError, ValueError, TypeError) as error:
        yield fail(what, str(error), f"correct {file}; plugins/spira/site.py says how")
        return
    if not mode & stat.S_IROTH:
        yield fail(what, f"Airflow's user cannot read {file}", f"chmod o+r {file}")
        return
    yield ok(what, f"{file}, {len(engines)} more engines")
    for name, place in engines.items():
        yield from _other_engine(name, place, settings)


def _other_engine(name: str, place: Place, settings: Settings) -> Iterator[Finding]:
    what, docker = f"engine {name}", Docker(*_options(place, settings))
    answer = docker("version", "--format", "{{.Server.Version}}")
    if not answer.good:
        yield _no_answer(what, answer, place.url)
        return
    image, network = settings["SPIRA_TASKS_IMAGE"], settings["SPIRA_NETWORK"]
    yield ok(what, f"{answer.out.strip()} at {place.url}")
    if docker.image_labels(image) is None:
        advice = f"docker save {image} | docker -H {place.url} load (or publish it)"
        yield warn(what, f"has no image {image}; the first step pulls it", advice)
    if not docker("network", "inspect", network).good:
        advice = f"make it there, with a way to S3 and MLflow: docker network create {network}"
        yield fail(what, f"has no network {network}", advice)


def _options(place: Place, settings: Settings) -> list[str]:
    options = [f"--host={place.url}"]
    if place.tls:  # a path inside Airflow's containers
        folder = place.tls
        for inside, own in {"/run/keys": "steps", "/run/secrets": "airflow"}.items():
            folder = folder.replace(inside, str(settings.secrets / own), 1)
        options += ["--tlsverify", f"--tlscacert={folder}/ca.pem"]
        options += [f"--tlscert={folder}/cert.pem", f"--tlskey={folder}/key.pem"]
    return options


def _site(settings: Settings) -> Site:
    """The site file, by the code that Airflow reads it with."""
    file = str(settings.folder("SPIRA_SITE_FILE"))
    return Site.from_environment({**os.environ, "SPIRA_SITE": file})


def services(docker: Docker, settings: Settings) -> Iterator[Finding]:
    found = docker.services(settings)
    if not any(one["State"]["Running"] for one in found.values()):
        text = f"none is up ({len(found)} are stopped)" if found else "none is up"
        yield warn("services", text, START)
        return
    wanted = [*ONCE, *SERVERS]
    for profile, names in SERVERS_BY_PROFILE.items():
        wanted += names if profile in settings.profiles else ()
    for name in (*wanted, *sorted(set(found) - set(wanted))):
        if name not in found:
            yield warn(f"service {name}", "was never started", START)
        else:
            yield _service(docker, settings, name, found[name])


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
    memory = ", out of memory" if state.get("OOMKilled") else ""
    text = f"{outcome}{f', exit status {code}' if code else ''}{memory}; its last line: {line}"
    return fail(what, text, f"scripts/compose.sh logs {name}; then {START}")


def schedules(docker: Docker, settings: Settings) -> Iterator[Finding]:
    """When the last and the next run of each DAG is that has a schedule, by Airflow's database."""
    postgres = docker.services(settings).get("postgres")
    if postgres is None or not postgres["State"]["Running"]:
        return  # a finding of ``services``
    psql = ("psql", *CONNECT, "-d", "airflow", *ROWS, "-c", f"SET timezone='UTC'; {SCHEDULES}")
    answer = docker(*in_postgres(postgres["Id"], *psql))
    if not answer.good:
        yield warn("schedules", f"could not be looked at: {last_line(answer.err)}", START)
        return
    for row in answer.out.splitlines():
        yield schedule(row.split("|"), datetime.now(UTC))


def schedule(row: Sequence[object], now: datetime) -> Finding:
    """The finding on one DAG, of a row of ``SCHEDULES``."""
    dag, paused, following, last, state = (str(field or "") for field in row)
    what = f"schedule of {dag}"
    text = f"last run {last[:16]} UTC, {state}" if last else "no run yet"
    if paused in ("t", "1"):
        return warn(what, f"it is paused; {text}", "switch it on, on Airflow's page")
    if state == "running":
        return ok(what, text)
    text += f"; next {following[:16]} UTC" if following else "; next when an event wakes it"
    due = datetime.fromisoformat(f"{following[:16]}+00:00") if following else now
    if now - due > LATE_START:
        return fail(what, f"{text}: it did not start", "scripts/compose.sh logs airflow-scheduler")
    return ok(what, text)


def recordings(docker: Docker, settings: Settings) -> Iterator[Finding]:
    """The user of the steps can read a folder of recordings; ``inside`` looks at a bucket."""
    what, place = "recordings", settings["SPIRA_DATA_URL"]
    if settings.bucket("SPIRA_DATA_URL"):
        return
    if not place.startswith("/"):
        advice = "write s3://bucket/prefix, or the whole path of a folder: /srv/recordings"
        yield fail(what, f"SPIRA_DATA_URL is neither: {place}", advice)
        return
    image = settings["SPIRA_TASKS_IMAGE"]
    answer = docker.probe(image, READ_FOLDER, mounts={Path(place): "/data"})
    if answer.good and int(answer.out) == 0:
        yield warn(what, f"{place} is empty", "put recordings there: docs/recordings.md")
    elif answer.good:
        yield ok(what, f"{place}: {int(answer.out)} entries, and steps may read it")
    elif "PermissionError" in answer.err:
        advice = f"let user 10001 read it: setfacl -R -m u:10001:rX {place}"
        yield fail(what, f"steps may not read {place}", advice)
    elif "does not exist" in answer.err:
        yield fail(what, f"there is no folder {place}", "make it, or correct SPIRA_DATA_URL")
    else:
        yield warn(what, f"could not be looked at: {last_line(answer.err)}")


def ended_containers(docker: Docker, settings: Settings) -> Iterator[Finding]:
    """Each has keys in its environment; the DAG spira_maintenance removes them."""
    what, hours = "ended containers", float(settings["SPIRA_KEEP_HOURS"])
    networks = (settings["SPIRA_NETWORK"], settings["SPIRA_SERVICES_NETWORK"])
    own = ("--filter=label=spira.step", *(f"--filter=network={name}" for name in networks))
    ids = docker("ps", "--all", "--quiet", "--filter=status=exited", *own).out.split()
    ends = docker("inspect", "--format={{.State.FinishedAt}}", *ids).out.split() if ids else []
    ages = [time.time() - datetime.fromisoformat(f"{at[:19]}+00:00").timestamp() for at in ends]
    n_old = sum(age > (hours + LATE_HOURS) * 3600 for age in ages)
    if n_old:
        text = f"{n_old} are older than {hours:g} hours, and each holds keys"
        yield warn(what, text, "unpause spira_maintenance in Airflow's page, and look at its runs")
    else:
        yield ok(what, f"{len(ages)}, none older than {hours:g} hours")


def listening() -> list[int]:
    """TCP ports that programs of this machine offer on other addresses than loopback (Linux)."""
    ports = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            address, _, port = line.split()[1].partition(":")
            if line.split()[3] == LISTENS and address not in LOOPBACK:
                ports.add(int(port, 16))
    return sorted(ports)


def inside(docker: Docker, settings: Settings) -> Iterator[Finding]:
    """What a step sees of its network, from a container as restricted as a step's."""
    what, network = "network of the steps", settings["SPIRA_NETWORK"]
    found = docker.services(settings)
    if not any(one["State"]["Running"] for one in found.values()):
        return  # a finding of ``services``
    shape = docker("network", "inspect", network)
    if not shape.good:
        yield fail(what, f"there is no network {network}", START)
        return
    described = json.loads(shape.out)[0]
    store, data = settings.bucket("SPIRA_STORE_URL"), settings.bucket("SPIRA_DATA_URL")
    if store is None:
        text = f"SPIRA_STORE_URL is no bucket: {settings['SPIRA_STORE_URL']}"
        yield fail("store", text, "write s3://bucket/prefix")
        return
    postgres = found.get("postgres", {}).get("NetworkSettings", {}).get("Networks", {})
    options = s3_options(settings)
    options["variables"] |= {
        "STORE": "/".join(store),
        "DATA": "/".join(data) if data else "",
        "POSTGRES": ",".join(one["IPAddress"] for one in postgres.values()),
        "HOST_PORTS": ",".join(map(str, listening())),
        "GATEWAY": (described["IPAM"]["Config"] or [{}])[0].get("Gateway", ""),
        "MLFLOW": "there" if "mlflow" in found else "",
        "INTERNAL": str(described["Internal"]).lower(),
        "WANTED_INTERNAL": settings["SPIRA_STEPS_INTERNAL"].lower(),
    }
    image = settings["SPIRA_TASKS_IMAGE"]
    answer = docker.probe(image, INSIDE.read_text(), seconds=90, **options)
    for line in answer.out.splitlines():
        if line.startswith("{"):
            yield Finding(**json.loads(line))
    if not answer.good:
        text = f"the look from inside stopped: {last_line(answer.err)}"
        yield fail(what, text, "correct what is said above; if there is nothing, see the detail")
