"""One step's container on a real engine: its limits, its lines, and its end."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from docker.errors import NotFound
from engines import IMAGE, SLEEP, SMALL, engine, followed, identity, python, said, start, wait_for

from spira.engine import Ending, Engine, NoGPU

__all__ = ["engine"]  # the fixture

pytestmark = pytest.mark.docker


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


def test_a_gpu_that_the_engine_does_not_have_is_an_error_of_its_own(engine: Engine) -> None:
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


def test_out_of_memory_is_not_taken_for_a_kill(engine: Engine) -> None:
    """Both end with 137."""
    greedy = start(engine, python("x = bytearray(1 << 30)"))
    killed = start(engine, SLEEP)
    engine.client.kill(killed)
    assert end_of(engine, greedy) == Ending(137, out_of_memory=True)
    assert end_of(engine, killed) == Ending(137, out_of_memory=False)


def test_the_memory_in_use_is_reported_without_the_cache(engine: Engine) -> None:
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
