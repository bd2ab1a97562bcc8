"""MLflow behind one module: metrics of a training, the model registry and its aliases.

MLflow shows and serves models.  The facts are in the store, and MLflow's copy can be rebuilt from
them.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Concatenate, ParamSpec, TypeVar

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# MLflow's own default is to be silent for minutes; Airflow retries the step, and logs it.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

import mlflow
from mlflow.entities import Experiment, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array
from mlflow.utils.file_utils import local_file_uri_to_path

from spira_tasks.errors import ConfigError, ServiceUnavailable, SpiraError

logging.getLogger("mlflow").setLevel(logging.WARNING)  # it logs every table it makes
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # ``_named`` says it
logging.getLogger("alembic").setLevel(logging.WARNING)

EXPERIMENT = "spira_continuous_training"
MODEL = "spira"
CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
TAG_REFUSED = "spira.refused"  # tag of a version that a person refused
CLASSIFIER = "spira.classifier"  # tag of a version: digest of its classifier in the store

# What to do about an error that another try does not mend.
BUCKET = (
    "SPIRA_S3_ACCESS_KEY and SPIRA_S3_SECRET_KEY must open the bucket of MLflow's artifacts too"
)
DATABASE = (
    "check MLFLOW_TRACKING_URI; if the database is damaged, restore it from a backup, or move it "
    "away and run the pipeline again, which makes a new one and registers the model again"
)
USER = "check MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD and what that user may do"
GONE = (
    "if it was deleted, run the step register again (in Airflow clear that task, else python -m "
    "spira_tasks quarantine rerun RUN), which registers the model anew from the store"
)
REFUSED = "do what it says, and check MLFLOW_TRACKING_URI"

P = ParamSpec("P")
R = TypeVar("R")

# Where MLflow's database has places of files.
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
ON_RUN = ("spira.outcome", "spira.blocked_by")  # tags of a version that its run shows too


@dataclass(frozen=True)
class Registered:
    """A version of the registered model."""

    version: str
    run_id: str  # of the MLflow run that it belongs to
    classifier: str  # digest of its artifact in the store
    aliases: tuple[str, ...]
    tags: Mapping[str, str]

    @property
    def was_champion(self) -> bool:
        """Whether it ever served."""
        return self.tags.get("spira.was_champion") == "true"

    @property
    def is_refused(self) -> bool:
        """Whether a person refused it, and nobody approved it since."""
        return self.tags.get(TAG_REFUSED) == "true"

    @property
    def is_synthetic(self) -> bool:
        """Whether it learned from people who were invented."""
        return self.tags.get("spira.synthetic") == "true"

    @property
    def contains_erased(self) -> bool:
        return self.tags.get("spira.contains_erased") == "true"


def translated(
    method: Callable[Concatenate[Tracker, P], R],
) -> Callable[Concatenate[Tracker, P], R]:
    """Let a method raise an error of this project for what MLflow, or anything below it, raises."""

    @functools.wraps(method)
    def call(self: Tracker, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            named = self._named(error)
            if named is None:
                raise
            raise named from error

    return call


class Tracker:
    """An MLflow server, or an SQLite file with a folder of artifacts beside it."""

    @translated
    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._database: Path | None = None
        _pass_on_s3_keys()
        if uri.startswith("sqlite:///"):
            self._database = Path(uri.removeprefix("sqlite:///")).resolve()
            _make_database(self._database)
        self.client = mlflow.MlflowClient(uri, uri)

    @translated
    def log_epoch(self, key: str, name: str, number: int, metrics: Mapping[str, float]) -> str:
        """Log the metrics of one epoch of the training with this key; return the run's place."""
        place, run_id = self._run(name, "spira.key", key)
        batch = [Metric(metric, value, 0, number) for metric, value in metrics.items()]
        self.client.log_batch(run_id, metrics=batch)
        return place

    @translated
    def place(self, run_id: str) -> str:
        """Return ``"<experiment>/<run>"``, by which MLflow's page finds a run."""
        return f"{self._experiment()}/{run_id}"

    @translated
    def finish(self, key: str, name: str, outputs: Mapping[str, str]) -> None:
        """Close the run of a training, and tag it with the digests of its outputs."""
        _, run_id = self._run(name, "spira.key", key)
        tags = [RunTag(f"spira.output.{output}", value) for output, value in outputs.items()]
        self.client.log_batch(run_id, tags=tags)
        self.client.set_terminated(run_id)

    @translated
    def run_of(self, model: str, name: str) -> str:
        """Return the run that trained the model with this digest; make one if MLflow has none."""
        return self._run(name, "spira.output.model", model)[1]

    @translated
    def describe(
        self,
        run_id: str,
        *,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        history: list[dict[str, float]],
        files: list[Path],
    ) -> None:
        """Log a model's parameters, metrics, tags, history and reports; doing it twice is safe."""
        batch = [Metric(name, value, 0, 0) for name, value in metrics.items()]
        for row in history:
            number = int(row["number"])
            batch += [Metric(k, v, 0, number) for k, v in row.items() if k != "number"]
        self.client.log_batch(
            run_id,
            params=[Param(name, str(value)) for name, value in params.items()],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )
        for start in range(0, len(batch), 1000):  # MLflow's limit
            self.client.log_batch(run_id, metrics=batch[start : start + 1000])
        for file in files:
            self.client.log_artifact(run_id, str(file), "report")
        self.client.set_terminated(run_id)

    @translated
    def log_experiment(
        self, name: str, *, metrics: Mapping[str, float], tags: Mapping[str, str], files: list[Path]
    ) -> str:
        """Log the comparison of an experiment; return its run, the parent of its trials' runs."""
        _, run_id = self._run(name, "spira.experiment", name)
        shown = {re.sub(r"[^\w. /-]", " ", metric): value for metric, value in metrics.items()}
        self.describe(run_id, params={}, metrics=shown, tags=tags, history=[], files=files)
        return run_id

    @translated
    def log_trial(
        self,
        parent: str,
        key: str,
        name: str,
        *,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> None:
        """Put the run of the training with this key below its experiment, with what it came to."""
        _, run_id = self._run(name, "spira.key", key)
        tags = {"mlflow.parentRunId": parent, **tags}
        self.describe(run_id, params={}, metrics=metrics, tags=tags, history=[], files=[])

    @translated
    def find_version(self, classifier: str) -> Registered | None:
        """Return the first version made from the classifier with this digest."""
        return next(iter(self.versions(classifier)), None)

    @translated
    def versions(self, classifier: str | None = None) -> list[Registered]:
        """List the versions of the registered model, or of one classifier, the oldest first."""
        found = []
        with _unless("RESOURCE_DOES_NOT_EXIST"):
            found = list(self.client.search_model_versions(f"name='{MODEL}'"))
        wanted = [v for v in found if classifier in (None, v.tags.get(CLASSIFIER))]
        return [self._registered(str(number)) for number in sorted(int(v.version) for v in wanted)]

    @translated
    def artifacts_of(self, version: Registered) -> dict[str, str]:
        """Map recordings, model, classifier, report and package to the digests behind a version."""
        tags: Mapping[str, str] = {}  # where MLflow has lost the run, the store's records have it
        with _unless("RESOURCE_DOES_NOT_EXIST"):
            tags = self.client.get_run(version.run_id).data.tags
        found = {
            name.rpartition(".")[2]: value
            for name, value in tags.items()
            if name == "spira.recordings" or name.startswith("spira.output.")
        }
        found["classifier"] = version.classifier
        if "spira.package" in version.tags:  # the files that MLflow has, in the store
            found["package"] = version.tags["spira.package"]
        return found

    @translated
    def register(self, run_id: str, folder: Path, tags: Mapping[str, str]) -> Registered:
        """Hand the files of a model to MLflow, and make it the challenger; the version comes last.

        ``folder`` is what ``write_model`` made.  The tag ``CLASSIFIER`` identifies it: where
        another process registers the same classifier meanwhile, both get the version that is first.
        MLflow numbers a version only after the one before is there to be found.
        """
        with self._as_mlflow_default():
            if not self.client.search_registered_models(f"name='{MODEL}'"):
                with _unless("RESOURCE_ALREADY_EXISTS"):  # another process was first
                    self.client.create_registered_model(MODEL)
            model = self.client.create_logged_model(
                self._experiment(), name="classifier", source_run_id=run_id
            )
            self.client.log_model_artifacts(model.model_id, str(folder))
            model = self.client.finalize_logged_model(model.model_id, "READY")
            made = self.client.create_model_version(
                MODEL, model.model_uri, run_id, tags=dict(tags), model_id=model.model_id
            )
        first = self.find_version(tags[CLASSIFIER])
        if first is not None and first.version != str(made.version):
            self.client.delete_model_version(MODEL, str(made.version))
            self.client.delete_logged_model(model.model_id)
            return first
        self.client.set_registered_model_alias(MODEL, CHALLENGER, str(made.version))
        return self._registered(str(made.version))

    @translated
    def download(self, version: Registered, folder: Path) -> Path:
        """Copy the files that MLflow has of a version into a folder; load nothing."""
        self._follow(self.client.get_experiment_by_name(EXPERIMENT))
        with self._as_mlflow_default(), _unless("RESOURCE_DOES_NOT_EXIST"):
            source = self.client.get_model_version_download_uri(MODEL, version.version)
            return Path(mlflow.artifacts.download_artifacts(source, dst_path=str(folder)))
        return folder / "lost"  # nothing is there

    @translated
    def aliases(self) -> dict[str, str]:
        """Map each alias to the number of its version, in one request; empty without a model.

        While they move, one version may be champion and previous.
        """
        # Searched: a server with users refuses to look up a model that does not exist.
        models = self.client.search_registered_models(f"name='{MODEL}'")
        return {name: str(v) for name, v in models[0].aliases.items()} if models else {}

    @translated
    def version(self, number: str) -> Registered:
        """Return the version of this number; ConfigError where there is none."""
        return self._registered(number)

    @translated
    def champion(self) -> Registered | None:
        number = self.aliases().get(CHAMPION)
        return self._registered(number) if number else None

    @translated
    def replaced_by(self, version: str) -> str | None:
        """The version that becomes ``previous`` when this one becomes champion."""
        aliases = self.aliases()
        champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
        replaced = previous if champion == version else champion
        return None if replaced == version else replaced

    @translated
    def assign(self, champion: str | None, previous: str | None) -> None:
        """Say which version serves and which did before; a version in use is no challenger.

        Only this changes what serves; ``governance.moves`` records it.
        """
        aliases = self.aliases()
        moves = [(CHAMPION, champion), (PREVIOUS, previous)]
        if previous is not None and previous == aliases.get(CHAMPION):
            moves.reverse()  # or what serves would have no alias for a moment, and workers end it
        for alias, version in moves:
            if version is None and alias in aliases:
                self.client.delete_registered_model_alias(MODEL, alias)
            elif version is not None and aliases.get(alias) != version:
                self.client.set_registered_model_alias(MODEL, alias, version)
        if champion is not None and aliases.get(CHALLENGER) == champion:
            self.client.delete_registered_model_alias(MODEL, CHALLENGER)

    @translated
    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Tag a version and, with its outcome, its run, where MLflow still has that."""
        for name, value in tags.items():
            self.client.set_model_version_tag(MODEL, version, name, value)
        if shown := [RunTag(name, tags[name]) for name in ON_RUN if name in tags]:
            with _unless("RESOURCE_DOES_NOT_EXIST"):
                self.client.log_batch(self._registered(version).run_id, tags=shown)

    @translated
    def load(self, folder: Path) -> Any:
        """Load the files of a model as a server does; ``spira_tasks.package`` checks them first."""
        with self._as_mlflow_default():
            return mlflow.pyfunc.load_model(str(folder))

    def _registered(self, number: str) -> Registered:
        version = self.client.get_model_version(MODEL, number)
        return Registered(
            version=str(version.version),
            run_id=str(version.run_id),
            classifier=version.tags.get(CLASSIFIER, ""),
            aliases=tuple(sorted(version.aliases)),
            tags=dict(version.tags),
        )

    def _run(self, name: str, tag: str, value: str) -> tuple[str, str]:
        """Place and id of the run with this value of a tag; it is made if MLflow has none."""
        experiment = self._experiment()
        query = f"tags.`{tag}` = '{value}'"
        runs = list(self.client.search_runs([experiment], query, max_results=1))
        run = runs[0] if runs else self.client.create_run(experiment, None, {tag: value}, name)
        return f"{experiment}/{run.info.run_id}", str(run.info.run_id)

    def _experiment(self) -> str:
        """Id of the experiment, which is made if MLflow has none.

        Raises
        ------
        ConfigError
            When a person deleted it: until it is deleted for good its name is taken.
        """
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            location = (self._database.parent / "artifacts").as_uri() if self._database else None
            with _unless("RESOURCE_ALREADY_EXISTS"):  # another process was first
                self.client.create_experiment(EXPERIMENT, artifact_location=location)
            found = self.client.get_experiment_by_name(EXPERIMENT)
        if found.lifecycle_stage == "deleted":
            raise ConfigError(
                f"the experiment {EXPERIMENT} was deleted in MLflow at {self._place}. Restore it: "
                f"MLFLOW_TRACKING_URI={self._place} mlflow experiments restore "
                f"--experiment-id {found.experiment_id}; then run the step again"
            )
        self._follow(found)
        return str(found.experiment_id)

    def _follow(self, experiment: Experiment | None) -> None:
        """Let the database name the folder of artifacts beside it, also after both were moved.

        MLflow keeps absolute paths: it would write to where the folder was, and find nothing.
        """
        if self._database is None or experiment is None:
            return
        folder, before = self._database.parent / "artifacts", experiment.artifact_location
        after = folder.as_uri()
        if before == after or not before.startswith("file:"):
            return
        if Path(local_file_uri_to_path(before)).is_dir() and not folder.is_dir():
            return  # only the database was moved
        from sqlalchemy import create_engine, text

        engine = create_engine(self.uri)
        with engine.begin() as connection:
            for table, column in PLACES:
                statement = (
                    f"UPDATE {table} SET {column} = :after || substr({column}, :n + 1) "  # noqa: S608
                    f"WHERE {column} = :before OR substr({column}, 1, :n + 1) = :before || '/'"
                )
                values = {"before": before, "after": after, "n": len(before)}
                connection.execute(text(statement), values)
        engine.dispose()

    @contextlib.contextmanager
    def _as_mlflow_default(self) -> Iterator[None]:
        """Make this server MLflow's default, for the calls that take no address.

        MLflow then also sets its variable of the environment, from which a later ``Tracker`` of
        this process would take its address: the variable is restored.
        """
        variable = "MLFLOW_TRACKING_URI"
        given = os.environ.get(variable)
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        try:
            yield
        finally:
            if given is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = given

    def _named(self, error: Exception) -> SpiraError | None:
        """What an error of MLflow, its database or its artifacts means; None of any other."""
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
        from requests.exceptions import RequestException
        from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError

        cause: Any = error
        if isinstance(error, MlflowException) and isinstance(error.__cause__, SQLAlchemyError):
            cause = error.__cause__
        elif isinstance(error, S3UploadFailedError):
            cause = error.__context__ or error
        kind, status = type(cause).__name__, 0
        if isinstance(cause, MlflowException):
            kind, status = cause.error_code, cause.get_http_status_code()
            if kind == "INTERNAL_ERROR" and self._database:
                status = 400  # no server answered: MLflow here cannot use the database
        elif isinstance(cause, ClientError):
            kind = cause.response["Error"]["Code"]
            status = cause.response["ResponseMetadata"]["HTTPStatusCode"]
        elif isinstance(cause, NoCredentialsError):
            status = 403
        away = (RequestException, BotoCoreError, S3UploadFailedError, OperationalError)
        if (
            (status == 0 and isinstance(cause, (*away, IntegrityError)))
            or status >= 500
            or status in (409, 429, 499)
            or kind == "ENDPOINT_NOT_FOUND"
            or getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        ):
            see = "that it runs and that MLFLOW_TRACKING_URI is right"
            if self._database:  # of a server an error may quote its address with a password
                kind += f": {getattr(cause, 'orig', None) or getattr(cause, 'strerror', '')}"
                see = "that no process keeps the file locked and that the disk has space"
            return ServiceUnavailable(
                f"MLflow at {self._place}, or the place of its artifacts, did not answer ({kind}): "
                f"see {see}, then run the step again"
            )
        for which, advice in (
            ((ClientError, NoCredentialsError), BUCKET),
            (SQLAlchemyError, DATABASE),
            (OSError, "let this user read and write its files"),
            (ImportError, "install that package, or use the address of an MLflow server"),
            (MlflowException, {401: USER, 403: USER, 404: GONE}.get(status, REFUSED)),
        ):
            if isinstance(cause, which):
                said = str(cause).partition("\n")[0][:300].replace(self.uri, self._place)
                return ConfigError(f"MLflow at {self._place} ({kind}): {said}; {advice}")
        return None

    @property
    def _place(self) -> str:
        return self.uri.rpartition("@")[2]  # never a password


@contextlib.contextmanager
def _unless(code: str) -> Iterator[None]:
    """Go on after the one answer of MLflow that is expected here."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != code:
            raise


def _pass_on_s3_keys() -> None:
    """Give MLflow's S3 client the store's keys, in the variables that it reads."""
    names = {
        "AWS_ACCESS_KEY_ID": "SPIRA_S3_ACCESS_KEY",
        "AWS_SECRET_ACCESS_KEY": "SPIRA_S3_SECRET_KEY",
        "AWS_DEFAULT_REGION": "SPIRA_S3_REGION",
        "MLFLOW_S3_ENDPOINT_URL": "SPIRA_S3_ENDPOINT",
    }
    for theirs, ours in names.items():
        if os.environ.get(ours):
            os.environ.setdefault(theirs, os.environ[ours])


def _make_database(file: Path) -> None:
    """Make MLflow's database in a temporary folder, then move it into place.

    Dozens of migrations make the tables, and SQLite does not undo them: a process killed on the way
    would leave a file that MLflow can neither use nor repair.
    """
    if file.exists():
        return
    from mlflow.store.db.utils import _initialize_tables
    from sqlalchemy import create_engine

    file.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="new-", dir=file.parent) as scratch:
        new = Path(scratch) / file.name
        engine = create_engine(f"sqlite:///{new}")
        _initialize_tables(engine)
        engine.dispose()
        with contextlib.suppress(FileExistsError):  # another process was first
            file.hardlink_to(new)


def versions(uri: str) -> list[tuple[Registered, dict[str, str]]]:
    """List the versions of the registered model with their artifacts; create no database."""
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return []
    tracker = Tracker(uri)
    return [(version, tracker.artifacts_of(version)) for version in tracker.versions()]


def write_model(
    folder: Path, classifier: Path, source: Path, example: bytes, requirements: Sequence[str] = ()
) -> None:
    """Write a classifier in the form that MLflow loads.

    ``classifier`` holds weights.safetensors, classifier.json, policy.json and VERSION, ``source``
    is the Python package that loading needs, with the module ``speech.pyfunc``, and ``example`` an
    audio file.  ``requirements``: of the packages that it needs beside those of all models.
    """
    import pandas as pd

    mlflow.pyfunc.save_model(
        path=str(folder),
        loader_module=f"{source.name}.speech.pyfunc",
        data_path=str(classifier),
        code_paths=[str(source)],
        signature=_signature(),
        input_example=pd.DataFrame({"audio": [example]}),
        pip_requirements=[*_requirements(), *requirements],
    )


def _signature() -> ModelSignature:
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(DataType.binary, "audio", required=False),
                ColSpec(Array(DataType.double), "samples", required=False),
                ColSpec(DataType.long, "sample_rate_hz", required=False),
            ]
        ),
        outputs=Schema(
            [
                ColSpec(DataType.double, "probability", required=False),
                ColSpec(DataType.string, "decision", required=False),
                ColSpec(Array(DataType.string), "record_again"),
                ColSpec(Array(DataType.string), "unusual"),
                ColSpec(Array(DataType.double), "window_scores"),
                ColSpec(DataType.double, "operating_point"),
                ColSpec(DataType.string, "version"),
            ]
        ),
    )


def _requirements() -> list[str]:
    from importlib.metadata import version

    packages = (
        *("numpy", "pandas", "safetensors", "scipy", "soundfile", "soxr"),
        *("torch", "torchaudio"),
    )
    return [f"{package}=={version(package).partition('+')[0]}" for package in packages]
