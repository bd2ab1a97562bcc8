"""Start the pages of Airflow, MLflow, governance and collection on this machine, and stop them.

The embedded default: SQLite, a folder as the store, steps as processes, nothing but 127.0.0.1.
Ctrl-C stops everything.  Nothing is left behind, even after kill -9: the servers belong to a keeper
process.  Keeper and starter each get a signal when their parent ends, and adopt the orphans among
their descendants, so every process that a server starts has one of them as an ancestor.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import hashlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import psutil

ROOT = Path(__file__).resolve().parent.parent
DAG = "spira_continuous_training"
READY_SECONDS = 300.0
STOP_SECONDS = 15.0
STEP = ["-m", "spira_tasks", "run"]  # arguments of a running step
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h

EXAMPLES = """\
examples:
  make up                                                   start; Ctrl-C stops it
  make up ARGUMENTS="--airflow-port 8081 --mlflow-port 5001"   where 8080 or 5000 is taken
  SPIRA_DATA=/data/recordings make up                       what the DAG's form proposes to read
"""


class CannotStart(Exception):
    """An error that the user can correct; says how."""


class Stopped(Exception):
    """The keeper got a signal to stop."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make up",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--airflow-port", type=int, default=8080, help="default 8080")
    parser.add_argument("--mlflow-port", type=int, default=5000, help="default 5000")
    parser.add_argument("--collection-port", type=int, default=8090, help="default 8090")
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.keep:
        return Keeper(arguments).run()
    return _keep([sys.executable, *sys.argv, "--keep"])


class Keeper:
    """Starts and watches the servers, and ends every process of theirs."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.state = Path(os.environ.get("SPIRA_UP") or ROOT / ".spira" / "up")
        self.airflow = f"http://127.0.0.1:{arguments.airflow_port}"
        self.mlflow = f"http://127.0.0.1:{arguments.mlflow_port}"
        self.collection = f"http://127.0.0.1:{arguments.collection_port}/collection/"
        self.ports = {
            "airflow": arguments.airflow_port,
            "mlflow": arguments.mlflow_port,
            "collection": arguments.collection_port,
        }
        self.code_file = self.state / "device_code"
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        self.password = ""

    def run(self) -> int:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, _raise_stopped)
        _own_descendants()
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with self._alone():
                self._check_ports()
                try:
                    self._start()
                    while True:
                        self._check_alive()
                        time.sleep(1)
                finally:
                    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                        signal.signal(signum, signal.SIG_IGN)  # already stopping
                    self._stop()
        except Stopped:
            return 0
        except CannotStart as error:
            print(f"make up: {error}", file=sys.stderr)
        return 1

    def _alone(self) -> IO[str]:
        """Take the lock of this installation; the kernel releases it when the process ends."""
        lock = (self.state / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise CannotStart(
                f"it is up already: {lock.read().strip() or 'just starting'}\n"
                "Stop it by Ctrl-C where it was started, or by kill and its process number"
            ) from None
        lock.truncate(0)
        lock.write(
            f"process {os.getppid()}, Airflow {self.airflow}, MLflow {self.mlflow}, "
            f"collection {self.collection}"
        )
        lock.flush()
        return lock

    def _check_ports(self) -> None:
        for name, port in self.ports.items():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    raise CannotStart(
                        f"port {port} of 127.0.0.1 cannot be used ({error.strerror}): stop what "
                        f'uses it, or choose another: make up ARGUMENTS="--{name}-port {port + 1}"'
                    ) from None

    def _start(self) -> None:
        kept = self._secrets()
        self.password = kept["password"]
        environment = self._environment(kept)
        self._migrate(environment)
        airflow = [sys.executable, "-m", "airflow"]
        api = ["api-server", "--host", "127.0.0.1", "--port", str(self.ports["airflow"])]
        store = Path(os.environ["SPIRA_STORE"]).resolve()
        store.mkdir(mode=0o700, parents=True, exist_ok=True)  # recordings are in it
        (store / "mlflow").mkdir(exist_ok=True)
        self._make_registry(store / "mlflow" / "mlflow.db", environment)
        mlflow = [
            *(sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"),
            *("--backend-store-uri", f"sqlite:///{store / 'mlflow' / 'mlflow.db'}"),
            *("--default-artifact-root", (store / "mlflow" / "artifacts").as_uri()),
            *("--host", "127.0.0.1", "--port", str(self.ports["mlflow"])),
            *("--workers", "1", "--no-serve-artifacts"),
        ]
        self.code_file.unlink(missing_ok=True)
        collection = [
            *(sys.executable, "-m", "spira_services", "serve"),
            *("--port", str(self.ports["collection"]), "--code-file", str(self.code_file)),
        ]
        after_api = [sys.executable, str(ROOT / "docker/health.py"), "metadatabase"]
        # No triggerer: nothing here is deferred.
        for name, command in {
            "api-server": [*airflow, *api],
            # It waits for the API server, or the first tries are lost.  Its log server would listen
            # on all addresses; the page reads the files themselves.
            "scheduler": [*after_api, *airflow, "scheduler", "--skip-serve-logs"],
            "dag-processor": [*airflow, "dag-processor"],
            "mlflow": mlflow,
            "collection": collection,
            "worker": [sys.executable, "-m", "spira_services", "work"],
        }.items():
            with (self.state / f"{name}.log").open("wb") as log:
                self.servers[name] = subprocess.Popen(
                    # The servers get SIGTERM should even the keeper be killed.
                    ["setpriv", "--pdeathsig", "TERM", "--", *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd=ROOT,
                )
            self._say(f"started {name} (process {self.servers[name].pid})")
        self._wait_until_ready()

    def _secrets(self) -> dict[str, str]:
        """Passwords and keys of this installation, made once, readable by this user only."""
        file = self.state / "secrets.json"
        if not file.exists():
            made = {name: secrets.token_urlsafe(64) for name in ("jwt", "api", "flask")}
            made["password"] = secrets.token_urlsafe(16)
            _write_private(file, json.dumps(made))
        return dict(json.loads(file.read_text()))

    def _environment(self, kept: dict[str, str]) -> dict[str, str]:
        users = self.state / "airflow_users.json"
        _write_private(users, json.dumps({"admin": kept["password"]}))
        settings = self.state / "mlflow_auth.ini"
        _write_private(
            settings,
            "[mlflow]\ndefault_permission = READ\n"
            f"database_uri = sqlite:///{self.state.resolve() / 'mlflow_auth.db'}\n"
            f"admin_username = admin\nadmin_password = {kept['password']}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
        )
        return os.environ | {
            "PYTHONUNBUFFERED": "1",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(users.resolve()),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.airflow}/execution/",
            "AIRFLOW__API__BASE_URL": self.airflow,
            "SPIRA_AIRFLOW_API": self.airflow,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": kept["api"],
            "AIRFLOW__API_AUTH__JWT_SECRET": kept["jwt"],
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            # On demand only: this machine is not up every Monday at three, and a schedule that was
            # missed starts one run as soon as it is up.
            "SPIRA_SCHEDULE": os.environ.get("SPIRA_SCHEDULE", ""),
            "SPIRA_RETENTION_SCHEDULE": os.environ.get("SPIRA_RETENTION_SCHEDULE", ""),
            # Else a triggered run waits for ever, unless the form's switch unpauses the DAG.
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "SPIRA_MLFLOW_PAGE": self.mlflow,
            "MLFLOW_AUTH_CONFIG_PATH": str(settings.resolve()),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": kept["flask"],
            "SPIRA_ADMIN_PASSWORD": kept["password"],
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # jobs of its own, 170 MB each
        }

    def _migrate(self, environment: dict[str, str]) -> None:
        """Migrate Airflow's database, once for every set of pinned packages."""
        home = Path(os.environ["AIRFLOW_HOME"])
        pins = hashlib.sha256((ROOT / "requirements.txt").read_bytes()).hexdigest()[:16]
        done = home / f"migrated-{pins}"
        if done.exists():
            return
        home.mkdir(parents=True, exist_ok=True)
        self._make("Airflow", [sys.executable, "-m", "airflow", "db", "migrate"], environment)
        done.touch()

    def _make_registry(self, file: Path, environment: dict[str, str]) -> None:
        """Make MLflow's database, once: its server and the worker would both migrate a new one."""
        if not file.exists():
            make = "import sys; from spira_tasks.tracking import Tracker; Tracker(sys.argv[1])"
            self._make("MLflow", [sys.executable, "-c", make, f"sqlite:///{file}"], environment)

    def _make(self, server: str, command: list[str], environment: dict[str, str]) -> None:
        """Make the database of a server."""
        self._say(f"preparing {server}'s database")
        log = self.state / f"{server.lower()}-database.log"
        with log.open("wb") as file:
            process = subprocess.run(
                command,
                check=False,
                env=environment,
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        if process.returncode != 0:
            raise CannotStart(f"{server}'s database could not be made; see {log}:\n{_tail(log)}")

    def _wait_until_ready(self) -> None:
        waiting = {
            "Airflow's page and DAGs": self._has_dag,
            "MLflow's page": self._has_mlflow,
            "the collection page": self._has_collection,
        }
        until = time.monotonic() + READY_SECONDS
        while waiting:
            self._check_alive()
            for name in [name for name, answers in waiting.items() if answers()]:
                del waiting[name]
                self._say(f"ready: {name}")
            if time.monotonic() > until:
                raise CannotStart(
                    f"no answer after {READY_SECONDS:.0f} s from {', '.join(waiting)}; "
                    f"see the logs in {self.state}"
                )
            time.sleep(0.5)
        print(
            f"\n  Airflow      {self.airflow}"
            f"\n  Governance   {self.airflow}/plugin/governance"
            f"\n  MLflow       {self.mlflow}"
            f"\n  Collection   {self.collection}#code={self.code_file.read_text()}"
            "   (enrols one device, within an hour)"
            f"\n  Labels       {self.collection.replace('/collection/', '/sign-in')}"
            "   (what came, labels, agreement; same login)"
            f"\n  login        admin, password {self.password}   (kept in {self.state})"
            "\n\nCtrl-C stops everything.",
            flush=True,
        )

    def _has_dag(self) -> bool:
        """Whether a user can log in and see the DAG, and the scheduler runs."""
        login = json.dumps({"username": "admin", "password": self.password}).encode()
        content = {"Content-Type": "application/json"}
        token = _json(Request(f"{self.airflow}/auth/token", login, content))
        if token is None:
            return False
        bearer = {"Authorization": f"Bearer {token['access_token']}"}
        dag = _json(Request(f"{self.airflow}/api/v2/dags/{DAG}", headers=bearer))
        health = _json(Request(f"{self.airflow}/api/v2/monitor/health")) or {}
        return dag is not None and health.get("scheduler", {}).get("status") == "healthy"

    def _has_mlflow(self) -> bool:
        basic = b64encode(f"admin:{self.password}".encode()).decode()
        url = f"{self.mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
        return _json(Request(url, headers={"Authorization": f"Basic {basic}"})) is not None

    def _has_collection(self) -> bool:
        return _json(Request(self.collection.replace("/collection/", "/openapi.json"))) is not None

    def _check_alive(self) -> None:
        for name, process in self.servers.items():
            if process.poll() is not None:
                log = self.state / f"{name}.log"
                raise CannotStart(
                    f"{name} has ended with status {process.returncode}; see {log}:\n{_tail(log)}"
                )

    def _stop(self) -> None:
        """End running steps, which save their state, then the servers, then what is left."""
        self._say("stopping")
        _end(_running(STEP))
        # The scheduler first: it and its tasks need answers of the others until then.
        for names in (
            ("scheduler", "dag-processor", "worker"),
            ("api-server", "mlflow", "collection"),
        ):
            servers = [self.servers[name] for name in names if name in self.servers]
            _end([psutil.Process(one.pid) for one in servers if one.poll() is None])
        _kill()
        self._say("stopped; nothing is left running")

    def _say(self, event: str) -> None:
        """One event, one line: on the terminal and in the log."""
        with (self.state.parent / "up.log").open("a") as log:
            log.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {event}\n")
        try:
            print(event, flush=True)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the terminal is gone; the log is there


def _keep(command: list[str]) -> int:
    """Run the keeper in a session of its own, pass signals on, and return its exit status."""
    _own_descendants()
    keeper = subprocess.Popen(command, start_new_session=True)

    def stop(signum: int, frame: object) -> None:
        keeper.terminate()

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, stop)
    status = keeper.wait()
    _kill()  # nothing is left, unless the keeper was killed
    return status if status >= 0 else 1


def _own_descendants() -> None:
    """Get SIGTERM when the parent ends, whatever ended it, and become the parent of orphans.

    On Linux: a child subreaper adopts the orphans among its descendants.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(1)  # the parent has ended meanwhile


def _running(arguments: list[str]) -> list[psutil.Process]:
    """The descendants whose command has these ``arguments``."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if process.cmdline()[1 : 1 + len(arguments)] == arguments:
                found.append(process)
    return found


def _end(processes: list[psutil.Process]) -> None:
    """Terminate processes, and wait for them for a while."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(processes, timeout=STOP_SECONDS)


def _kill() -> None:
    """Kill all descendants, orphans included, until there are none."""
    while processes := psutil.Process().children(recursive=True):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=5)


def _json(request: Request) -> dict[str, Any] | None:
    """The JSON answer of a server; None while it does not answer, or refuses."""
    try:
        with urlopen(request, timeout=5) as response:
            return dict(json.loads(response.read()))
    except (URLError, OSError, ValueError):
        return None


def _raise_stopped(signum: int, frame: object) -> None:
    raise Stopped


def _write_private(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-8:])


if __name__ == "__main__":
    sys.exit(main())
