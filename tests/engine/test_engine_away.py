"""An engine that goes away while a step works, and engines elsewhere: behind TLS, or a second."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.errors import DockerException
from engines import (
    IMAGE,
    SLEEP,
    Proxy,
    containers,
    engine,
    identity,
    python,
    said,
    start,
    wait_for,
    write_certificates,
)

import spira.engine
from spira.engine import Engine, EngineLost, Line, connect
from spira.site import Place, Site
from spira_tasks.contract.step import Resources

__all__ = ["engine"]  # the fixture

pytestmark = pytest.mark.docker

# -- an engine that is away ------------------------------------------------------------------


@pytest.fixture
def proxy(engine: Engine) -> Iterator[Proxy]:
    between = Proxy()
    yield between
    between.shut()


def test_lines_go_on_where_they_were_when_the_engine_is_back(
    engine: Engine, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spira.engine, "POLL_SECONDS", 0.05)
    script = """
import sys, time
for n in range(300): print(n, file=sys.stderr, flush=True); time.sleep(0.01)
"""
    container = start(engine, python(script))
    lines: list[Line] = []

    def follow() -> None:
        for found in connect(Place(proxy.url)).follow(container):
            lines.extend(found)

    following = threading.Thread(target=follow)
    following.start()
    for _ in range(2):
        n_lines = len(lines)
        wait_for(lambda n=n_lines: len(lines) > n + 30)
        proxy.shut()
        time.sleep(0.8)
        n_lines = len(lines)
        proxy.reopen()
    following.join(30)
    assert not following.is_alive()
    assert [line.text for line in lines] == [str(n) for n in range(300)]


def test_an_engine_that_stays_away_is_lost_and_its_container_works_on(
    engine: Engine, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spira.engine, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(spira.engine, "LOST_SECONDS", 0.5)
    container = start(engine, SLEEP)
    following = connect(Place(proxy.url)).follow(container)
    next(following)
    proxy.shut()
    before = time.monotonic()
    with pytest.raises(EngineLost):
        list(following)
    assert 0.5 <= time.monotonic() - before < 5
    assert engine.is_running(container)
    proxy.reopen()


def test_an_engine_that_nobody_answers_for_is_an_error_at_once() -> None:
    with pytest.raises(DockerException):
        connect(Place("tcp://127.0.0.1:1"))


# -- other engines ---------------------------------------------------------------------------


@pytest.fixture
def guarded(engine: Engine, tmp_path: Path) -> Iterator[tuple[Proxy, Path]]:
    """The engine behind TLS, open to who has a certificate of its authority."""
    folder = tmp_path / "tls"
    write_certificates(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    between = Proxy(context)
    yield between, folder
    between.shut()


def test_an_engine_behind_tls_is_reached_with_the_files_that_open_it(
    engine: Engine, guarded: tuple[Proxy, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the machine has authorities and a proxy of its own."""
    proxy, folder = guarded
    write_certificates(folder / "firewall")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folder / "firewall/ca.pem"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    remote = connect(Place(proxy.url, tls=str(folder)))
    container = start(remote, ["sh", "-c", "echo from afar >&2"])
    assert said(remote, container) == ["from afar"]
    assert engine.ending(container).status == 0


def test_without_the_right_certificates_both_sides_refuse(
    guarded: tuple[Proxy, Path], tmp_path: Path
) -> None:
    proxy, folder = guarded
    strangers = tmp_path / "strangers"
    write_certificates(strangers)
    with pytest.raises(DockerException):
        connect(Place(proxy.url))  # it speaks no TLS
    with pytest.raises(DockerException):
        connect(Place(proxy.url, tls=str(strangers)))  # both are strangers
    shutil.copy(folder / "ca.pem", strangers)
    with pytest.raises(DockerException):
        connect(Place(proxy.url, tls=str(strangers)))  # the engine does not know the client
    shutil.copytree(folder, tmp_path / "mixed")
    write_certificates(tmp_path / "other")
    shutil.copy(tmp_path / "other/ca.pem", tmp_path / "mixed")
    with pytest.raises(DockerException):
        connect(Place(proxy.url, tls=str(tmp_path / "mixed")))  # the client does not know it
    with pytest.raises(DockerException):
        connect(Place(proxy.url, tls=str(tmp_path / "nowhere")))


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Iterator[str]:
    """The URL of a second engine with the image."""
    if os.geteuid() or not all(shutil.which(program) for program in ("dockerd", "unshare")):
        pytest.skip("a second engine needs root, dockerd and unshare")
    folder = Path("/var/tmp") / f"spira-engine-{os.getpid()}"
    folder.mkdir()
    url = f"unix://{folder}/engine.sock"
    with (folder / "log").open("w") as log:
        daemon = subprocess.Popen(
            [
                *("unshare", "--net", "--"),  # else it deletes docker0, which is the first one's
                "dockerd",
                *(f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"-H={url}"),
                *(f"--pidfile={folder}/pid", "--bridge=none", "--iptables=false"),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: (folder / "engine.sock").exists() and daemon.poll() is None)
        other = connect(Place(url))
        with subprocess.Popen(["docker", "save", IMAGE], stdout=subprocess.PIPE) as save:
            subprocess.run(["docker", "-H", url, "load"], stdin=save.stdout, check=True)
        assert other.image_id(IMAGE)
        yield url
    finally:
        daemon.terminate()
        daemon.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_step_runs_on_the_engine_that_the_site_file_names(
    second: str, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "site.toml"
    file.write_text(
        f'[engines.gpu]\nurl = "{second}"\nhosts = {{s3 = "10.0.0.5"}}\n'
        '[steps.train]\nengine = "gpu"\n'
    )
    monkeypatch.setenv("SPIRA_SITE", str(file))
    place = Site.from_environment().place(Resources(engine="gpu"))
    other = connect(place)
    before = json.dumps(sorted(found["Id"] for found in containers(engine)))
    who = identity()
    script = (
        "import socket as s, sys; print(s.gethostname(), s.gethostbyname('s3'), file=sys.stderr)"
    )
    container = start(other, python(script), who)
    name, address = said(other, container)[0].split()
    assert container.startswith(name)
    assert address == "10.0.0.5"
    assert not engine.find(who)
    assert before == json.dumps(sorted(found["Id"] for found in containers(engine)))
    other.remove(container)
