"""CPU seconds that a recording costs each server of one model.

python benchmarks/serving.py [--turns 5] [--recordings 12] [--rivals]

The same registered files and recordings for all, one request a recording.  The servers take turns,
and the output is the median over turns and its ratio to ``worker`` of the same turn, so that a busy
machine slows all alike.  Time is that of the CPU, of a server and all its children.

* model: the process in which a version answers, alone;
* worker: a worker, which takes from the queue, reads the audio, asks its model, stores the answer;
* service: the worker, and the server that stored the request;
* mlflow, samples: MLflow's scoring server as ``mlflow models serve`` starts it; samples as JSON;
* mlflow, file: the same with the file as Base64, which only this project's models take;
* litserve, mosec: with ``--rivals``, in an environment of their own under .spira.

Goal: a CPU second of the worker answers 6 times as much as one of MLflow's server.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import isnan
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
import soundfile
from sqlalchemy import select

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from answering import Stand, ask, standing  # noqa: E402
from started import free_port  # noqa: E402

from spira_services.serving.models import ModelProcess  # noqa: E402
from spira_services.serving.tables import PREDICTIONS  # noqa: E402
from spira_tasks import package  # noqa: E402
from spira_tasks.cohort import write_cohort  # noqa: E402
from spira_tasks.tracking import Tracker  # noqa: E402

RIVALS = ROOT / ".spira" / "rivals"
PINNED = ("litserve==0.2.19", "mosec==0.9.8")
READY = {"litserve": "/health", "mosec": "/"}

Ask = Callable[[list[bytes]], list[float]]  # probabilities of files, NaN without an answer
Pids = Sequence[int]


def recordings(folder: Path, n: int) -> list[bytes]:
    """The sentences of a synthetic cohort, as its telephones sent them."""
    write_cohort(folder, subjects=n, seed=1)
    return [file.read_bytes() for file in sorted(folder.glob("audio/*-sentence.*"))]


def by_process(process: ModelProcess) -> Ask:
    return lambda files: [number(process.answer(one)["probability"]) for one in files]


def by_service(stand: Stand, key: str) -> Ask:
    def given(files: list[bytes]) -> list[float]:
        with stand.client(key) as client:
            sent = [ask(client, one).raise_for_status().json()["inference_id"] for one in files]
        statement = select(PREDICTIONS.c.inference_id, PREDICTIONS.c.probability)
        engine = stand.engine()
        while True:
            with engine.connect() as connection:
                found = dict(tuple(row) for row in connection.execute(statement))
            if found.keys() >= set(sent):
                engine.dispose()
                return [number(found[one]) for one in sent]
            time.sleep(0.05)

    return given


def by_mlflow(client: httpx.Client, columns: list[str], cells: Callable[[bytes], list[Any]]) -> Ask:
    def answer(content: bytes) -> float:
        body = {"dataframe_split": {"columns": columns, "data": [cells(content)]}}
        (answered,) = client.post("/invocations", json=body).json()["predictions"]
        return number(answered["probability"])

    return lambda files: [answer(one) for one in files]


def samples(content: bytes) -> list[Any]:
    decoded, rate_hz = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    return [decoded.mean(axis=1).tolist(), rate_hz]


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def by_rival(client: httpx.Client, rival: str) -> Ask:
    """LitServe takes JSON by default, mosec bytes."""

    def answer(content: bytes) -> float:
        if rival == "mosec":
            answered = client.post("/inference", content=content)
        else:
            answered = client.post("/predict", json={"audio": encoded(content)})
        return number(answered.json()["probability"])

    return lambda files: [answer(one) for one in files]


def number(probability: float | None) -> float:
    return float("nan") if probability is None else float(probability)


@contextmanager
def served(
    command: list[str], port: int, ready: str, **environment: str
) -> Iterator[tuple[httpx.Client, int]]:
    """A client of an HTTP server that is started, and the server's process."""
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with (
        subprocess.Popen(command, env=os.environ | environment, **quiet) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        try:
            while not answers(client, ready):
                if process.poll() is not None:
                    raise RuntimeError(f"{command} ended with {process.returncode}")
                time.sleep(0.1)
            yield client, process.pid
        finally:
            if process.poll() is None:
                for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                    one.terminate()


def answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).is_success
    except httpx.TransportError:
        return False


def rivals_python() -> str:
    """An environment with LitServe and mosec; what it lacks is found in this one."""
    python = RIVALS / "bin" / "python"
    if not (RIVALS / "installed").exists():
        venv.create(RIVALS, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PINNED], check=True)
        (own,) = RIVALS.glob("lib/python*/site-packages")
        (own / "zz_ours.pth").write_text("\n".join(p for p in sys.path if "site-packages" in p))
        (RIVALS / "installed").touch()
    return str(python)


def cpu_seconds(pids: Pids) -> float:
    found = [psutil.Process(pid) for pid in pids]
    times = [one.cpu_times() for each in found for one in [each, *each.children(recursive=True)]]
    return float(sum(one.user + one.system for one in times))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--recordings", type=int, default=12)
    parser.add_argument("--rivals", action="store_true", help="also LitServe and mosec")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = recordings(folder / "cohort", arguments.recordings)
        stand, key = stack.enter_context(standing(folder, 1, {}))
        tracker, model = Tracker(stand.store.tracking_uri), folder / "model"
        champion = tracker.champion()
        assert champion is not None
        package.fetch(champion, tracker, stand.store, model)
        before = {one.pid for one in psutil.Process().children()}
        process = ModelProcess(model)
        stack.callback(process.close)
        process.load(lambda: None)
        (alone,) = {one.pid for one in psutil.Process().children()} - before
        worker, server = (stand.processes[name].pid for name in ("worker-0", "server"))
        of_service = by_service(stand, key)
        servers: dict[str, tuple[Ask, Pids]] = {
            "model": (by_process(process), [alone]),
            "worker": (of_service, [worker]),
            "service": (of_service, [worker, server]),
        }
        port = free_port()
        mlflow = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
        mlflow += ["-m", str(model), "-p", str(port)]
        client, pid = stack.enter_context(served(mlflow, port, "/ping"))
        servers["mlflow, samples"] = (
            by_mlflow(client, ["samples", "sample_rate_hz"], samples),
            [pid],
        )
        servers["mlflow, file"] = (by_mlflow(client, ["audio"], lambda one: [encoded(one)]), [pid])
        for rival in READY if arguments.rivals else ():
            port = free_port()
            variables = {"RIVAL": rival, "RIVAL_FOLDER": str(model), "RIVAL_PORT": str(port)}
            command = [rivals_python(), str(ROOT / "benchmarks" / "rivals.py")]
            client, pid = stack.enter_context(
                served(command, port, READY[rival], **package.ENVIRONMENT, **variables)
            )
            servers[rival] = (by_rival(client, rival), [pid])
        compare(servers, files, arguments.turns)


def compare(servers: dict[str, tuple[Ask, Pids]], files: list[bytes], n_turns: int) -> None:
    expected = servers["model"][0](files)
    files = [one for one, known in zip(files, expected, strict=True) if not isnan(known)]
    expected = [one for one in expected if not isnan(one)]  # the model refuses some
    seconds = sum(soundfile.info(io.BytesIO(one)).duration for one in files)
    turns = []
    for turn in range(n_turns + 1):  # the first warms up
        cost = {}
        for name, (given, pids) in servers.items():
            before = cpu_seconds(pids)
            found = given(files)
            cost[name] = cpu_seconds(pids) - before
            differences = [abs(a - b) for a, b in zip(found, expected, strict=True)]
            assert max(differences) <= package.TOLERANCE, f"{name} answers otherwise"
        turns += [cost] if turn else []
    print(f"{len(files)} recordings, {seconds:.0f} s of audio, {n_turns} turns; ms of CPU")
    for name in servers:
        spent = 1000 * median(turn[name] for turn in turns)
        ratios = sorted(turn[name] / turn["worker"] for turn in turns)
        print(
            f"{name:16s} {spent / len(files):6.1f} a recording {spent / seconds:6.2f} a second of "
            f"audio; {median(ratios):5.2f} times the worker ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
