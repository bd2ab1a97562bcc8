"""The containers of steps on one Docker engine: start, find, follow and end them.

Knows the engine's API and nothing of Airflow.  A container is identified by its labels, so the next
try finds it after the process that started it has died.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from docker import APIClient
from docker.errors import APIError, NotFound
from docker.tls import TLSConfig
from docker.types import DeviceRequest, LogConfig, Mount
from requests.exceptions import RequestException

from spira.site import Place
from spira_tasks.contract.step import Resources

log = logging.getLogger("spira.engine")

MIB = 1 << 20
POLL_SECONDS = 1.0
SAMPLE_SECONDS = 2.0  # between two samples of a container's memory
LOST_SECONDS = 120.0  # an engine that is restarted is back before this
SETTLE_SECONDS = 0.2  # the engine's own time between looking a name up and locking its container
START_SECONDS = 30.0  # from making a container to starting it, on a busy machine
SIGTERM, SIGKILL = 15, 9
LABEL = "spira.step"  # on every container of a step
PLATFORM = "spira.platform"
PART_BYTES = 16384  # the engine splits a longer line into parts and stamps each of them
STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ")
STAMP_BYTES = 31


@dataclass(frozen=True)
class Identity:
    """Which task a container works for.

    ``attempt`` is Airflow's try number.  ``platform`` tells two installations apart that share an
    engine: their DAGs, and the runs that a schedule makes, have the same names.
    """

    dag: str
    task: str
    run: str
    map_index: int
    attempt: int
    platform: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """Labels that all tries of one task have in common."""
        return {
            LABEL: f"{self.dag}/{self.task}",
            PLATFORM: self.platform,
            "spira.dag": self.dag,
            "spira.task": self.task,
            "spira.run": self.run,
            "spira.map_index": str(self.map_index),
        }

    @property
    def name(self) -> str:
        """Of a new container; the same for all tries, so only one container can have it."""
        whole = "\0".join(self.labels.values())
        return f"spira-{self.task}-{sha256(whole.encode()).hexdigest()[:10]}"

    @property
    def mark(self) -> str:
        """What follows the name of a container that belongs to this try."""
        return f"-try{self.attempt}"


class EngineLost(Exception):
    """The engine did not answer for LOST_SECONDS."""


class NoGPU(Exception):
    """The engine has no GPU, or no runtime that passes one to containers."""


@dataclass(frozen=True)
class Ending:
    """How a container ended."""

    status: int
    out_of_memory: bool
    error: str = ""


class _Client(APIClient):  # type: ignore[misc]
    """Ignores HTTPS_PROXY and REQUESTS_CA_BUNDLE, which a hospital's firewall may ask for."""

    def merge_environment_settings(self, *args: Any, **kwargs: Any) -> Any:
        self.trust_env = False
        return super().merge_environment_settings(*args, **kwargs)


def connect(place: Place) -> Engine:
    """The engine at a place of the site file, by TLS where the place says so."""
    tls = None
    if place.tls:
        tls = TLSConfig(
            client_cert=(f"{place.tls}/cert.pem", f"{place.tls}/key.pem"),
            ca_cert=f"{place.tls}/ca.pem",
            verify=True,
        )
    return Engine(_Client(place.url, version="auto", timeout=60, tls=tls or False), place.hosts)


class Engine:
    """The containers of one Docker engine."""

    def __init__(self, client: APIClient, hosts: Mapping[str, str] | None = None) -> None:
        self.client = client
        self.hosts = dict(hosts or {})

    def start(
        self,
        identity: Identity,
        *,
        image: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        resources: Resources,
        memory_mib: int,
        network: str,
        user: str,
        mounts: Sequence[Mount],
        labels: Mapping[str, str],
    ) -> str:
        """Start a container for this try; return its id, or the id that another try started first.

        After a restart of the scheduler two tries can run this at once.  Only one can create a
        container with the task's plain name, and keeps that name until the container runs.  The
        other one waits for the name, finds the container running, and takes it over.

        Raises
        ------
        NoGPU
            When GPUs are asked for and the engine has none to give.
        """
        name = identity.name
        config = self.client.create_container_config(
            image=image,
            command=list(command),
            user=user,
            environment=dict(environment),
            labels={
                **identity.labels,
                **labels,
                "spira.attempt": str(identity.attempt),
                "spira.deadline": str(int(time.time()) + resources.minutes * 60 + 600),
            },
            stop_signal="SIGTERM",
            host_config=self._host_config(resources, memory_mib, network, mounts),
        )
        container = self._create(name, config, identity)
        if working := self._working(identity):
            if container:
                self.remove(container)
            self.claim(working, identity)
            return working
        self.remove(f"{name}{identity.mark}")  # of this very try, and ended
        try:
            self.client.start(container)
        except APIError as error:
            self.remove(container)
            if resources.n_gpus and _is_about_gpus(error):
                raise NoGPU(error.explanation) from error
            raise
        self.claim(container, identity)
        return container

    def _create(self, name: str, config: Any, identity: Identity) -> str:
        """Create a container of this name; empty when another try has started one meanwhile."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return str(self.client.create_container_from_config(config, name)["Id"])
            except APIError as error:
                if error.status_code != 409:
                    raise
            if self._working(identity):
                return ""
            if time.monotonic() > deadline:
                self.remove(name)  # its creator was killed before the start
            time.sleep(0.05)

    def _working(self, identity: Identity) -> str:
        """The running container of the task; empty when there is none."""
        return next((f["Id"] for f in self.find(identity) if f["State"] == "running"), "")

    def _host_config(
        self, resources: Resources, memory_mib: int, network: str, mounts: Sequence[Mount]
    ) -> dict[str, Any]:
        """Unprivileged, read-only, limited: a bug in a step can do no more than a step may."""
        gpus = [DeviceRequest(count=resources.n_gpus, capabilities=[["gpu"]])]
        cpus = min(resources.cpus, float(self.client.info()["NCPU"]))
        config: dict[str, Any] = self.client.create_host_config(
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            read_only=True,
            tmpfs={"/tmp": f"rw,noexec,nosuid,nodev,size={resources.scratch_mib}m,mode=1777"},  # noqa: S108
            init=True,
            pids_limit=512,
            nano_cpus=int(cpus * 1e9),
            mem_limit=memory_mib * MIB,
            memswap_limit=memory_mib * MIB,  # memory and swap together: no swap
            shm_size=resources.shm_mib * MIB,
            ipc_mode="private",
            network_mode=network,
            extra_hosts=self.hosts or None,
            device_requests=gpus if resources.n_gpus else None,
            mounts=list(mounts),
            log_config=LogConfig(type="json-file", config={"max-size": "64m", "max-file": "2"}),
        )
        return config

    def image_id(self, image: str) -> str:
        """The digest of the image on this engine, pulled where a registry has it; else empty."""
        for may_pull in (True, False):
            try:
                return str(self.client.inspect_image(image)["Id"])
            except NotFound:
                if may_pull:
                    with suppress(APIError):
                        self.client.pull(image)  # its answer may hold an error and be a 200
        return ""

    def find(self, identity: Identity) -> list[dict[str, Any]]:
        """All containers of the task of ``identity``, of every try, the oldest first."""
        labels = [f"{name}={value}" for name, value in identity.labels.items()]
        found = self.client.containers(all=True, filters={"label": labels})
        return sorted(found, key=lambda container: (container["Created"], container["Id"]))

    def claim(self, container: str, identity: Identity) -> None:
        """Make this try the owner of a container, unless a later try is: only the owner stops it.

        The owner is in the container's name, the only field that can change while it runs.  The
        rename addresses the container by the name that was read.  If a later try has renamed it
        meanwhile, the rename finds nothing, reads again, and gives way.  The engine looks a name
        up a moment before it locks the container, so of two renames in that moment the earlier
        try's may come last.  So each try reads the name again after SETTLE_SECONDS.
        """
        deadline = time.monotonic() + START_SECONDS
        is_settled = False
        while True:
            held = self._name(container)
            name, attempt = _owner(held)
            if attempt == identity.attempt and not is_settled:
                is_settled = True
                time.sleep(SETTLE_SECONDS)
                continue
            if attempt >= identity.attempt:
                return
            is_settled = False
            try:
                self.client.rename(held, f"{name}{identity.mark}")
            except APIError as error:  # 404: it was renamed; 409: the name is just being freed
                if error.status_code not in (404, 409) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def belongs_to(self, container: str, identity: Identity) -> bool:
        return _owner(self._name(container))[1] == identity.attempt

    def _name(self, container: str) -> str:
        return str(self.client.inspect_container(container)["Name"]).removeprefix("/")

    def follow(self, container: str, after: str = "") -> Iterator[list[Line]]:
        """Yield about once a second, until a container has ended, its lines later than ``after``.

        It polls and holds no connection open, so a restart of the engine or of the network costs
        one poll.

        Raises
        ------
        EngineLost
            When the engine does not answer for LOST_SECONDS.
        NotFound
            When the container was removed.
        """
        lost_at: float | None = None
        pause = 0.1
        while True:
            try:
                # before the lines, so that none is missed
                ended = not self.is_running(container)
                lines = self.lines(container, after, ended=ended)
                lost_at = None
            except NotFound:
                raise
            except (RequestException, APIError) as error:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > LOST_SECONDS:
                    raise EngineLost(str(error)) from error
                log.warning("the Docker engine does not answer; asking again")
                time.sleep(5 * POLL_SECONDS)
                continue
            after = lines[-1].at if lines else after
            yield lines
            if ended:
                return
            time.sleep(pause)
            pause = min(pause * 1.5, POLL_SECONDS)

    def is_running(self, container: str) -> bool:
        return bool(self.client.inspect_container(container)["State"]["Running"])

    def lines(self, container: str, after: str, *, ended: bool = True) -> list[Line]:
        """The stderr of a step later than ``after``, a timestamp of the engine."""
        since = {"since": unix_second(after)} if after else {}
        content = self.client.logs(container, stdout=False, timestamps=True, **since)
        return parse(content, after, ended=ended)

    def memory_mib(self, container: str) -> int:
        """Memory of a container now, without the page cache that the kernel could drop."""
        memory = self.client.stats(container, stream=False, one_shot=True).get("memory_stats", {})
        details = memory.get("stats", {})
        cache = details.get("total_inactive_file", details.get("inactive_file", 0))
        return int((memory.get("usage", 0) - cache) // MIB)

    def ending(self, container: str) -> Ending:
        state = self.client.inspect_container(container)["State"]
        return Ending(int(state["ExitCode"]), bool(state["OOMKilled"]), str(state["Error"]))

    def stop(self, container: str, seconds: float) -> None:
        """Send SIGTERM, and SIGKILL after ``seconds``.

        SIGTERM is a request of its own, so it arrives even if this process dies while waiting.
        """
        try:
            self.client.kill(container, SIGTERM)
            deadline = time.monotonic() + seconds
            while self.is_running(container):
                if time.monotonic() > deadline:
                    self.client.kill(container, SIGKILL)
                    return
                time.sleep(0.1)
        except APIError as error:
            if error.status_code not in (404, 409):  # it is gone, or has ended already
                raise

    def remove(self, container: str) -> None:
        """Remove a container and its volumes, if it is still there."""
        try:
            self.client.remove_container(container, v=True, force=True)
        except APIError as error:
            if error.status_code not in (404, 409):  # it is gone, or is being removed
                raise


def _owner(name: str) -> tuple[str, int]:
    """The plain name of a container, and the try that owns it: 0 before it is started."""
    found = re.fullmatch(r"(.+?)(?:-try(\d+))?", name)
    return (found[1], int(found[2] or 0)) if found else ("", 0)


def _is_about_gpus(error: APIError) -> bool:
    words = ("could not select device driver", "nvidia", "gpu", "unknown runtime")
    return any(word in str(error.explanation).lower() for word in words)


@dataclass(frozen=True)
class Line:
    """A line that a container wrote, with the engine's timestamp."""

    at: str
    text: str


def parse(content: bytes, after: str, *, ended: bool) -> list[Line]:
    """The lines of a timestamped log that are later than ``after``.

    While the container runs, a last line without its newline is left for the next call: its rest
    will have the same timestamp, and would not count as later.
    """
    rows = content.split(b"\n")
    if not ended:
        rows.pop()  # empty when the last line is complete
    lines = []
    for row in rows:
        at = row[: STAMP_BYTES - 1].decode("ascii", "replace")
        if at > after:  # fixed width: the order of text is the order of time
            text = _whole(row[STAMP_BYTES:]).decode("utf-8", "replace")
            lines.append(Line(at, text.rstrip("\r")))
    return lines


def _whole(row: bytes) -> bytes:
    """A line without the stamps of its second and later parts."""
    if len(row) <= PART_BYTES:
        return row
    parts = [row[:PART_BYTES]]
    row = row[PART_BYTES:]
    while stamp := STAMP.match(row):
        parts.append(row[stamp.end() : stamp.end() + PART_BYTES])
        row = row[stamp.end() + PART_BYTES :]
    return b"".join([*parts, row])


def unix_second(at: str) -> int:
    """The second of an engine's timestamp, such as 2026-11-21T13:05:09.123456789Z."""
    return int(datetime.fromisoformat(f"{at[:19]}+00:00").timestamp())
