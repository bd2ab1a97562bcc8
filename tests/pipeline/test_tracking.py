"""MLflow may be away, changed by a person or moved: what that does to a training and a model."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from in_use import put_into_use
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ErrorCode

from spira_tasks.artifacts import Store
from spira_tasks.errors import ConfigError, ServiceUnavailable, SpiraError
from spira_tasks.tracking import CHALLENGER, CLASSIFIER, MODEL, Registered, Tracker
from spira_tasks.work import LiveMetrics

ONE, OTHER = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"  # classifiers


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose registry has one version, and the files of a model."""
    place = tmp_path_factory.mktemp("tracking")
    (place / "files").mkdir()
    (place / "files/MLmodel").write_text("flavors: {}")
    register(place / "store", ONE)
    return place


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy of that store."""
    shutil.copytree(prepared, tmp_path / "copy")
    return tmp_path / "copy/store"


def tracker_of(folder: Path) -> Tracker:
    return Tracker(Store(str(folder)).tracking_uri)


def register(folder: Path, classifier: str, tracker: Tracker | None = None) -> Registered:
    tracker = tracker or tracker_of(folder)
    run_id = tracker.run_of(classifier, "model")
    return tracker.register(run_id, folder.parent / "files", {CLASSIFIER: classifier})


def delete_the_experiment(folder: Path) -> str:
    tracker = tracker_of(folder)
    (experiment,) = tracker.client.search_experiments(filter_string="name LIKE 'spira%'")
    tracker.client.delete_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Another process writes to the database; MLflow waits a moment instead of 20 seconds."""

    def wait_less(*call: Any) -> tuple[str, Any]:
        return call[2].replace("busy_timeout = 20000", "busy_timeout = 50"), call[3]

    event = (sqlalchemy.Engine, "before_cursor_execute", wait_less)
    sqlalchemy.event.listen(*event, retval=True)
    with closing(sqlite3.connect(folder / "mlflow/mlflow.db", isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            writer.execute("ROLLBACK")
            sqlalchemy.event.remove(*event)


def test_a_deleted_experiment_is_named_with_the_command_that_restores_it(folder: Path) -> None:
    number = delete_the_experiment(folder)
    with pytest.raises(ConfigError) as refused:
        register(folder, OTHER)
    uri = Store(str(folder)).tracking_uri
    command = f"MLFLOW_TRACKING_URI={uri} mlflow experiments restore --experiment-id {number};"
    assert command in str(refused.value)
    assert [one.version for one in tracker_of(folder).versions()] == ["1"]  # what serves is there
    tracker_of(folder).client.restore_experiment(number)
    assert register(folder, OTHER).version == "2"


def test_a_locked_database_asks_for_another_try(folder: Path) -> None:
    tracker = tracker_of(folder)
    with locked(folder), pytest.raises(ServiceUnavailable, match="database is locked"):
        register(folder, OTHER, tracker)
    assert register(folder, OTHER, tracker).version == "2"


def test_a_deleted_run_or_model_is_made_again_by_register_and_promote_says_so(folder: Path) -> None:
    tracker = tracker_of(folder)
    tracker.client.delete_run(tracker.run_of(ONE, "model"))
    assert tracker.artifacts_of(tracker.versions()[0])["classifier"] == ONE
    tracker.client.delete_registered_model(MODEL)
    with pytest.raises(ConfigError, match="run the step register again"):
        put_into_use(tracker, "1")
    assert tracker.find_version(ONE) is None
    put_into_use(tracker, register(folder, ONE).version)
    champion = tracker.champion()
    assert champion is not None
    assert champion.classifier == ONE


def damage(database: Path) -> None:
    database.write_bytes(b"no database" * 500)


def age(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '2b4d017a5e9b'")


@pytest.mark.parametrize(
    ("spoil", "advice"), [(damage, "restore it from a backup"), (age, "mlflow db upgrade")]
)
def test_a_database_that_no_try_can_read_says_what_to_do(
    spoil: Callable[[Path], None], advice: str, folder: Path
) -> None:
    spoil(folder / "mlflow/mlflow.db")
    with pytest.raises(ConfigError, match=advice):
        tracker_of(folder).versions()


def test_a_server_that_is_away_asks_for_another_try_and_no_password_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = Tracker("http://somebody:secret@127.0.0.1:9")
    with pytest.raises(ServiceUnavailable, match=r"MLflow at 127\.0\.0\.1:9") as away:
        tracker.champion()
    assert "secret" not in str(away.value)


def s3_error(status: int) -> ClientError:
    answer: Any = {"Error": {"Code": "Some"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "PutObject")


def of_mlflow(code: str) -> MlflowException:
    return MlflowException("what it says", error_code=ErrorCode.Value(code))


def test_every_error_code_of_mlflow_is_an_error_of_this_project(folder: Path) -> None:
    for uri in (Store(str(folder)).tracking_uri, "http://127.0.0.1:9"):
        tracker = Tracker(uri)
        for code in ErrorCode.keys():  # noqa: SIM118  (it is no mapping)
            assert isinstance(tracker._named(of_mlflow(code)), SpiraError), code
        assert tracker._named(KeyError("a fault of this project")) is None


def failed_upload(status: int) -> Exception:
    failed: Exception = S3UploadFailedError("an upload")
    failed.__context__ = s3_error(status)
    return failed


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (of_mlflow("INTERNAL_ERROR"), ServiceUnavailable),
        (of_mlflow("TEMPORARILY_UNAVAILABLE"), ServiceUnavailable),
        (of_mlflow("REQUEST_LIMIT_EXCEEDED"), ServiceUnavailable),
        (of_mlflow("ENDPOINT_NOT_FOUND"), ServiceUnavailable),
        (of_mlflow("PERMISSION_DENIED"), "MLFLOW_TRACKING_PASSWORD"),
        (of_mlflow("UNAUTHENTICATED"), "MLFLOW_TRACKING_PASSWORD"),
        (of_mlflow("RESOURCE_DOES_NOT_EXIST"), "register again"),
        (of_mlflow("INVALID_PARAMETER_VALUE"), "what it says"),
        (s3_error(403), "SPIRA_S3_SECRET_KEY"),
        (s3_error(503), ServiceUnavailable),
        (failed_upload(403), "SPIRA_S3_SECRET_KEY"),
        (failed_upload(500), ServiceUnavailable),
        (NoCredentialsError(), "SPIRA_S3_SECRET_KEY"),
        (EndpointConnectionError(endpoint_url="http://s3"), ServiceUnavailable),
        (OSError(28, "No space left on device"), ServiceUnavailable),
        (PermissionError(13, "Permission denied"), "let this user read and write"),
    ],
)
def test_what_another_try_may_mend_is_told_from_what_a_person_has_to(
    error: Exception, said: type[Exception] | str
) -> None:
    named = Tracker("http://127.0.0.1:9")._named(error)
    if isinstance(said, str):
        assert isinstance(named, ConfigError)
        assert said in str(named)
    else:
        assert isinstance(named, said)


def deleted(folder: Path) -> None:
    delete_the_experiment(folder)


def without_a_table(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "mlflow/mlflow.db")) as connection, connection:
        connection.execute("DROP TABLE metrics")


@pytest.mark.parametrize(
    ("spoil", "why"), [(deleted, "experiments restore"), (without_a_table, "no such table")]
)
def test_no_error_of_mlflow_stops_a_training_and_it_is_said_once(
    spoil: Callable[[Path], None], why: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    track = LiveMetrics(Store(str(folder)).tracking_uri, "0" * 64, "first/train")
    track(1, {"val_loss": 0.5})
    assert track.mlflow_run
    spoil(folder)
    with caplog.at_level(logging.WARNING):
        for number in (2, 3):
            track(number, {"val_loss": 0.4})
        track.finish({"model": ONE})
    (line,) = caplog.messages
    assert line.startswith("first/train: going on without live metrics")
    assert why in line


def test_the_epochs_of_a_training_show_what_it_uses_of_the_machine(folder: Path) -> None:
    track = LiveMetrics(Store(str(folder)).tracking_uri, "0" * 64, "first/train")
    for number in (1, 2):
        assert sum(range(2_000_000)) > 0  # something to do
        track(number, {"val_loss": 0.5})
    client = Tracker(Store(str(folder)).tracking_uri).client
    run = track.mlflow_run.rpartition("/")[2]
    for name, least, most in (("cpu_percentage", 1, 10_000), ("memory_megabytes", 20, 100_000)):
        history = client.get_metric_history(run, f"system/process_{name}")
        assert [metric.step for metric in history] == [1, 2]
        assert all(least < metric.value < most for metric in history)


def test_an_error_that_nobody_foresaw_does_not_stop_a_training_either(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> str:
        raise KeyError("val_loss")

    monkeypatch.setattr(Tracker, "log_epoch", fail)
    LiveMetrics(Store(str(folder)).tracking_uri, "0" * 64, "first/train")(1, {"val_loss": 0.5})
    assert "first/train: going on without live metrics, the store has them. KeyError" in caplog.text


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("MLmodel"))


@pytest.mark.parametrize("is_copy", [False, True])
def test_a_store_that_was_moved_or_copied_keeps_its_models_beside_it(
    is_copy: bool, folder: Path, tmp_path: Path
) -> None:
    before = files_below(folder)
    if is_copy:
        shutil.copytree(folder, folder.with_name("new store"))
    else:
        folder.rename(folder.with_name("new store"))
    moved = folder.with_name("new store")
    first = tracker_of(moved).versions()[0]
    assert files_below(tracker_of(moved).download(first, tmp_path / "first")) == ["MLmodel"]
    register(moved, OTHER)
    assert len(files_below(moved)) == len(before) + 1
    assert files_below(folder) == (before if is_copy else [])
    with closing(sqlite3.connect(moved / "mlflow/mlflow.db")) as connection:
        assert f"file://{folder}/" not in "\n".join(connection.iterdump())


def test_two_processes_that_register_one_classifier_get_one_version(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have looked before either registers, as two pipelines on one store do."""
    forked = multiprocessing.get_context("fork")
    both, found = forked.Barrier(2), forked.Queue()

    def pipeline() -> None:
        tracker = tracker_of(folder)
        create = tracker.client.create_model_version

        def wait_for_the_other(*args: Any, **options: Any) -> Any:
            both.wait(60)
            return create(*args, **options)

        monkeypatch.setattr(tracker.client, "create_model_version", wait_for_the_other)
        found.put(register(folder, OTHER, tracker).version)

    processes = [forked.Process(target=pipeline) for _ in range(2)]
    for process in processes:
        process.start()
    assert [found.get(timeout=120) for _ in processes] == ["2", "2"]
    for process in processes:
        process.join()
    (version,) = [one for one in tracker_of(folder).versions() if one.classifier == OTHER]
    assert (version.version, version.aliases) == ("2", (CHALLENGER,))


def test_what_serves_is_champion_or_previous_while_the_aliases_move(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = tracker_of(folder)
    seen: list[dict[str, str]] = []
    move = MlflowClient.set_registered_model_alias

    def moved(*arguments: Any) -> None:
        move(*arguments)
        seen.append(tracker.aliases())

    put_into_use(tracker, "1")
    register(folder, OTHER)
    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", moved)
    tracker.assign("2", "1")  # a promotion
    tracker.assign("1", None)  # a rollback
    challenger = {"challenger": "2"}
    assert seen == [
        # and not 2 alone, which no worker has yet
        {"champion": "1", "previous": "1", **challenger},
        {"champion": "2", "previous": "1", **challenger},
        {"champion": "1", "previous": "1"},
    ]


def test_a_promotion_keeps_the_champion_it_replaces_as_previous(folder: Path) -> None:
    tracker = tracker_of(folder)
    put_into_use(tracker, "1")
    assert tracker.aliases() == {"champion": "1"}
    put_into_use(tracker, register(folder, OTHER).version)
    assert tracker.aliases() == {"champion": "2", "previous": "1"}
    put_into_use(tracker, "2")  # again
    assert tracker.aliases() == {"champion": "2", "previous": "1"}
    put_into_use(tracker, "1")
    assert tracker.aliases() == {"champion": "1", "previous": "2"}
    tracker.client.delete_registered_model(MODEL)
    assert tracker.aliases() == {}
