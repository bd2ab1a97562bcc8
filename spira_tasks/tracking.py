"""MLflow behind one module: metrics of a training, the model registry and its aliases.

MLflow shows and serves models.  The facts are in the store, and MLflow's copy can be rebuilt from
them.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# MLflow's own default is to be silent for minutes; Airflow retries the step, and logs it.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

import mlflow
from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from spira_tasks.errors import ConfigError, ServiceUnavailable

logging.getLogger("mlflow").setLevel(logging.WARNING)  # it logs every table it makes
logging.getLogger("alembic").setLevel(logging.WARNING)

EXPERIMENT = "spira_continuous_training"
MODEL = "spira"
CHAMPION, CHALLENGER = "champion", "challenger"
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
        """Whether it ever served; versions older than the tag have it in their outcome."""
        tagged = self.tags.get("spira.was_champion") == "true"
        return tagged or self.tags.get("spira.outcome") == "promoted"

    @property
    def contains_erased(self) -> bool:
        return self.tags.get("spira.contains_erased") == "true"


class Tracker:
    """An MLflow server, or an SQLite file with a folder of artifacts beside it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        _pass_on_s3_keys()
        if uri.startswith("sqlite:///"):
            _make_database(Path(uri.removeprefix("sqlite:///")))
        with self._translating():
            self.client = mlflow.MlflowClient(uri, uri)
            experiment = self.client.get_experiment_by_name(EXPERIMENT)
            self.experiment_id = (
                experiment.experiment_id if experiment else self._create_experiment()
            )

    def log_epoch(self, key: str, name: str, number: int, metrics: Mapping[str, float]) -> str:
        """Log the metrics of one epoch of the training with this key; return the run's place."""
        with self._translating():
            run_id = self._find_run("spira.key", key) or self._create_run(name, {"spira.key": key})
            batch = [Metric(metric, value, 0, number) for metric, value in metrics.items()]
            self.client.log_batch(run_id, metrics=batch)
        return self.place(run_id)

    def place(self, run_id: str) -> str:
        """Return ``"<experiment>/<run>"``, by which MLflow's page finds a run."""
        return f"{self.experiment_id}/{run_id}"

    def finish(self, key: str, outputs: Mapping[str, str]) -> None:
        """Close the run of a training, and tag it with the digests of its outputs."""
        with self._translating():
            run_id = self._find_run("spira.key", key)
            if run_id is not None:
                tags = [RunTag(f"spira.output.{name}", value) for name, value in outputs.items()]
                self.client.log_batch(run_id, tags=tags)
                self.client.set_terminated(run_id, RunStatus.to_string(RunStatus.FINISHED))

    def run_of(self, model: str, name: str) -> str:
        """Return the run that trained the model with this digest; make one if MLflow has none."""
        with self._translating():
            return self._find_run("spira.output.model", model) or self._create_run(
                name, {"spira.output.model": model}
            )

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
        with self._translating():
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
            self.client.set_terminated(run_id, RunStatus.to_string(RunStatus.FINISHED))

    def find_version(self, classifier: str) -> Registered | None:
        """Return the version made from the classifier with this digest."""
        with self._translating():
            matching = [v for v in self._search() if v.tags.get("spira.classifier") == classifier]
            return self._registered(matching[0].version) if matching else None

    def versions(self) -> list[Registered]:
        """List the versions of the registered model, the oldest first."""
        with self._translating():
            found = [self._registered(version.version) for version in self._search()]
        return sorted(found, key=lambda version: int(version.version))

    def artifacts_of(self, version: Registered) -> dict[str, str]:
        """Map recordings, model, classifier, report and package to the digests behind a version."""
        with self._translating():
            try:
                tags = self.client.get_run(version.run_id).data.tags
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                tags = {}  # MLflow has lost the run; the store's records have it
        found = {
            name.rpartition(".")[2]: value
            for name, value in tags.items()
            if name == "spira.recordings" or name.startswith("spira.output.")
        }
        found["classifier"] = version.classifier
        if "spira.package" in version.tags:  # the files that MLflow has, in the store
            found["package"] = version.tags["spira.package"]
        return found

    def register(self, run_id: str, folder: Path, tags: Mapping[str, str]) -> Registered:
        """Hand the files of a model to MLflow, and make it the challenger; the version comes last.

        ``folder`` is what ``write_model`` made.  The tag ``spira.classifier``, the digest of the
        classifier in the store, identifies it.
        """
        with self._translating(), self._as_mlflow_default():
            if not self.client.search_registered_models(f"name='{MODEL}'"):
                self.client.create_registered_model(MODEL)
            model = self.client.create_logged_model(
                self.experiment_id, name="classifier", source_run_id=run_id
            )
            self.client.log_model_artifacts(model.model_id, str(folder))
            model = self.client.finalize_logged_model(model.model_id, "READY")
            version = self.client.create_model_version(
                MODEL, model.model_uri, run_id, tags=dict(tags), model_id=model.model_id
            )
            self.client.set_registered_model_alias(MODEL, CHALLENGER, version.version)
            return self._registered(version.version)

    def download(self, version: Registered, folder: Path) -> Path:
        """Copy the files that MLflow has of a version into a folder; load nothing."""
        with self._translating(), self._as_mlflow_default():
            source = self.client.get_model_version_download_uri(MODEL, version.version)
            return Path(mlflow.artifacts.download_artifacts(source, dst_path=str(folder)))

    def champion(self) -> Registered | None:
        with self._translating():
            # Searched: a server with users refuses to look up a model that does not exist.
            models = self.client.search_registered_models(f"name='{MODEL}'")
            version = models[0].aliases.get(CHAMPION) if models else None
            return self._registered(str(version)) if version else None

    def promote(self, version: str) -> None:
        """Make a version the champion; only this and ``demote`` change which model serves."""
        with self._translating():
            self.client.set_registered_model_alias(MODEL, CHAMPION, version)
            self.client.delete_registered_model_alias(MODEL, CHALLENGER)

    def demote(self, instead: str | None) -> None:
        """Remove the champion; an earlier version takes its place if one is given."""
        with self._translating():
            if instead is None:
                self.client.delete_registered_model_alias(MODEL, CHAMPION)
            else:
                self.client.set_registered_model_alias(MODEL, CHAMPION, instead)

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Tag a version and, with its outcome, its run, where MLflow still has that."""
        with self._translating():
            for name, value in tags.items():
                self.client.set_model_version_tag(MODEL, version, name, value)
            shown = [RunTag(name, tags[name]) for name in ON_RUN if name in tags]
            try:
                if shown:
                    self.client.log_batch(self._registered(version).run_id, tags=shown)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise

    def load(self, folder: Path) -> Any:
        """Load the files of a model as a server does; ``spira_tasks.package`` checks them first."""
        with self._translating(), self._as_mlflow_default():
            return mlflow.pyfunc.load_model(str(folder))

    def _search(self) -> list[ModelVersion]:
        try:
            return list(self.client.search_model_versions(f"name='{MODEL}'"))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return []
            raise

    def _registered(self, number: str) -> Registered:
        version = self.client.get_model_version(MODEL, number)
        return Registered(
            version=str(version.version),
            run_id=str(version.run_id),
            classifier=version.tags.get("spira.classifier", ""),
            aliases=tuple(sorted(version.aliases)),
            tags=dict(version.tags),
        )

    def _create_experiment(self) -> str:
        location = None
        if self.uri.startswith("sqlite:///"):
            location = (Path(self.uri.removeprefix("sqlite:///")).parent / "artifacts").as_uri()
        return str(self.client.create_experiment(EXPERIMENT, artifact_location=location))

    def _create_run(self, name: str, tags: Mapping[str, str]) -> str:
        run = self.client.create_run(self.experiment_id, run_name=name, tags=dict(tags))
        return str(run.info.run_id)

    def _find_run(self, tag: str, value: str) -> str | None:
        runs = self.client.search_runs(
            [self.experiment_id], f"tags.`{tag}` = '{value}'", max_results=1
        )
        return str(runs[0].info.run_id) if runs else None

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

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        """Translate errors of MLflow and of its S3 client."""
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
        from requests.exceptions import RequestException
        from sqlalchemy.exc import OperationalError

        try:
            yield
        except (NoCredentialsError, ClientError) as error:
            raise ConfigError(
                f"S3 refused MLflow's artifacts ({type(error).__name__}): SPIRA_S3_ACCESS_KEY and "
                "SPIRA_S3_SECRET_KEY must open the bucket of MLflow's artifacts too"
            ) from error
        except (RequestException, OperationalError, BotoCoreError, S3UploadFailedError) as error:
            raise self._unavailable(error) from error
        except MlflowException as error:
            if error.error_code in {"PERMISSION_DENIED", "UNAUTHENTICATED"}:
                raise ConfigError(
                    f"MLflow at {self._place} refused ({error.error_code}): check "
                    "MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD and what that user may do"
                ) from error
            if error.error_code == "INTERNAL_ERROR" or "API request" in str(error):
                raise self._unavailable(error) from error
            raise

    @property
    def _place(self) -> str:
        return self.uri.rpartition("@")[2]  # never a password

    def _unavailable(self, error: Exception) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"MLflow at {self._place}, or the place of its artifacts, did not answer "
            f"({type(error).__name__}): see that it runs and that MLFLOW_TRACKING_URI is right, "
            "then run the step again"
        )


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


def write_model(folder: Path, classifier: Path, source: Path) -> None:
    """Write a classifier in the form that MLflow loads.

    ``classifier`` holds weights.safetensors and classifier.json, ``source`` is the Python package
    that loading needs, with the module ``pyfunc``.
    """
    mlflow.pyfunc.save_model(
        path=str(folder),
        loader_module=f"{source.name}.pyfunc",
        data_path=str(classifier),
        code_paths=[str(source)],
        signature=_signature(),
        pip_requirements=_requirements(),
    )


def _signature() -> ModelSignature:
    import numpy as np

    outputs = [ColSpec(DataType.double, name) for name in ("probability", "operating_point")]
    outputs.append(ColSpec(DataType.boolean, "positive"))
    waveforms = TensorSpec(np.dtype(np.float32), (-1, -1))
    return ModelSignature(inputs=Schema([waveforms]), outputs=Schema(outputs))


def _requirements() -> list[str]:
    from importlib.metadata import version

    packages = ("numpy", "pandas", "safetensors", "torch", "torchaudio")
    return [f"{package}=={version(package).partition('+')[0]}" for package in packages]
