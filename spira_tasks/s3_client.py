"""The client of an S3 service: the one place that configures ``minio.Minio``.

The store, Airflow's plugins, the bootstrap and the programs that ``scripts/`` runs in containers
use it.  It imports ``minio`` and ``urllib3`` only, so that Airflow's image can hold it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi
import urllib3
from minio import Minio

RETRIED_STATUS = (500, 502, 503, 504)
N_CONNECTIONS = 32


class _Pool(urllib3.PoolManager):
    """Connections that send the MD5 of every body with it, as ``minio`` does over https only.

    A writer may be killed between the header and the body of a request.  SeaweedFS 4.48 keeps an
    empty object then, and refuses the request where it can compare the body with its MD5.
    """

    def urlopen(self, method: str, url: str, redirect: bool = True, **options: Any) -> Any:  # type: ignore[override]
        if body := options.get("body"):
            md5 = hashlib.md5(body, usedforsecurity=False).digest()
            headers = urllib3.HTTPHeaderDict(options.get("headers"))
            headers["Content-MD5"] = base64.b64encode(md5).decode()
            options["headers"] = headers
        return super().urlopen(method, url, redirect, **options)


@dataclass(frozen=True)
class Service:
    """Where an S3 service is, and the keys for it; without keys, requests are anonymous."""

    endpoint: str
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    region: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Service:
        """Read SPIRA_S3_ENDPOINT, SPIRA_S3_ACCESS_KEY, SPIRA_S3_SECRET_KEY and SPIRA_S3_REGION.

        Raises
        ------
        ValueError
            Names the variables that are missing or wrong, never a value.
        """
        values = os.environ if environment is None else environment
        names = ("SPIRA_S3_ENDPOINT", "SPIRA_S3_ACCESS_KEY", "SPIRA_S3_SECRET_KEY")
        missing = [name for name in names if not values.get(name)]
        if missing:
            raise ValueError(f"s3:// needs {' and '.join(missing)} in the environment; set them")
        endpoint, access_key, secret_key = (values[name] for name in names)
        parts = urlsplit(endpoint.rstrip("/"))
        if parts.scheme not in ("http", "https") or parts.path or "@" in parts.netloc:
            raise ValueError("SPIRA_S3_ENDPOINT must look like https://host:port, without a path")
        return cls(parts.geturl(), access_key, secret_key, values.get("SPIRA_S3_REGION") or None)

    @classmethod
    def of_user(cls, user: str, identities: Path) -> Service:
        """The service of the environment, with the keys that a user has in ``identities.json``."""
        users = json.loads(identities.read_text())["identities"]
        key = next(one for one in users if one["name"] == user)["credentials"][0]
        own = {"SPIRA_S3_ACCESS_KEY": key["accessKey"], "SPIRA_S3_SECRET_KEY": key["secretKey"]}
        return cls.from_environment({**os.environ, **own})

    def client(
        self,
        *,
        connect_seconds: float = 5.0,
        read_seconds: float = 30.0,
        n_retries: int = 3,
        backoff_seconds: float = 0.2,
    ) -> Minio:
        """A client with connections of its own; a process must not use its parent's."""
        endpoint = urlsplit(self.endpoint)
        retries = urllib3.Retry(
            n_retries, backoff_factor=backoff_seconds, status_forcelist=RETRIED_STATUS
        )
        pool = _Pool(
            maxsize=N_CONNECTIONS,
            timeout=urllib3.Timeout(connect=connect_seconds, read=read_seconds),
            retries=retries if n_retries else False,
            cert_reqs="CERT_REQUIRED",
            ca_certs=os.environ.get("SSL_CERT_FILE") or certifi.where(),
        )
        return Minio(
            endpoint.netloc,
            self.access_key,
            self.secret_key,
            secure=endpoint.scheme == "https",
            region=self.region,
            http_client=pool,
        )
