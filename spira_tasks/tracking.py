"""The one module that talks to MLflow: live metrics, the model registry and its aliases.

MLflow shows and serves; the facts are in the store, and whatever is here can be made again from
them.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# MLflow's own default is minutes of silence; who runs us tries again, and says so meanwhile.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

import mlflow
from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from spira_tasks.errors import ConfigError, ServiceUnavailable
from spira_tasks.tracking_setup import make_database, pass_on_s3_keys

logging.getLogger("mlflow").setLevel(logging.WARNING)  # it logs every table it makes
logging.getLogger("alembic").setLevel(logging.WARNING)

EXPERIMENT = "spira_continuous_training"
MODEL = "spira"
CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True)
class Registered:
    """A version of the registered model, as the project sees it."""

    version: str
    run_id: str  # of the MLflow run that it belongs to
    classifier: str  # digest of its artifact in the store
    aliases: tuple[str, ...]
    tags: Mapping[str, str]

    @property
    def was_champion(self) -> bool:
        """Whether it ever served; versions of before the tag tell it by their outcome."""
        tagged = self.tags.get("spira.was_champion") == "true"
        return tagged or self.tags.get("spira.outcome") == "promoted"

    @property
    def contains_erased(self) -> bool:
        return self.tags.get("spira.contains_erased") == "true"


class Tracker:
    """An MLflow server, or an SQLite file with a folder of artifacts beside it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        pass_on_s3_keys()
        if uri.startswith("sqlite:///"):
            make_database(Path(uri.removeprefix("sqlite:///")))
        with self._reaching():
            self.client = mlflow.MlflowClient(uri, uri)
            experiment = self.client.get_experiment_by_name(EXPERIMENT)
            self.experiment_id = (
                experiment.experiment_id if experiment else self._create_experiment()
            )

    def log_epoch(self, key: str, name: str, number: int, metrics: Mapping[str, float]) -> str:
        """Show the numbers of one epoch of the training with this key; return the run's place."""
        with self._reaching():
            run_id = self._find_run("spira.key", key) or self._create_run(name, {"spira.key": key})
            batch = [Metric(metric, value, 0, number) for metric, value in metrics.items()]
            self.client.log_batch(run_id, metrics=batch)
        return self.place(run_id)

    def place(self, run_id: str) -> str:
        """``"<experiment>/<run>"``, by which MLflow's page finds a run."""
        return f"{self.experiment_id}/{run_id}"

    def finish(self, key: str, outputs: Mapping[str, str]) -> None:
        """Close the run of a training, and tie it to what came out of it."""
        with self._reaching():
            run_id = self._find_run("spira.key", key)
            if run_id is not None:
                tags = [RunTag(f"spira.output.{name}", value) for name, value in outputs.items()]
                self.client.log_batch(run_id, tags=tags)
                self.client.set_terminated(run_id, RunStatus.to_string(RunStatus.FINISHED))

    def run_of(self, model: str, name: str) -> str:
        """The run that trained the model with this digest; made anew if MLflow has lost it."""
        with self._reaching():
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
        """Log what is known of a model besides the model itself.  A second time changes nothing."""
        with self._reaching():
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
        """The version made from the classifier with this digest."""
        with self._reaching():
            matching = [v for v in self._search() if v.tags.get("spira.classifier") == classifier]
            return self._registered(matching[0]) if matching else None

    def versions(self) -> list[Registered]:
        """Every version of the registered model, the oldest first."""
        with self._reaching():
            found = [self._registered(version) for version in self._search()]
        return sorted(found, key=lambda version: int(version.version))

    def artifacts_of(self, version: Registered) -> dict[str, str]:
        """What a version was made from: ``recordings``, ``model``, ``classifier`` and ``report``.

        Names of artifacts to their digests in the store.
        """
        with self._reaching():
            try:
                tags = self.client.get_run(version.run_id).data.tags
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                tags = {}  # MLflow has lost the run: the store's records tell it too
        found = {
            name.rpartition(".")[2]: value
            for name, value in tags.items()
            if name == "spira.recordings" or name.startswith("spira.output.")
        }
        return found | {"classifier": version.classifier}

    def register(
        self, run_id: str, folder: Path, source: Path, tags: Mapping[str, str]
    ) -> Registered:
        """Log the classifier in ``folder`` with the ``source`` it needs; make it the challenger.

        Parameters
        ----------
        run_id : str
        folder : Path
            weights.safetensors and classifier.json.
        source : Path
            Folder of the Python package that loading needs, with the module ``pyfunc``.
        tags : mapping of str to str
            ``spira.classifier`` is the digest of the classifier in the store, and identifies it.
        """
        with self._reaching(), self._as_default():
            if not self.client.search_registered_models(f"name='{MODEL}'"):
                self.client.create_registered_model(MODEL)
            with mlflow.start_run(run_id=run_id):
                info = mlflow.pyfunc.log_model(
                    name="classifier",
                    loader_module=f"{source.name}.pyfunc",
                    data_path=str(folder),
                    code_paths=[str(source)],
                    signature=_signature(),
                    pip_requirements=_requirements(),
                )
            version = self.client.create_model_version(
                MODEL, info.model_uri, run_id, tags=dict(tags), model_id=info.model_id
            )
            self.client.set_registered_model_alias(MODEL, CHALLENGER, version.version)
            return self._registered(version)

    def champion(self) -> Registered | None:
        with self._reaching():
            # A server with users refuses whoever asks for the alias of a model that is not there.
            if not self.client.search_registered_models(f"name='{MODEL}'"):
                return None
            try:
                version = self.client.get_model_version_by_alias(MODEL, CHAMPION)
            except MlflowException as error:
                if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                    return None
                raise
            return self._registered(version)

    def promote(self, version: str) -> None:
        """Make a version the champion; this and ``demote`` alone change what serves."""
        with self._reaching():
            self.client.set_registered_model_alias(MODEL, CHAMPION, version)
            self.client.delete_registered_model_alias(MODEL, CHALLENGER)

    def demote(self, instead: str | None) -> None:
        """Take the champion away; put an earlier one in its place, where there is one."""
        with self._reaching():
            if instead is None:
                self.client.delete_registered_model_alias(MODEL, CHAMPION)
            else:
                self.client.set_registered_model_alias(MODEL, CHAMPION, instead)

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        with self._reaching():
            for name, value in tags.items():
                self.client.set_model_version_tag(MODEL, version, name, value)

    def load(self, version: str) -> Any:
        """The model as whoever serves it gets it: ``predict((recording, time) float32 array)``."""
        with self._reaching(), self._as_default():
            return mlflow.pyfunc.load_model(f"models:/{MODEL}/{version}")

    def _search(self) -> list[ModelVersion]:
        try:
            return list(self.client.search_model_versions(f"name='{MODEL}'"))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return []
            raise

    def _registered(self, version: ModelVersion) -> Registered:
        version = self.client.get_model_version(MODEL, version.version)
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
    def _as_default(self) -> Iterator[None]:
        """Make this place MLflow's own default, for the calls that know no other.

        Setting it also sets a variable of the environment, from which every later store of this
        process would take its address: that is undone.
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
    def _reaching(self) -> Iterator[None]:
        """Turn the words of MLflow and of its S3 client into ours."""
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


def versions(uri: str) -> list[tuple[Registered, dict[str, str]]]:
    """Every version of the registered model with what it was made from; makes no database."""
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return []
    tracker = Tracker(uri)
    return [(version, tracker.artifacts_of(version)) for version in tracker.versions()]


def _signature() -> ModelSignature:
    import numpy as np

    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1))]),
        outputs=Schema(
            [
                ColSpec(DataType.double, "probability"),
                ColSpec(DataType.double, "operating_point"),
                ColSpec(DataType.boolean, "positive"),
            ]
        ),
    )


def _requirements() -> list[str]:
    from importlib.metadata import version

    packages = ("numpy", "pandas", "safetensors", "torch", "torchaudio")
    return [f"{package}=={version(package).partition('+')[0]}" for package in packages]
