"""Fixtures that more than one test module uses: one finished run, and an S3 server."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from browser import Page
from collecting import Collection
from databases import BACKENDS, server
from faults import FAULTY, Reference, looked_at, outputs
from on_phone import enrol, phone
from planted import TOLERANT, plant
from production import Production, production, why_not
from production import Run as DagRun
from s3_servers import S3Server, client_of, seaweedfs
from selection import select
from small_run import COHORT, SETTINGS
from stack import Stack, started
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from spira_tasks.artifacts import Store
from spira_tasks.cohort import write_cohort
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.contract.record import Result
from spira_tasks.errors import GateRejected
from spira_tasks.runner import run_step

# Before torch is imported, which reads them then: tests share the cores, and so do their processes.
# The stages set the number of torch's own threads by themselves: it is part of what they compute.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ.setdefault("OMP_NUM_THREADS", "1")

gc.set_threshold(50_000, 20, 100)  # as every step has it (spira_tasks/__main__.py)

BUCKET = "tests"


ENGINE_IN_USE = Path(tempfile.gettempdir()) / "spira-test-engine.lock"


# Their tests share the platform in containers, of which there is one; the last one changes it.
OF_THE_PLATFORM = (
    "test_faults.py",
    "test_faults_engine.py",
    "test_production.py",
    "test_values.py",
    "test_profiles.py",
)


# Theirs share a part of it, which the last one breaks.
OF_THE_STACK = ("test_backup.py", "test_doctor.py")


class Together(LoadScopeScheduling):
    """Gives a file to one process, and files that share containers to the same one.

    xdist's own groups (3.8.0) write to a field that nodes of pytest 9.2 do not have.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file.endswith(OF_THE_STACK):
            return "stack"
        return "platform" if file.endswith(OF_THE_PLATFORM) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    config.option.loadscopereorder = False  # they come in the order below
    return Together(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--since", default="", help="only what a change since this commit touches")


@pytest.hookimpl(trylast=True)  # of what the markers leave
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what others wait for, and refuse a second platform elsewhere.

    First the platform, which takes longest; then one module that uses the finished run, so that one
    process makes it while another runs the modules that do without.
    """
    select(config, items)
    order = {name: number for number, name in enumerate(OF_THE_PLATFORM)}
    use_it = (item for item in items if "finished" in getattr(item, "fixturenames", ()))
    first, *others = dict.fromkeys(item.path for item in use_it) or [None]

    def place(item: pytest.Item) -> int:
        if item.path.name in order:
            return order[item.path.name]
        if item.path == first:
            return len(order)
        return len(order) + (2 if item.path in others else 1)

    items.sort(key=place)
    for item in items:
        uses_it = "platform" in getattr(item, "fixturenames", ())
        if uses_it and item.path.name not in OF_THE_PLATFORM:
            raise pytest.UsageError(f"add {item.path.name} to OF_THE_PLATFORM in tests/conftest.py")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A change that touches no test is no failure."""
    if session.config.getoption("since") and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK


@dataclass(frozen=True)
class Run:
    """A finished run, to look at: nothing that is shared may be changed."""

    run_id: str
    store: Store
    cohort: Path
    results: Mapping[str, Result]
    refusal: str  # what the last gate said


@pytest.fixture(scope="session", autouse=True)
def no_server_of_the_machine() -> Iterator[None]:
    """Tests reach the store, the registry and the key that they name, and no other."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (
            *("MLFLOW_TRACKING_URI", "SPIRA_STORE", "SPIRA_PSEUDONYM_KEY"),
            *("SPIRA_PSEUDONYM_MAP", "SPIRA_SIGNING_KEY", "SPIRA_ACTOR", "SPIRA_SEALING_KEY"),
        ):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module", autouse=True)
def engine_in_use(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nobody restarts the Docker engine while a test of another process uses it."""
    items = [item for item in request.session.items if item.path == request.path]
    if not any(item.get_closest_marker("docker") for item in items):
        yield
        return
    is_alone = any(item.get_closest_marker("alone") for item in items)
    with ENGINE_IN_USE.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH)
        yield


def made_once(name: str, factory: pytest.TempPathFactory, make: Callable[[Path], None]) -> Path:
    """A folder that one of pytest's processes makes, while the others wait for it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with folder.with_name(f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            folder.mkdir()
            make(folder)
            (folder / "made").touch()
    return folder


def linked_copy(store: Store, folder: Path) -> Store:
    """A store to change: the same files, linked, and a copy of the registry's database."""
    source, database = Path(store.url), Path("mlflow", "mlflow.db")
    shutil.copytree(source, folder, copy_function=os.link)
    (folder / database).unlink()
    shutil.copy(source / database, folder / database)
    return Store(str(folder))


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic cohort with two damaged files."""

    def make(folder: Path) -> None:
        faults = ["truncated", "zero_len"]
        write_cohort(folder / "c", **COHORT, faults=faults)  # type: ignore[arg-type]

    return made_once("cohort", tmp_path_factory, make) / "c"


@pytest.fixture(scope="session")
def finished(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of the whole pipeline; its model has learned next to nothing, and is refused.

    It runs once; every process of pytest has a copy of its store.
    """

    def make(folder: Path) -> None:
        store = Store(str(folder / "store"))
        results, refusal = {}, ""
        for step in TRAINING.configure(data=str(cohort), settings=SETTINGS):
            try:
                results[step.name] = run_step(step, "first", store)
            except GateRejected as error:
                refusal = str(error)
        written = {name: result.to_json() for name, result in results.items()}
        (folder / "results.json").write_text(json.dumps([written, refusal]))

    folder = made_once("finished", tmp_path_factory, make)
    written, refusal = json.loads((folder / "results.json").read_text())
    results = {name: Result.from_json(text) for name, text in written.items()}
    store = linked_copy(Store(str(folder / "store")), tmp_path_factory.mktemp("copy") / "store")
    return Run("first", store, cohort, results, refusal)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    """A server of collection, with a site whose numbers end in a check letter."""
    with Collection.at(tmp_path_factory.mktemp("collection"), check_letter=True) as running:
        yield running


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that a test writes, and a browser hears."""
    return tmp_path_factory.mktemp("microphone") / "voice.wav"


@pytest.fixture(scope="module")
def page(
    collection: Collection, microphone: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    """A phone that is enrolled."""
    with phone(tmp_path_factory.mktemp("profile"), microphone) as page:
        enrol(page, collection)
        yield page


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS, started once per process, with one bucket for all tests.

    Every bucket takes volumes of its own, of which a server has so many.
    """
    with seaweedfs(tmp_path_factory.mktemp("s3-server")) as server:
        client_of(server).make_bucket(BUCKET)
        yield server


@pytest.fixture
def s3_environment(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The variables by which our code finds the server."""
    monkeypatch.setenv("SPIRA_S3_ENDPOINT", s3_server.endpoint)
    monkeypatch.setenv("SPIRA_S3_ACCESS_KEY", s3_server.access_key)
    monkeypatch.setenv("SPIRA_S3_SECRET_KEY", s3_server.secret_key)
    monkeypatch.delenv("SPIRA_S3_REGION", raising=False)
    return s3_server


@pytest.fixture
def bucket(s3_environment: S3Server) -> str:
    """Return the URL of an empty place in a bucket."""
    return f"s3://{BUCKET}/{uuid4().hex}/some/prefix"


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    if reason := why_not():
        pytest.skip(reason)
    with production(tmp_path_factory.mktemp("production")) as project:
        yield project


@pytest.fixture(scope="session")
def readable_cohort(cohort: Path) -> Iterator[Path]:
    """The cohort, with marked values, where the containers' user may read it."""
    place = Path("/var/tmp/spira-test-cohort")
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(cohort, place)
    plant(place)
    for path in [place, *place.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="session")
def undisturbed(platform: Production, readable_cohort: Path) -> DagRun:
    run = platform.trigger("undisturbed", readable_cohort, **SETTINGS | TOLERANT)
    run.wait()
    return run


@pytest.fixture(scope="session")
def reference(platform: Production, undisturbed: DagRun) -> Reference:
    """Reads what ``undisturbed`` left, as every run does that is disturbed."""
    records = undisturbed.records()
    found = {f"{n}.{name}": d for n, r in records.items() for name, d in r["outputs"].items()}
    (platform.given / "digests.json").write_text(json.dumps(found))
    (platform.given / "digests.json").chmod(0o644)
    run = platform.trigger_faulty("reference", **FAULTY)
    seen = looked_at(run.wait_for_line("train", "epoch 1 of"), platform)
    assert run.wait() == "success"
    keys = {name: record["key"] for name, record in run.records().items()}
    return Reference(platform, outputs(run), keys, seen)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Gone afterwards, volumes and all."""
    if reason := why_not():
        pytest.skip(reason)
    with started(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="module", params=BACKENDS)
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server of a database: the same test runs on SQLite and on Postgres."""
    with server(request.param) as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store: the same test runs on a folder and on a bucket."""
    if request.param == "folder":
        return str(tmp_path / "store")
    return str(request.getfixturevalue("bucket"))
