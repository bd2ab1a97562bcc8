"""What a first start needs, and a later one finds done: secrets, databases, buckets, a user.

    python bootstrap.py secrets /secrets      make the files that are missing
    python bootstrap.py services /secrets     databases and roles in Postgres, buckets in S3
    python bootstrap.py mlflow /secrets       the user that the steps are, in MLflow

Nothing that exists is changed, so every command can be repeated.  To bring your own secrets, put
the files in place before the first start; docs/production.md lists them.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spira_tasks.contract.access import (
    COLLECTED,
    COLLECTION,
    DATA,
    DATABASES,
    GRANTS,
    INTAKE,
    MODELS,
    QUEUE_USERS,
    STEP_ACCESS,
    STORE,
    WORKER,
    Access,
    variables,
)

POSTGRES = os.environ.get("SPIRA_POSTGRES_HOST", "postgres")
S3_ENDPOINT = os.environ.get("SPIRA_S3_ENDPOINT", "http://s3:8333")
S3_REGION = os.environ.get("SPIRA_S3_REGION", "")
MLFLOW = os.environ.get("SPIRA_MLFLOW", "http://mlflow:5000")
WAIT_SECONDS = 120
MOVED = {
    "airflow/admin_password": "airflow_admin/password",
    **{
        f"airflow/{name}": f"steps/{name}"
        for name in ("connections.json", "pseudonym_key", "signing_key", "sealing_key")
    },
}

# Alertmanager's routes hold keys of those who are notified: docs/runbook.md
NOBODY = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"


def make_secrets(folder: Path) -> None:
    """Make each file that is missing; keep every one that is there."""

    def keep(name: str, content: str = "") -> str:
        file = folder / name
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content or secrets.token_urlsafe(32))
            print(f"made {name}")
        _open_to_readers(file)
        return file.read_text().strip()

    _prepare(folder)
    keep("postgres/password")
    passwords = {role: keep(f"bootstrap/{role}_password") for role in DATABASES}

    def uri(role: str, database: str) -> str:
        return f"postgresql+psycopg2://{role}:{passwords[role]}@{POSTGRES}/{database}"

    keep("airflow/database", uri("airflow", "airflow"))
    keep("airflow/fernet_key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    keep("airflow/jwt_secret", secrets.token_urlsafe(64))
    keep("airflow/api_secret_key")
    keep("airflow_admin/password", secrets.token_urlsafe(12))
    redis = keep("redis/password")
    keep("redis/redis.conf", f'requirepass {redis}\nsave ""\nappendonly no\ndir /tmp\n')
    keep("airflow/broker_url", f"redis://:{redis}@redis:6379/0")
    keep("airflow/result_backend", uri("airflow", "airflow").replace("postgresql", "db+postgresql"))

    admin = keep("mlflow/admin_password", secrets.token_urlsafe(12))
    keep("mlflow/backend_uri", uri("mlflow", "mlflow"))
    keep("mlflow/flask_secret")
    keep(
        "mlflow/basic_auth.ini",
        "[mlflow]\ndefault_permission = READ\n"
        f"database_uri = {uri('mlflow', 'mlflow_auth')}\n"
        f"admin_username = admin\nadmin_password = {admin}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        # Every request carries the password, and its slow hash took most of a registration's time.
        "auth_cache_ttl_seconds = 60\n",
    )

    def keep_all(name: str, wanted: dict[str, Any], listed: str = "") -> dict[str, Any]:
        """Keep a file of JSON, and add the entries that an older version did not make.

        ``listed`` is the field with the list of entries; without it the file is the mapping.
        """

        def text(entries: dict[str, Any]) -> str:
            return json.dumps({listed: list(entries.values())} if listed else entries, indent=1)

        content = json.loads(keep(name, text(wanted)))
        kept = {one["name"]: one for one in content[listed]} if listed else content
        if wanted.keys() - kept.keys():
            new = (folder / name).with_suffix(".new")
            new.write_text(text(wanted | kept))
            _open_to_readers(new)
            new.replace(folder / name)  # a server that reads it now reads a whole file
            print(f"added to {name}: restart what mounts it")
        return wanted | kept

    identities = keep_all("s3/identities.json", _identities(), "identities")
    keys = {name: one["credentials"][0] for name, one in identities.items()}
    keep("mlflow/s3.json", json.dumps(keys["mlflow"]))
    wanted = _connections(keys, passwords["services"], keep)
    connections = keep_all("steps/connections.json", wanted)
    keep_all("pages/connections.json", {"spira_s3": connections["spira_s3"]})
    keep("nats/users.conf", _users_of_the_queue(keep))
    # The server stores no result: it gets no key of the steps' seals.
    server = _environment(COLLECTION, connections, keys)
    del server["SPIRA_SEALING_KEY"]
    monitoring = _keep_monitoring(keep)
    keep_all("collection/environment.json", server | monitoring)
    worker = _environment(WORKER, connections, keys)
    keep_all("worker/environment.json", worker | monitoring)
    for file in folder.glob("tls/*.pem"):  # a person brought them; the proxy is another user
        _open_to_readers(file)


def _keep_monitoring(keep: Callable[..., str]) -> dict[str, str]:
    """The account of Prometheus and Alertmanager; return what lets them read metrics."""
    with warnings.catch_warnings(action="ignore"):  # Python 3.13 has no crypt; ours is 3.11
        import crypt
    salt = crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=1024)  # noqa: S324  (bcrypt)
    hashed = crypt.crypt(keep("prometheus/password"), salt)
    account = keep("prometheus/web.yaml", f"basic_auth_users: {{admin: {hashed}}}\n")
    keep("alertmanager/web.yaml", account + "\n")
    keep("alertmanager/alertmanager.yaml", NOBODY)
    return {"SPIRA_METRICS_TOKEN": keep("prometheus/token")}


def _prepare(folder: Path) -> None:
    """Make and close the folder, and move the files of a version before 0.3."""
    folder.mkdir(parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o777 != 0o700:
        folder.chmod(0o700)
    for old, new in MOVED.items():
        if (folder / old).exists() and not (folder / new).exists():
            (folder / new).parent.mkdir(exist_ok=True)
            (folder / old).rename(folder / new)
            print(f"moved {old} to {new}")


def _open_to_readers(file: Path) -> None:
    """Let containers of several users read a file; the folder above is closed."""
    if file.stat().st_mode & 0o777 != 0o444:
        file.chmod(0o444)


def _users_of_the_queue(keep: Any) -> str:
    """What each user may publish to, and the answers that it gets."""
    users = []
    for user, subjects in QUEUE_USERS.items():
        kept = keep(f"queue_{user}/credentials", f"{user}:{secrets.token_urlsafe(32)}")
        may = {"publish": list(subjects), "subscribe": ["_INBOX.>"]}
        users.append({"user": user, "password": kept.partition(":")[2], "permissions": may})
    return f"authorization {json.dumps({'users': users}, indent=1)}\n"


def _identities() -> dict[str, Any]:
    """Users of the S3 service by name, in the notation of SeaweedFS."""
    words = {"r": ("Read", "List"), "rw": ("Read", "List", "Write", "Tagging")}

    def one(name: str, actions: list[str]) -> dict[str, Any]:
        key = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_urlsafe(32)}
        return {"name": name, "credentials": [key], "actions": actions}

    everything = ["Admin", "Read", "List", "Write", "Tagging"]
    users = {"admin": one("admin", everything)}
    for name, buckets in GRANTS.items():
        actions = [f"{word}:{bucket}" for bucket, how in buckets.items() for word in words[how]]
        users[name] = one(name, actions)
    return users


def _environment(
    access: Access, connections: dict[str, Any], keys: dict[str, Any]
) -> dict[str, str]:
    """The variables of a server, from the connections and its own key of S3."""
    key = keys[access.s3_user]
    own = {"login": key["accessKey"], "password": key["secretKey"]}
    given = {**connections, f"spira_s3_{access.s3_user}": connections["spira_s3"] | own}

    def fields(name: str) -> dict[str, Any] | None:
        found = given.get(name)
        return {**found.get("extra", {}), **found} if found else None

    return variables(access, fields)


def _connections(keys: dict[str, Any], services_password: str, keep: Any) -> dict[str, Any]:
    """Airflow's connections, as ``spira_tasks.contract.access`` describes them."""

    def other(**fields: Any) -> dict[str, Any]:
        return {"conn_type": "generic", **fields}

    def s3(name: str) -> dict[str, Any]:
        login, password = keys[name]["accessKey"], keys[name]["secretKey"]
        return other(host=S3_ENDPOINT, login=login, password=password, extra={"region": S3_REGION})

    users = {access.s3_user for access in (*STEP_ACCESS.values(), INTAKE)}
    return {
        **{f"spira_s3_{user}": s3(user) for user in sorted(users)},
        "spira_s3": s3("airflow"),
        "spira_mlflow": other(
            host=MLFLOW, login="steps", password=keep("bootstrap/mlflow_steps_password")
        ),
        "spira_pseudonyms": other(password=keep("steps/pseudonym_key")),
        "spira_signing": other(password=keep("steps/signing_key", secrets.token_hex(32))),
        "spira_sealing": other(password=keep("steps/sealing_key", secrets.token_hex(32))),
        "spira_services": other(
            host=f"postgresql+psycopg2://services@{POSTGRES}/services",
            password=services_password,
            extra={"audio": f"s3://{COLLECTED}/audio"},
        ),
        "spira_linkage": other(
            password=keep(
                "steps/linkage_key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
            )
        ),
    }


def make_services(folder: Path) -> None:
    _waiting("Postgres", lambda: _make_databases(folder))
    _waiting("S3", lambda: _make_buckets(folder))


def _make_databases(folder: Path) -> None:
    import psycopg2
    from psycopg2 import sql

    connection = psycopg2.connect(
        host=POSTGRES,
        user=os.environ.get("POSTGRES_USER", "postgres"),
        password=(folder / "postgres/password").read_text().strip(),
        dbname="postgres",
        connect_timeout=5,
    )
    connection.autocommit = True  # CREATE DATABASE cannot be part of a transaction
    with connection.cursor() as cursor:
        for role, databases in DATABASES.items():
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
            if cursor.fetchone() is None:
                password = (folder / f"bootstrap/{role}_password").read_text().strip()
                statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD %s").format(sql.Identifier(role))
                cursor.execute(statement, (password,))
                print(f"made role {role}")
            for database in databases:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,))
                if cursor.fetchone() is None:
                    names = sql.Identifier(database), sql.Identifier(role)
                    cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*names))
                    cursor.execute(
                        sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(names[0])
                    )
                    print(f"made database {database}")
    connection.close()


def _make_buckets(folder: Path) -> None:
    from spira_tasks.s3_client import Service

    client = Service.of_user("admin", folder / "s3/identities.json").client()
    for bucket in (STORE, DATA, MODELS, COLLECTED):
        if not client.bucket_exists(bucket):
            client.make_bucket(bucket)
            print(f"made bucket {bucket}")
        if os.environ.get("SPIRA_S3_GRANTS") == "policy":
            client.set_bucket_policy(bucket, json.dumps(_policy(bucket)))


def _policy(bucket: str) -> dict[str, Any]:
    """The grants on a bucket as its policy, for a service whose users have no rights."""
    reading = ["s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation"]
    writing = [*reading, "s3:PutObject", "s3:DeleteObject", "s3:ListBucketMultipartUploads"]
    writing += ["s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": [f"arn:aws:iam:::user/{name}"]},
                "Action": writing if buckets[bucket] == "rw" else reading,
                "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
            }
            # An object belongs to its writer: even the bucket's owner needs a grant.
            for name, buckets in {**GRANTS, "admin": {bucket: "rw"}}.items()
            if bucket in buckets
        ],
    }


def make_mlflow_user(folder: Path) -> None:
    """Make MLflow's user ``steps``: it reads what others made and owns what it makes."""
    import requests

    admin = (folder / "mlflow/admin_password").read_bytes().strip()
    steps = (folder / "bootstrap/mlflow_steps_password").read_text().strip()
    answer = requests.post(
        f"{MLFLOW}/api/2.0/mlflow/users/create",
        json={"username": "steps", "password": steps},
        auth=requests.auth.HTTPBasicAuth(b"admin", admin),  # text would be sent in Latin-1
        timeout=30,
    )
    if answer.ok:
        print("made MLflow user steps")
    elif "RESOURCE_ALREADY_EXISTS" not in answer.text:
        sys.exit(f"MLflow refused to make the user steps: {answer.status_code} {answer.text}")


def _waiting(service: str, work: Any) -> None:
    """Do ``work`` once the service answers; give up after WAIT_SECONDS, with the reason."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return work()
        except Exception as error:
            if time.monotonic() > deadline:
                sys.exit(f"{service} is not ready after {WAIT_SECONDS} s: {error}")
            print(f"waiting for {service} ({type(error).__name__})", flush=True)
            time.sleep(2)


COMMANDS = {"secrets": make_secrets, "services": make_services, "mlflow": make_mlflow_user}

if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    try:
        COMMANDS[sys.argv[1]](Path(sys.argv[2]))
    except PermissionError as error:
        sys.exit(
            f"{error.filename} has another owner, and this container cannot change it: the "
            "folder of the secrets and all in it must belong to root (sudo chown -R root secrets)"
        )
