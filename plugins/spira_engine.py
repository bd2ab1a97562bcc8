"""One step's container on a Docker engine: made hard, followed, found again, and told apart.

Knows the engine's API and nothing of Airflow.  A container is known by its labels, not by what some
process remembers: whoever comes later finds it, whatever became of the one that started it.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from docker import APIClient
from docker.errors import APIError, NotFound
from docker.tls import TLSConfig
from docker.types import DeviceRequest, LogConfig, Mount
from requests.exceptions import RequestException
from spira_identity import Identity
from spira_lines import Line, parse, unix_second
from spira_site import Place

from spira_tasks.contract.step import Resources

log = logging.getLogger("spira.engine")

MIB = 1 << 20
POLL_SECONDS = 1.0
SAMPLE_SECONDS = 2.0  # between two looks at a container's memory
LOST_SECONDS = 120.0  # an engine that is restarted is back before this
SETTLE_SECONDS = 0.2  # from a look at a name to holding its container, within the engine
START_SECONDS = 30.0  # from making a container to starting it, on a busy machine
SIGTERM, SIGKILL = 15, 9


class EngineLost(Exception):
    """The engine did not answer for LOST_SECONDS."""


class NoGPU(Exception):
    """The engine has no GPU, or no runtime that can lend one."""


@dataclass(frozen=True)
class Ending:
    """How a container ended."""

    status: int
    out_of_memory: bool
    error: str = ""


class _Client(APIClient):  # type: ignore[misc]
    """Goes to the engine without a proxy, and trusts the engine's own certificates.

    Where REQUESTS_CA_BUNDLE or HTTPS_PROXY is set, as behind a hospital's firewall, it would obey
    them first.
    """

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
        """Start a container for this try; return its id, or that of another try that was sooner.

        Two tries can be here at once, when a scheduler was restarted.  Only one can make a
        container of the task's plain name; it keeps the name until the container is started, and
        whoever waited for the name finds that one at work, and takes it over.

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
        """Make a container of this name; empty when another try, which had it, has started one."""
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
                self.remove(name)  # whoever made it was killed before the start
            time.sleep(0.05)

    def _working(self, identity: Identity) -> str:
        """The container that works for the task; empty when none does."""
        return next((f["Id"] for f in self.find(identity) if f["State"] == "running"), "")

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
            extra_hosts=self.hosts or None,
            device_requests=gpus if resources.n_gpus else None,
            mounts=list(mounts),
            log_config=LogConfig(type="json-file", config={"max-size": "64m", "max-file": "2"}),
        )
        return config

    # -- find --------------------------------------------------------------------------------

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
        """All containers of the task of ``identity``, of whatever try, the oldest first."""
        labels = [f"{name}={value}" for name, value in identity.labels.items()]
        found = self.client.containers(all=True, filters={"label": labels})
        return sorted(found, key=lambda container: (container["Created"], container["Id"]))

    def claim(self, container: str, identity: Identity) -> None:
        """Make a container this try's own, unless a later try has it: its owner alone may stop it.

        The name is the only thing of a container that can be changed while it runs.  It is renamed
        by the name that was read: so a try that read it before a later one changed it finds
        nothing to rename, reads again, and gives way.  The engine itself looks a name up a moment
        before it holds the container, so that the earlier of two at the same moment may come last:
        whoever has renamed looks again when that moment is over.
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
        """The log of a step, its stderr, after the moment ``after`` in the engine's notation."""
        since = {"since": unix_second(after)} if after else {}
        content = self.client.logs(container, stdout=False, timestamps=True, **since)
        return parse(content, after, ended=ended)

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


def _owner(name: str) -> tuple[str, int]:
    """The plain name of a container, and the try that has it: 0 when it is just being made."""
    found = re.fullmatch(r"(.+?)(?:-try(\d+))?", name)
    return (found[1], int(found[2] or 0)) if found else ("", 0)


def _is_about_gpus(error: APIError) -> bool:
    words = ("could not select device driver", "nvidia", "gpu", "unknown runtime")
    return any(word in str(error.explanation).lower() for word in words)
