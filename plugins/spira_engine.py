"""One step's container on a Docker engine: made hard, followed, found again, and told apart.

Knows the engine's API and nothing of Airflow.  A container is known by its labels, not by what some
process remembers: whoever comes later finds it, whatever became of the one that started it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from docker import APIClient
from docker.errors import APIError, NotFound
from docker.tls import TLSConfig
from docker.types import DeviceRequest, LogConfig, Mount
from requests.exceptions import RequestException
from spira_site import Place

from spira_tasks.contract import Resources

log = logging.getLogger("spira.engine")

MIB = 1 << 20
LABEL = "spira.step"  # every container of ours has it
POLL_SECONDS = 1.0
SAMPLE_SECONDS = 2.0  # between two looks at a container's memory
LOST_SECONDS = 120.0  # an engine that is restarted is back before this
SIGTERM, SIGKILL = 15, 9


class EngineLost(Exception):
    """The engine did not answer for LOST_SECONDS."""


class NoGPU(Exception):
    """The engine has no GPU, or no runtime that can lend one."""


@dataclass(frozen=True)
class Identity:
    """Which task a container works for; ``attempt`` is Airflow's try number."""

    dag: str
    task: str
    run: str
    map_index: int
    attempt: int

    @property
    def labels(self) -> dict[str, str]:
        """Labels that all tries of one task have in common."""
        return {
            LABEL: f"{self.dag}/{self.task}",
            "spira.dag": self.dag,
            "spira.task": self.task,
            "spira.run": self.run,
            "spira.map_index": str(self.map_index),
        }

    @property
    def mark(self) -> str:
        """The end of the name of a container that belongs to this try."""
        return f"-try{self.attempt}"


@dataclass(frozen=True)
class Line:
    """A line that a container wrote: when, in the engine's own notation, and what."""

    at: str
    text: str


@dataclass(frozen=True)
class Ending:
    """How a container ended."""

    status: int
    out_of_memory: bool
    error: str = ""


def connect(place: Place) -> Engine:
    """The engine at a place of the site file, by TLS where the place says so."""
    tls = None
    if place.tls:
        tls = TLSConfig(
            client_cert=(f"{place.tls}/cert.pem", f"{place.tls}/key.pem"),
            ca_cert=f"{place.tls}/ca.pem",
            verify=True,
        )
    return Engine(APIClient(place.url, version="auto", timeout=60, tls=tls or False))


class Engine:
    """The containers of one Docker engine."""

    def __init__(self, client: APIClient) -> None:
        self.client = client

    # -- start -------------------------------------------------------------------------------

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
        """Start a container for this try; return its id.

        Two tries can be here at once, when a scheduler was restarted: both make a container, the
        older one wins, and nobody starts the other.

        Raises
        ------
        NoGPU
            When GPUs are asked for and the engine has none to give.
        """
        name = f"spira-{identity.task}-{_digest(identity)}{identity.mark}"
        self.remove(name)  # of this very try: made, and its maker killed before the start
        container = str(
            self.client.create_container(
                image=image,
                command=list(command),
                name=name,
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
            )["Id"]
        )
        winner = min(
            (found for found in self.find(identity) if found["State"] in ("created", "running")),
            key=lambda found: (found["Created"], found["Id"]),
        )
        if winner["Id"] != container:
            self.remove(container)
            container = winner["Id"]
            self.claim(container, identity)
        if winner["State"] == "created":
            try:
                self.client.start(container)
            except APIError as error:
                self.remove(container)
                if resources.n_gpus and _is_about_gpus(error):
                    raise NoGPU(error.explanation) from error
                raise
        return container

    def _host_config(
        self, resources: Resources, memory_mib: int, network: str, mounts: Sequence[Mount]
    ) -> dict[str, Any]:
        """Unprivileged, read-only, limited: what a step cannot do, a bug in it cannot do either."""
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
            device_requests=gpus if resources.n_gpus else None,
            mounts=list(mounts),
            log_config=LogConfig(type="json-file", config={"max-size": "64m", "max-file": "2"}),
        )
        return config

    # -- find --------------------------------------------------------------------------------

    def has_image(self, image: str) -> bool:
        """Whether the image is here; pulls it where a registry has it."""
        try:
            self.client.inspect_image(image)
        except NotFound:
            try:
                self.client.pull(image)
            except APIError:
                return False
        return True

    def find(self, identity: Identity) -> list[dict[str, Any]]:
        """All containers of the task of ``identity``, of whatever try, the oldest first."""
        labels = [f"{name}={value}" for name, value in identity.labels.items()]
        found = self.client.containers(all=True, filters={"label": labels})
        return sorted(found, key=lambda container: (container["Created"], container["Id"]))

    def claim(self, container: str, identity: Identity) -> None:
        """Make a container this try's own: it alone may stop it from now on.

        The name is the only thing of a container that can be changed while it runs.
        """
        name = self._name(container)
        mine = name.rpartition("-try")[0] + identity.mark
        if name != mine:
            self.client.rename(container, mine)

    def belongs_to(self, container: str, identity: Identity) -> bool:
        return self._name(container).endswith(identity.mark)

    def _name(self, container: str) -> str:
        return str(self.client.inspect_container(container)["Name"])

    # -- follow ------------------------------------------------------------------------------

    def follow(self, container: str, after: str = "") -> Iterator[list[Line]]:
        """Yield, about once a second until it has ended, what a container wrote after ``after``.

        Asks again and again instead of holding a connection open: so a restart of the engine, or
        of a network between, is no more than a question that has to be repeated.

        Raises
        ------
        EngineLost
            When the engine does not answer for LOST_SECONDS.
        NotFound
            When somebody removed the container.
        """
        lost_at: float | None = None
        pause = 0.1
        while True:
            try:
                ended = not self.is_running(container)  # asked first: what it wrote last is read
                lines = self.lines(container, after)
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

    def lines(self, container: str, after: str) -> list[Line]:
        """The log of a step, its stderr, after the moment ``after`` in the engine's notation."""
        since = {"since": _unix_second(after)} if after else {}
        content = self.client.logs(container, stdout=False, timestamps=True, **since)
        lines = []
        for raw in content.decode("utf-8", "replace").split("\n"):
            at, _, text = raw.partition(" ")
            if at > after:  # fixed width: the order of text is the order of time
                lines.append(Line(at, text.rstrip("\r")))
        return lines

    def memory_mib(self, container: str) -> int:
        """What a container uses now, without the pages that the kernel could drop."""
        memory = self.client.stats(container, stream=False, one_shot=True).get("memory_stats", {})
        details = memory.get("stats", {})
        cache = details.get("total_inactive_file", details.get("inactive_file", 0))
        return int((memory.get("usage", 0) - cache) // MIB)

    # -- end ---------------------------------------------------------------------------------

    def ending(self, container: str) -> Ending:
        state = self.client.inspect_container(container)["State"]
        return Ending(int(state["ExitCode"]), bool(state["OOMKilled"]), str(state["Error"]))

    def stop(self, container: str, seconds: float) -> None:
        """Ask a container to end, and make it end when it has not done so in time.

        The signal is a request of its own: it arrives even if whoever sends it dies while waiting.
        """
        try:
            self.client.kill(container, SIGTERM)
            deadline = time.monotonic() + seconds
            while self.is_running(container):
                if time.monotonic() > deadline:
                    self.client.kill(container, SIGKILL)
                    return
                time.sleep(0.1)
        except NotFound:
            return
        except APIError as error:
            if error.status_code != 409:  # it has ended already
                raise

    def remove(self, container: str) -> None:
        """Remove a container and its volumes; one that is gone already is no error."""
        try:
            self.client.remove_container(container, v=True, force=True)
        except NotFound:
            return
        except APIError as error:
            if error.status_code != 409:  # somebody else is removing it
                raise


def _digest(identity: Identity) -> str:
    from hashlib import sha256

    whole = "\0".join([*identity.labels.values()])
    return sha256(whole.encode()).hexdigest()[:10]


def _unix_second(at: str) -> int:
    """The second of an engine's timestamp, such as 2026-11-21T13:05:09.123456789Z."""
    from datetime import datetime

    return int(datetime.fromisoformat(f"{at[:19]}+00:00").timestamp())


def _is_about_gpus(error: APIError) -> bool:
    words = ("could not select device driver", "nvidia", "gpu", "unknown runtime")
    return any(word in str(error.explanation).lower() for word in words)
