"""Who gets which key: the one table for the plugins, the bootstrap, the doctor and the tests.

A step names its access (``Resources.access``).  The access names a user of the S3 service, and the
other services whose keys the step gets.  Airflow keeps the keys as connections: ``spira_s3_<user>``
for each user of S3, ``spira_s3`` where one of these is missing and for Airflow itself, which reads
the store, and ``spira_<service>`` for each other service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

STORE, DATA, MODELS = "spira-store", "spira-data", "spira-mlflow"  # buckets
COLLECTED = "spira-collected"  # bucket of the audio as devices sent it

# User of the S3 service: what it may do with which bucket, read ("r") or read and write ("rw").
GRANTS: Mapping[str, Mapping[str, str]] = {
    "store": {STORE: "rw"},
    "data": {STORE: "rw", DATA: "r"},
    "models": {STORE: "rw", MODELS: "rw"},
    "airflow": {STORE: "r"},
    "mlflow": {MODELS: "r"},
    "intake": {DATA: "rw"},
    "collection": {COLLECTED: "rw"},
    "worker": {STORE: "r", MODELS: "r", COLLECTED: "r"},
    "services": {STORE: "rw", DATA: "rw", COLLECTED: "rw"},
    "backup": {STORE: "rw", MODELS: "rw", COLLECTED: "rw"},
}

# Role of Postgres: the databases that it owns.
DATABASES: Mapping[str, tuple[str, ...]] = {
    "airflow": ("airflow",),
    "mlflow": ("mlflow", "mlflow_auth"),
    "services": ("services",),
}

# User of the queue: the subjects to which it may publish; those of JetStream's interface are acts.
QUEUE = "spira-serving"  # stream of work; the other is that of dead letters
_EVERY_USER = (  # puts, shows what waits, replays what is dead
    f"{QUEUE}.*",
    *(f"$JS.API.STREAM.{act}.{QUEUE}" for act in ("CREATE", "INFO", "MSG.GET")),
    *(f"$JS.API.STREAM.{act}.{QUEUE}-dead" for act in ("CREATE", "INFO", "MSG.GET", "MSG.DELETE")),
    f"$JS.API.CONSUMER.INFO.{QUEUE}.workers",
)
QUEUE_USERS: Mapping[str, tuple[str, ...]] = {
    "api": _EVERY_USER,
    "worker": (  # takes and buries
        *_EVERY_USER,
        *(f"$JS.API.CONSUMER.{act}.{QUEUE}.workers" for act in ("DURABLE.CREATE", "MSG.NEXT")),
        f"$JS.ACK.{QUEUE}.workers.>",
        f"{QUEUE}-dead.*",
    ),
}

# Service: a field of its connection, or of the connection's extra, and the variable that holds it.
# ``map`` is the file of the engine's host that a rotation of the pseudonyms' key left (ADR 15).
CONNECTIONS: Mapping[str, Mapping[str, str]] = {
    "s3": {
        "host": "SPIRA_S3_ENDPOINT",
        "login": "SPIRA_S3_ACCESS_KEY",
        "password": "SPIRA_S3_SECRET_KEY",
        "region": "SPIRA_S3_REGION",
    },
    "mlflow": {
        "host": "MLFLOW_TRACKING_URI",
        "login": "MLFLOW_TRACKING_USERNAME",
        "password": "MLFLOW_TRACKING_PASSWORD",
    },
    "pseudonyms": {"password": "SPIRA_PSEUDONYM_KEY", "map": "SPIRA_PSEUDONYM_MAP"},
    "signing": {"password": "SPIRA_SIGNING_KEY"},
    "sealing": {"password": "SPIRA_SEALING_KEY"},
    "services": {
        "host": "SPIRA_SERVICES_DATABASE",  # without the password, which the driver reads itself
        "password": "PGPASSWORD",
        "audio": "SPIRA_COLLECTION_AUDIO",
    },
    "linkage": {"password": "SPIRA_LINKAGE_KEY"},
}
EVERYWHERE = ("s3", "sealing")  # services whose keys every step gets
REQUIRED = ("SPIRA_S3_ENDPOINT", "SPIRA_S3_ACCESS_KEY", "SPIRA_S3_SECRET_KEY")

TRAINING = "spira_continuous_training"
MODEL_DECISION, DATA_DECISION = "spira_model_decision", "spira_data_decision"
# DAG to the roles of Airflow whose users may start, change or stop it; other DAGs are as Airflow
# has it.  A user has one of these roles besides the role that may act on DAGs at all.
RESERVED: Mapping[str, tuple[str, ...]] = {
    "spira_erasure": ("Admin", "Governance"),
    "spira_rollback": ("Admin", "Governance"),
    MODEL_DECISION: ("Admin", "Clinician"),
    DATA_DECISION: ("Admin", "Steward"),
}
# The same for one kind of thing of a DAG, as Airflow calls it: whom a run asks, and where the
# answer is on its way.
RESERVED_PARTS: Mapping[tuple[str, str], tuple[str, ...]] = {
    (TRAINING, "HITL_DETAIL"): ("Admin", "Clinician"),
    (TRAINING, "XCOM"): ("Admin",),
}

# Files under secrets/ that the servers read, by the folder that each server mounts.
SECRET_FILES: Mapping[str, tuple[str, ...]] = {
    "postgres": ("password",),
    "airflow": ("database", "fernet_key", "jwt_secret", "api_secret_key"),
    "airflow_admin": ("password",),  # once, to make the user
    "steps": ("connections.json",),  # what runs and follows steps: scheduler, workers, command line
    "pages": ("connections.json",),  # API server, DAG processor: the store, to read
    "mlflow": ("backend_uri", "basic_auth.ini", "flask_secret", "s3.json"),
    "s3": ("identities.json",),
    "collection": ("environment.json",),
    "prometheus": ("token", "password", "web.yaml"),
    "alertmanager": ("alertmanager.yaml", "web.yaml"),
    "worker": ("environment.json",),
    "nats": ("users.conf",),
    "queue_api": ("credentials",),  # of SPIRA_QUEUE_CREDENTIALS
    "queue_worker": ("credentials",),
}


@dataclass(frozen=True)
class Access:
    """The user of S3, and the services besides ``EVERYWHERE``, whose keys a step or person gets."""

    s3_user: str
    services: tuple[str, ...] = ()

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of all variables that may be set."""
        return tuple(
            name
            for service in (*EVERYWHERE, *self.services)
            for name in CONNECTIONS[service].values()
        )


STEP_ACCESS: Mapping[str, Access] = {
    "store": Access("store"),
    "data": Access("data", ("pseudonyms",)),
    "models": Access("models", ("mlflow",)),
    "governance": Access("models", ("mlflow", "signing")),
    "services": Access("services", ("services", "pseudonyms", "linkage")),
}
COMMAND_LINE = Access("models", ("mlflow", "pseudonyms", "signing"))  # a person on the host
COLLECTION = Access("collection", ("services", "pseudonyms", "linkage"))  # the server
WORKER = Access("worker", ("services", "mlflow"))  # of inferences
INTAKE = Access("intake")  # the same person, who puts recordings into the bucket


def may_act_on(dag_id: str | None, method: str, roles: Iterable[str], part: str = "") -> bool:
    """Whether a user with these roles may send Airflow this HTTP method about a DAG, or about all.

    ``part`` is the kind of thing of the DAG, if any.  Reading is not restricted here.
    """
    reserved = RESERVED_PARTS.get((dag_id or "", part)) or RESERVED.get(dag_id or "")
    return reserved is None or method == "GET" or not set(reserved).isdisjoint(roles)


def variables(
    access: Access, connection: Callable[[str], Mapping[str, Any] | None]
) -> dict[str, str]:
    """The environment by which a step or a person with this access reaches the services.

    ``connection`` returns the fields of Airflow's connection of a name, those of its extra
    included; None where there is none, as may be for services other than S3.  Raises LookupError,
    which says what to do, when there is none for S3.
    """
    found: dict[str, str] = {}
    for service in (*EVERYWHERE, *access.services):
        fields = connection(f"spira_s3_{access.s3_user}") if service == "s3" else None
        fields = fields or connection(f"spira_{service}")
        if fields is None and service == "s3":
            raise LookupError(
                "there is no Airflow connection spira_s3: add it (Admin, Connections), with the URL"
                " of the S3 service as host and its keys as login and password"
            )
        for field, name in CONNECTIONS[service].items():
            if value := (fields or {}).get(field):
                found[name] = str(value)
    return found


def secrets(environment: Mapping[str, str]) -> list[str]:
    """The values of an environment that logs must not show."""
    return [v for name, v in environment.items() if name.endswith(("_KEY", "PASSWORD")) and v]
