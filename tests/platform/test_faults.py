"""Whatever is killed in the middle of a run, the run ends as an undisturbed one, or says why not.

Each test computes everything anew, breaks one thing while ``materialize`` or ``train`` works, and
then looks at what is left: no container that nobody follows, no step computed twice, the digests of
the undisturbed run.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
from faults import FAULTY, MIDDLE, N_EPOCHS, SHORT, Reference, nothing_left_running, outputs
from production import Production, docker
from production import Run as DagRun

pytestmark = [pytest.mark.docker, pytest.mark.slow]

UPSTREAM = ("split",)


def processes(container: str) -> list[tuple[int, int, str]]:
    """(process, its parent, its command line) of a container, as the host sees them."""
    rows = docker("top", container, "-eo", "pid,ppid,args").stdout.splitlines()[1:]
    split = [row.split(maxsplit=2) for row in rows]
    return [(int(pid), int(parent), command) for pid, parent, command in split]


def task_process(platform: Production) -> tuple[int, int]:
    """The process that runs a task and the supervisor above it."""
    running = processes(platform.container_of("airflow-scheduler"))
    workers = {p: parent for p, parent, words in running if words.startswith("airflow worker")}
    (found,) = [(p, parent) for p, parent in workers.items() if parent in workers]
    return found


def kill_task(platform: Production, run: DagRun, step: str) -> None:
    os.kill(task_process(platform)[0], signal.SIGKILL)


def kill_supervisor(platform: Production, run: DagRun, step: str) -> None:
    os.kill(task_process(platform)[1], signal.SIGKILL)


def kill_scheduler(platform: Production, run: DagRun, step: str) -> None:
    container = platform.container_of("airflow-scheduler")
    for process, _, _ in processes(container):
        with_suppressed(process)


def with_suppressed(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:  # it went with its parent
        return


def kill_container(platform: Production, run: DagRun, step: str) -> None:
    docker("kill", run.container(step))


KILLED = {
    "the task's process": kill_task,
    "its supervisor": kill_supervisor,
    "the scheduler": kill_scheduler,
    "the container": kill_container,
}


SWAPPED = pytest.mark.nightly


@pytest.mark.parametrize(
    ("of_materialize", "of_train"),
    [
        ("the task's process", "its supervisor"),
        ("the container", "the scheduler"),
        pytest.param("its supervisor", "the task's process", marks=SWAPPED),
        pytest.param("the scheduler", "the container", marks=SWAPPED),
    ],
)
def test_a_kill_in_the_middle_of_materialize_and_of_train(
    of_materialize: str, of_train: str, platform: Production, reference: Reference
) -> None:
    reference.forget("materialize", "train")
    victims = {"materialize": of_materialize, "train": of_train}
    words = "-and-".join(victim.rsplit(maxsplit=1)[-1] for victim in victims.values())
    run = platform.trigger_faulty(f"kill-{words}", **FAULTY)
    for step, victim in victims.items():
        run.wait_for_line(step, MIDDLE[step])
        KILLED[victim](platform, run, step)
    run.wait()
    assert outputs(run) == reference.outputs
    nothing_left_running()
    ran_once(run, *UPSTREAM, "register")
    for step, victim in victims.items():
        state, n_tries = run.states[step]
        assert state == "success"
        if victim == "the container":
            assert "killed from outside" in run.log(step)
            assert n_tries == 2
        else:
            assert n_tries > 1
            assert "found the container of an earlier try" in run.log(step)
    if of_train != "the container":
        trained_once(run.log("train"))


def trained_once(log: str) -> None:
    """And every line is shown; those from just before the kill may be shown again."""
    assert log.count("train: computing") == 1
    counts = [log.count(f"epoch {number} of {N_EPOCHS}:") for number in range(1, N_EPOCHS + 1)]
    assert min(counts) == 1
    assert max(counts) <= 2
    assert counts[-1] == 1


def ran_once(run: DagRun, *steps: str) -> None:
    """Which a step that was tried again, and found its own result, did not."""
    states = run.states
    assert all(states[name] == ("success", 1) for name in steps), states


def disturbed(
    platform: Production, run: DagRun, step: str, words: str, disturb: Callable[[], object]
) -> None:
    run.wait_for_line(step, words)
    disturb()
    run.wait()
    nothing_left_running()


def wait_for_try(run: DagRun, step: str, number: int, seconds: float = 600) -> None:
    """Wait until the tries of a step before this one have failed."""
    deadline = time.monotonic() + seconds
    while run.states[step][1] < number:
        assert time.monotonic() < deadline, run.states
        time.sleep(1)


def test_s3_is_away_until_a_try_has_failed(platform: Production, reference: Reference) -> None:
    reference.forget("materialize")
    run = platform.trigger_faulty("s3-away", **FAULTY)

    def away() -> None:
        docker("kill", platform.container_of("s3"))
        wait_for_try(run, "materialize", 2)
        docker("start", platform.container_of("s3"))

    disturbed(platform, run, "materialize", MIDDLE["materialize"], away)
    assert outputs(run) == reference.outputs
    state, n_tries = run.states["materialize"]
    assert state == "success"
    assert n_tries > 1
    assert "does not answer" in run.log("materialize")
    ran_once(run, *UPSTREAM, "train")


def test_postgres_is_restarted(platform: Production, reference: Reference) -> None:
    reference.forget("train")
    run = platform.trigger_faulty("postgres-restarted", **FAULTY)
    restart = lambda: docker("restart", platform.container_of("postgres"))  # noqa: E731
    disturbed(platform, run, "train", MIDDLE["train"], restart)
    assert outputs(run) == reference.outputs
    assert run.log("train").count("train: computing") == 1
    ran_once(run, *UPSTREAM, "materialize")


@pytest.mark.nightly
def test_mlflow_is_down_when_the_model_is_registered(
    platform: Production, reference: Reference
) -> None:
    settings = FAULTY | {
        "evaluate.n_resamples": 201
    }  # another report: there is a model to register
    run = platform.trigger_faulty("mlflow-down", **settings)
    run.container("evaluate")
    docker("stop", platform.container_of("mlflow"))
    wait_for_try(run, "register", 2)
    docker("start", platform.container_of("mlflow"))
    run.wait()
    assert run.states["register"][0] == "success"
    ran_once(run, *UPSTREAM, "materialize", "train", "evaluate")
    assert "MLflow at http://mlflow:5000" in run.log("register", 1)
    assert {n: o for n, o in outputs(run).items() if n != "evaluate"} == {
        n: o for n, o in reference.outputs.items() if n != "evaluate"
    }


@pytest.mark.nightly
@pytest.mark.usefixtures("reference")  # its digests
def test_the_disk_of_the_container_is_full(platform: Production) -> None:
    platform.site.write_text("[steps.train]\nscratch_mib = 1\n")  # the weights take 3
    try:
        run = platform.trigger_faulty("disk-full", **SHORT | {"train.seed": 6})
        assert run.wait() == "failed"
    finally:
        platform.site.write_text("")
    assert run.states["train"] == ("failed", 5)
    ran_once(run, *UPSTREAM, "materialize")
    assert "no space is left for temporary files in /tmp" in run.log("train")
    assert "scratch_mib" in run.log("train")
    nothing_left_running()


def test_out_of_memory_is_reported_and_tried_with_the_larger_limit(
    platform: Production, reference: Reference
) -> None:
    reference.forget("train")
    platform.site.write_text("[steps.train]\nmemory_mib = [200, 4096]\n")
    try:
        run = platform.trigger_faulty("out-of-memory", **FAULTY)
        run.wait()
    finally:
        platform.site.write_text("")
    assert run.states["train"] == ("success", 2)
    log = run.log("train", 1)
    assert "ran out of memory: its limit is 200 MiB" in log
    assert "the peak seen was " in log
    assert "the next try has 4096 MiB" in log
    assert outputs(run) == reference.outputs
    ran_once(run, *UPSTREAM, "materialize")


@pytest.mark.usefixtures("reference")
def test_a_run_that_a_person_stops_saves_its_state_and_ends_as_failed(platform: Production) -> None:
    """The signal is that of a timeout, sooner than one of minutes."""
    run = platform.trigger_faulty("stopped", **FAULTY | {"train.epochs": 500})
    run.wait_for_line("train", "epoch 3 of")
    platform.call("PATCH", run.path, {"state": "failed"})
    deadline = time.monotonic() + 60
    while docker("ps", "-q", "--filter", "label=spira.step").stdout.split():
        assert time.monotonic() < deadline, "the container goes on"
        time.sleep(0.5)
    left = docker("ps", "-aq", "--filter", f"label=spira.run={run.run_id}").stdout.split()
    said = "".join(docker("logs", container).stderr for container in left)
    assert "its state is saved" in said
    while run.states["outcome"][0] not in ("failed", "success", "skipped"):
        assert time.monotonic() < deadline + 120, run.states
        time.sleep(1)
    assert run.wait() == "failed"
    assert run.states["train"] == ("failed", 1)
    assert "a person marked the run" in run.log("outcome")
