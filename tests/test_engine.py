"""One step's container on a real engine: its limits, its lines, its end, and who it belongs to."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import spira_engine
from docker.errors import DockerException, NotFound
from engines import (
    IMAGE,
    SMALL,
    Proxy,
    containers,
    followed,
    identity,
    own_engine,
    python,
    said,
    start,
    wait_for,
    write_certificates,
)
from spira_engine import Ending, Engine, EngineLost, NoGPU, connect
from spira_lines import Line
from spira_site import Place, Site

from spira_tasks.contract import Resources

pytestmark = pytest.mark.docker

SLEEP = ["sleep", "60"]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with own_engine() as found:
        yield found


def end_of(engine: Engine, container: str) -> Ending:
    wait_for(lambda: not engine.is_running(container))
    return engine.ending(container)


def started(engine: Engine, container: str) -> None:
    """Wait for the first line: a handler is in place then."""
    wait_for(lambda: engine.lines(container, ""))


# -- what a container may do -----------------------------------------------------------------

LOOK = """
import errno, os, pathlib, sys
def read(*names):
    return next(p.read_text().strip() for p in map(pathlib.Path, names) if p.exists())
status = dict(line.split(":\\t", 1) for line in read("/proc/self/status").splitlines())
group = "/sys/fs/cgroup"
def tell(name, value):
    print(name, value, file=sys.stderr)
tell("capabilities", int(status["CapEff"], 16) | int(status["CapBnd"], 16))
tell("no_new_privileges", status["NoNewPrivs"].strip())
tell("seccomp", status["Seccomp"].strip())
tell("user", f"{os.getuid()}:{os.getgid()}")
try:
    pathlib.Path("/usr/x").touch()
except OSError as error:
    tell("root", errno.errorcode[error.errno])
n = 0
try:
    with open("/tmp/x", "wb", buffering=0) as file:
        while n < 64:
            n += file.write(bytes(1 << 20)) == 1 << 20
except OSError as error:
    tell("scratch", f"{n} {errno.errorcode[error.errno]}")
pathlib.Path("/tmp/x").unlink()
script = pathlib.Path("/tmp/run"); script.write_text("#!/bin/sh\\n"); script.chmod(0o755)
try:
    os.execv(script, [str(script)])
except OSError as error:
    tell("execute", errno.errorcode[error.errno])
tell("memory", read(f"{group}/memory/memory.limit_in_bytes", f"{group}/memory.max"))
tell("pids", read(f"{group}/pids/pids.max", f"{group}/pids.max"))
shared = os.statvfs("/dev/shm"); tell("shared", shared.f_blocks * shared.f_frsize)
tell("networks", " ".join(sorted(os.listdir("/sys/class/net"))))
tell("first", read("/proc/1/comm"))
"""


def test_a_container_can_do_next_to_nothing(engine: Engine) -> None:
    """Looked at from inside."""
    container = start(engine, python(LOOK), resources=replace(SMALL, shm_mib=16))
    seen = dict(line.split(" ", 1) for line in said(engine, container))
    assert seen.pop("first") in ("docker-init", "tini")
    assert seen == {
        "capabilities": "0",
        "no_new_privileges": "1",
        "seccomp": "2",
        "user": "10001:10001",
        "root": "EROFS",
        "scratch": "8 ENOSPC",
        "execute": "EACCES",
        "memory": str(128 << 20),
        "pids": "512",
        "shared": str(16 << 20),
        "networks": "lo",
    }
    host = engine.client.inspect_container(container)["HostConfig"]
    assert host["MemorySwap"] == host["Memory"]  # memory and swap together: no swap
    assert host["NanoCpus"] == 1_000_000_000


def test_half_a_processor_is_half_a_processor(engine: Engine) -> None:
    script = """
import sys, time
start, used = time.monotonic(), time.process_time()
while time.monotonic() - start < 1.5: pass
print((time.process_time() - used) / (time.monotonic() - start), file=sys.stderr)
"""
    container = start(engine, python(script), resources=replace(SMALL, cpus=0.5))
    (share,) = said(engine, container)
    assert float(share) < 0.65


def test_more_processors_than_the_engine_has_are_all_that_it_has(engine: Engine) -> None:
    container = start(engine, ["true"], resources=replace(SMALL, cpus=1000.0))
    host = engine.client.inspect_container(container)["HostConfig"]
    assert host["NanoCpus"] == engine.client.info()["NCPU"] * 1_000_000_000


def test_a_gpu_that_the_engine_does_not_have_is_told_from_other_errors(engine: Engine) -> None:
    if "nvidia" in engine.client.info().get("Runtimes", {}):
        pytest.skip("this engine lends GPUs")
    who = identity()
    with pytest.raises(NoGPU):
        start(engine, ["true"], who, resources=replace(SMALL, n_gpus=1))
    assert not engine.find(who)  # nothing is left of the attempt
    assert start(engine, ["true"], who)  # and nothing in the way of one without


def test_an_image_that_is_nowhere_is_not_there(engine: Engine) -> None:
    assert engine.image_id(IMAGE).startswith("sha256:")
    assert not engine.image_id("127.0.0.1:1/spira-nobody:1")


# -- what it says ----------------------------------------------------------------------------


def test_every_line_is_read_once_and_in_order(engine: Engine) -> None:
    """In bursts, of which each is longer than a look at the log and lasts over several."""
    script = """
import sys, time
for n in range(20_000):
    print(n, file=sys.stderr)
    if n % 4_000 == 0: sys.stderr.flush(); time.sleep(0.4)
"""
    container = start(engine, python(script))
    assert said(engine, container) == [str(n) for n in range(20_000)]


def test_stdout_is_not_the_log(engine: Engine) -> None:
    container = start(engine, ["sh", "-c", "echo result; echo line >&2"])
    assert said(engine, container) == ["line"]


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        ("", []),
        ("no newline", ["no newline"]),
        ("one\n\nthree\nlast", ["one", "", "three", "last"]),
        ("São Paulo: 37 °C — 🫁\n", ["São Paulo: 37 °C — 🫁"]),
        ("with return\r\n", ["with return"]),
    ],
)
def test_what_a_container_writes_before_it_ends_at_once(
    engine: Engine, written: str, lines: list[str]
) -> None:
    container = start(engine, python(f"import sys; sys.stderr.write({written!r})"))
    assert said(engine, container) == lines


def test_a_long_line_is_one_line(engine: Engine) -> None:
    """The engine cuts it into parts of 16 KiB, and stamps every part."""
    script = "import sys; sys.stderr.write('é' * 50_001 + '\\n' + 'b' * 16_384 + '\\nend\\n')"
    container = start(engine, python(script))
    assert said(engine, container) == ["é" * 50_001, "b" * 16_384, "end"]


def test_a_line_is_read_when_it_is_complete(engine: Engine) -> None:
    """The engine shows the beginning of a long line before the end of it is written."""
    script = """
import sys, time
sys.stderr.write("a" * 20_000); sys.stderr.flush()
time.sleep(2)
sys.stderr.write("z\\nend\\n")
"""
    container = start(engine, python(script))
    assert said(engine, container) == ["a" * 20_000 + "z", "end"]


def test_from_a_cursor_only_later_lines_are_read(engine: Engine) -> None:
    script = "import sys\nfor n in range(500): print(n, file=sys.stderr)"
    container = start(engine, python(script))
    lines = followed(engine, container)
    for n in (0, 250, 498, 499):
        assert followed(engine, container, lines[n].at) == lines[n + 1 :]


def test_a_container_that_somebody_removed_is_not_followed_for_ever(engine: Engine) -> None:
    container = start(engine, SLEEP)
    following = engine.follow(container)
    next(following)
    engine.remove(container)
    with pytest.raises(NotFound):
        list(following)


# -- whose it is -----------------------------------------------------------------------------


@pytest.mark.parametrize("round_", range(5))
def test_of_two_tries_at_the_same_moment_one_makes_a_container_and_both_follow_it(
    engine: Engine, round_: int
) -> None:
    tries = [identity(attempt, run=f"race-{round_}-{os.getpid()}") for attempt in (1, 2, 3)]
    barrier = threading.Barrier(len(tries))

    def begin(n: int) -> str:
        own = Engine(connect(Place(engine_url())).client)
        barrier.wait()
        return start(own, SLEEP, tries[n])

    with ThreadPoolExecutor(len(tries)) as pool:
        ids = list(pool.map(begin, range(len(tries))))
    assert len(set(ids)) == 1
    (found,) = engine.find(tries[0])
    assert (found["Id"], found["State"]) == (ids[0], "running")
    assert engine.belongs_to(ids[0], tries[2])  # the latest try may stop it, and no other
    assert not engine.belongs_to(ids[0], tries[0])
    engine.remove(ids[0])


def engine_url() -> str:
    return Site.from_environment().engines[""].url


def test_the_try_that_comes_later_gets_the_container_that_works(engine: Engine) -> None:
    first, second = identity(1, run="late"), identity(2, run="late")
    older = start(engine, SLEEP, first)
    assert start(engine, SLEEP, second) == older
    assert [found["Id"] for found in engine.find(first)] == [older]


def test_a_container_that_was_made_and_never_started_is_in_nobodys_way(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its maker was killed in between, and did not let go of the name."""
    who = identity(1, run="killed-before-start")

    class Killed(BaseException):
        pass

    def killed(_: str) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(engine.client, "start", killed)
        with pytest.raises(Killed):
            start(engine, SLEEP, who)
    assert [found["State"] for found in engine.find(who)] == ["created"]
    monkeypatch.setattr(spira_engine, "START_SECONDS", 0.3)
    container = start(engine, ["true"], replace(who, attempt=2))
    assert [found["Id"] for found in engine.find(who)] == [container]


def test_a_container_belongs_to_the_last_try_that_claimed_it(engine: Engine) -> None:
    first, second = identity(1, run="claims"), identity(12, run="claims")
    container = start(engine, SLEEP, first)
    assert engine.belongs_to(container, first)
    assert not engine.belongs_to(container, second)
    engine.claim(container, second)
    engine.claim(container, second)
    assert engine.belongs_to(container, second)
    assert not engine.belongs_to(container, first)
    assert not engine.belongs_to(container, identity(2, run="claims"))  # -try12 ends in 2, too
    engine.claim(container, first)  # a process of the first try that does not know yet
    assert engine.belongs_to(container, second)


def test_containers_of_other_work_are_not_found(engine: Engine) -> None:
    who = identity(run="mine")
    start(engine, ["true"], who)
    for change in (
        {"dag": "other"},
        {"task": "other"},
        {"run": "other"},
        {"map_index": 3},
        {"platform": "another installation on this engine"},
    ):
        assert not engine.find(replace(who, **change)), change
    assert engine.find(replace(who, attempt=7))


# -- how it ends -----------------------------------------------------------------------------

HANDLER = """
import signal, sys, time
def end(*_):
    print("state saved", file=sys.stderr)
    sys.exit({status})
signal.signal(signal.SIGTERM, {handler})
print("ready", file=sys.stderr, flush=True)
time.sleep(60)
"""


def test_a_step_that_is_stopped_saves_its_state_and_keeps_its_own_status(engine: Engine) -> None:
    container = start(engine, python(HANDLER.format(status=75, handler="end")))
    started(engine, container)
    engine.stop(container, 20)
    assert said(engine, container) == ["ready", "state saved"]
    assert engine.ending(container) == Ending(75, out_of_memory=False)


def test_a_step_that_knows_no_signal_is_stopped_by_it(engine: Engine) -> None:
    container = start(engine, SLEEP)
    before = time.monotonic()
    engine.stop(container, 20)
    assert time.monotonic() - before < 10
    assert engine.ending(container).status == 128 + 15


def test_a_step_that_ignores_the_signal_is_killed_when_its_time_is_over(engine: Engine) -> None:
    script = HANDLER.format(status=0, handler="signal.SIG_IGN")
    container = start(engine, python(script))
    started(engine, container)
    before = time.monotonic()
    engine.stop(container, 1.0)
    assert 1.0 <= time.monotonic() - before < 8
    assert end_of(engine, container) == Ending(137, out_of_memory=False)


def test_to_stop_or_remove_what_has_ended_or_is_gone_is_no_error(engine: Engine) -> None:
    container = start(engine, ["true"])
    assert end_of(engine, container).status == 0
    engine.stop(container, 1)
    engine.remove(container)
    engine.remove(container)
    engine.stop(container, 1)


def test_out_of_memory_is_told_from_a_kill(engine: Engine) -> None:
    """Both end with 137."""
    greedy = start(engine, python("x = bytearray(1 << 30)"))
    killed = start(engine, SLEEP)
    engine.client.kill(killed)
    assert end_of(engine, greedy) == Ending(137, out_of_memory=True)
    assert end_of(engine, killed) == Ending(137, out_of_memory=False)


def test_the_memory_in_use_is_told_without_the_cache(engine: Engine) -> None:
    script = """
import sys, time
x = bytearray(b"x" * (60 << 20))
data = open(sys.executable, "rb").read() and None
print("ready", file=sys.stderr, flush=True)
time.sleep(60)
"""
    container = start(engine, python(script))
    started(engine, container)
    assert 60 <= engine.memory_mib(container) < 110
    engine.remove(container)


# -- an engine that is away ------------------------------------------------------------------


@pytest.fixture
def proxy(engine: Engine) -> Iterator[Proxy]:
    between = Proxy()
    yield between
    between.shut()


def test_lines_go_on_where_they_were_when_the_engine_is_back(
    engine: Engine, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spira_engine, "POLL_SECONDS", 0.05)
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
    monkeypatch.setattr(spira_engine, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(spira_engine, "LOST_SECONDS", 0.5)
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
        save = subprocess.Popen(["docker", "save", IMAGE], stdout=subprocess.PIPE)
        subprocess.run(["docker", "-H", url, "load"], stdin=save.stdout, check=True)
        save.wait()
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
    file.write_text(f'[engines.gpu]\nurl = "{second}"\n[steps.train]\nengine = "gpu"\n')
    monkeypatch.setenv("SPIRA_SITE", str(file))
    place = Site.from_environment().place(Resources(engine="gpu"))
    other = connect(place)
    before = json.dumps(sorted(found["Id"] for found in containers(engine)))
    who = identity()
    container = start(other, ["sh", "-c", "hostname >&2"], who)
    (name,) = said(other, container)
    assert container.startswith(name)
    assert not engine.find(who)
    assert before == json.dumps(sorted(found["Id"] for found in containers(engine)))
    other.remove(container)
