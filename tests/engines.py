"""A real Docker engine for tests of the containers of steps, and ways to get between it and us."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from docker.errors import DockerException

import spira.docker
import spira.engine
from spira.engine import Engine, Identity, Line, connect
from spira.site import LOCAL_ENGINE, Place
from spira_tasks.contract.step import Resources

IMAGE = "spira-base:local"  # python 3.11 and sh; tests/docker/base_image.sh makes it
HERE = Place(os.environ.get("SPIRA_DOCKER_URL") or LOCAL_ENGINE)
USER = "10001:10001"
SMALL = Resources(cpus=1.0, memory_mib=(128,), scratch_mib=8, minutes=5)
SLEEP = ["sleep", "60"]


@contextmanager
def own_engine() -> Iterator[Engine]:
    """The engine, with a label of this test's own: others' containers are not in its sight."""
    try:
        engine = connect(HERE)
    except DockerException:
        pytest.skip("no Docker engine is reachable")
    if not engine.client.images(IMAGE):
        pytest.skip(f"there is no image {IMAGE}: tests/docker/base_image.sh makes it")
    label = f"spira-test-{uuid4().hex}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spira.engine, "LABEL", label)
        patch.setattr(spira.docker, "LABEL", label)
        try:
            yield engine
        finally:
            for found in containers(engine, label):
                engine.remove(found["Id"])


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One engine for a module, which imports this fixture and names it in its __all__."""
    with own_engine() as found:
        yield found


def containers(engine: Engine, label: str = "") -> list[dict[str, Any]]:
    """All containers of this test."""
    filters = {"label": label or spira.engine.LABEL}
    return list(engine.client.containers(all=True, filters=filters))


def identity(attempt: int = 1, run: str = "", task: str = "work") -> Identity:
    return Identity("a_dag", task, run or uuid4().hex, -1, attempt, "test")


def start(
    engine: Engine,
    command: Sequence[str],
    who: Identity | None = None,
    *,
    resources: Resources = SMALL,
    environment: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> str:
    return engine.start(
        who or identity(),
        image=IMAGE,
        command=command,
        environment=environment or {},
        resources=resources,
        memory_mib=resources.memory_mib[0],
        network="none",
        user=USER,
        mounts=[],
        labels=labels or {},
    )


def python(script: str) -> list[str]:
    return ["python", "-c", script]


def wait_for(condition: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


def followed(engine: Engine, container: str, after: str = "") -> list[Line]:
    """All lines of a container, up to its end."""
    return [line for lines in engine.follow(container, after) for line in lines]


def said(engine: Engine, container: str) -> list[str]:
    return [line.text for line in followed(engine, container)]


class Proxy:
    """Passes bytes between a port of this machine and the engine's socket; can be shut."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.context = context
        self.open: set[asyncio.StreamWriter] = set()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.port = 0
        self.reopen()
        self.port = self.server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def shut(self) -> None:
        """As an engine that goes down: what is open breaks, and nobody listens."""

        async def close() -> None:
            self.server.close()
            for one in self.open:
                one.transport.abort()

        asyncio.run_coroutine_threadsafe(close(), self.loop).result(10)

    def reopen(self) -> None:
        starting = asyncio.start_server(self._pass, "127.0.0.1", self.port, ssl=self.context)
        self.server = asyncio.run_coroutine_threadsafe(starting, self.loop).result(10)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(HERE.url.removeprefix("unix://"))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_engine, to_engine = await self._connect()
        both = {writer, to_engine}
        self.open |= both
        await asyncio.gather(_copy(reader, to_engine), _copy(from_engine, writer))
        self.open -= both


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while content := await source.read(65536):
            target.write(content)
            await target.drain()
    target.close()


def write_certificates(folder: Path) -> None:
    """A private authority, and one key that server and client share."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def builder(subject: str, public: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("authority"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
        )

    ca = (
        builder("authority", authority.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority, hashes.SHA256())
    )
    host = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    own = (
        builder("engine", key.public_key())
        .add_extension(host, critical=False)
        .sign(authority, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    folder.mkdir()
    (folder / "ca.pem").write_bytes(ca.public_bytes(pem))
    (folder / "cert.pem").write_bytes(own.public_bytes(pem))
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
