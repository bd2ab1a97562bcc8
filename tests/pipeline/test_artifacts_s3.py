"""What only a store in a bucket can get wrong: keys, the network, fetched files."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import urllib3
from collecting import Collection, session
from engines import Proxy
from s3_servers import S3Server, client_of

from spira_tasks.artifacts import Store
from spira_tasks.artifacts.s3 import Bucket
from spira_tasks.errors import ConfigError, ServiceUnavailable

ROOT = Path(__file__).parents[2]
SECRETS = ("SPIRA_S3_ACCESS_KEY", "SPIRA_S3_SECRET_KEY")


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIRA_S3_ACCESS_KEY", "an access key")
    monkeypatch.setenv("SPIRA_S3_SECRET_KEY", "a secret key")


def test_the_same_files_have_the_same_digest_in_a_folder_and_in_a_bucket(
    bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "output/deep").mkdir(parents=True)
    (tmp_path / "output/deep/table").write_bytes(b"1,2,3")
    digests = {
        Store(url).put_directory(tmp_path / "output") for url in (str(tmp_path / "store"), bucket)
    }

    assert len(digests) == 1


def test_a_file_larger_than_one_upload_comes_back_whole(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    content = bytes(range(256)) * 50_000  # the client sends more than 5 MiB in parts
    (tmp_path / "output/weights").write_bytes(content)
    store = Store(bucket)

    assert (
        store.directory(store.put_directory(tmp_path / "output")).path("weights").read_bytes()
        == content
    )


FETCHER = """
import multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor
from spira_tasks.artifacts import Store
from spira_tasks.artifacts.s3 import Bucket

if __name__ == "__main__":
    bucket, digest, start_method = sys.argv[1:]
    blobs = Store(bucket).blobs
    context = multiprocessing.get_context(start_method)
    with ProcessPoolExecutor(2, mp_context=context) as workers:
        theirs = str(workers.submit(blobs.path, digest).result())
    ours = blobs.path(digest)
    child = os.fork()
    if child == 0:
        sys.exit()  # takes nothing of its parent's with it
    os.waitpid(child, 0)
    assert ours.read_bytes() == b"content"
    print(theirs, ours, oct(ours.parent.stat().st_mode & 0o777), oct(ours.stat().st_mode & 0o777))
"""


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_fetched_files_are_private_and_gone_when_the_process_or_worker_ends(
    bucket: str, tmp_path: Path, start_method: str
) -> None:
    digest = Store(bucket).blobs.put(b"content")
    (tmp_path / "fetcher.py").write_text(FETCHER)
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, str(tmp_path / "fetcher.py"), bucket, digest, start_method]
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    theirs, ours, folder_mode, file_mode = process.stdout.split()

    assert (folder_mode, file_mode) == ("0o700", "0o444")
    assert Path(theirs).parent != Path(ours).parent
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("variable", SECRETS)
def test_a_wrong_key_is_refused_without_showing_it(
    bucket: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "NOT-THE-RIGHT-ONE")
    with pytest.raises(ConfigError, match=r"refused.*SPIRA_S3_ACCESS_KEY") as raised:
        Store(bucket)

    shown = "".join(traceback.format_exception(raised.value))
    assert not any(os.environ[name] in shown for name in SECRETS)


def test_a_bucket_that_does_not_exist_is_not_created(s3_environment: S3Server) -> None:
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"there is no bucket 'nobody-made-it'.*create it"):
            Store("s3://nobody-made-it/prefix")


def test_a_store_does_not_show_its_keys(bucket: str, s3_environment: S3Server) -> None:
    store = Store(bucket)
    shown = f"{store!r} {vars(store)!r} {vars(store._backend)!r}"

    assert s3_environment.access_key not in shown
    assert s3_environment.secret_key not in shown


@pytest.mark.parametrize("variable", ["SPIRA_S3_ENDPOINT", *SECRETS])
def test_a_missing_variable_is_named(
    keys: None, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("SPIRA_S3_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.delenv(variable)
    with pytest.raises(ConfigError, match=f"needs {variable} in the environment"):
        Store("s3://bucket/prefix")


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:9000", "ftp://host", "http://key:secret@host", "http://host/path"]
)
def test_an_endpoint_that_is_not_one_is_refused_without_repeating_it(
    keys: None, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("SPIRA_S3_ENDPOINT", endpoint)
    with pytest.raises(ConfigError, match="SPIRA_S3_ENDPOINT must look like") as raised:
        Store("s3://bucket/prefix")
    assert endpoint not in str(raised.value)


def test_a_service_that_does_not_answer_is_worth_a_retry(
    keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:  # bound but not listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("SPIRA_S3_ENDPOINT", endpoint)
        with pytest.raises(ServiceUnavailable, match=f"{endpoint} does not answer.*run this again"):
            Store("s3://bucket/prefix")


class Gateway(BaseHTTPRequestHandler):
    """A web server in front of an S3 service that is down (503), or of something else (404)."""

    status = 503

    def do_GET(self) -> None:
        self.send_error(self.status)

    def do_HEAD(self) -> None:
        self.send_error(self.status)

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""


@pytest.fixture
def gateway(keys: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Gateway]]:
    class Here(Gateway):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Here) as server:
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        monkeypatch.setenv("SPIRA_S3_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield Here
        server.shutdown()


def test_a_service_that_fails_is_worth_a_retry(gateway: type[Gateway]) -> None:
    with pytest.raises(ServiceUnavailable, match="SPIRA_S3_ENDPOINT"):
        Store("s3://bucket/prefix")


def test_a_server_that_does_not_speak_s3_is_a_wrong_endpoint(gateway: type[Gateway]) -> None:
    gateway.status = 404
    with pytest.raises(ConfigError, match="not as an S3 service does"):
        Store("s3://bucket/prefix")


def presigned(server: S3Server, bucket: str, method: str) -> str:
    """An address that lets its holder do one thing for a minute."""
    name, _, prefix = bucket.removeprefix("s3://").partition("/")
    there = f"{prefix}/some/object"
    return client_of(server).get_presigned_url(method, name, there, expires=timedelta(minutes=1))


def test_a_signed_address_works_until_it_is_changed(bucket: str, s3_environment: S3Server) -> None:
    put, get = (presigned(s3_environment, bucket, method) for method in ("PUT", "GET"))
    assert urllib3.request("PUT", put, body=b"content").status == 200
    assert urllib3.request("GET", get).data == b"content"
    for changed in (get.replace("some/object", "other/object"), get[:-4] + "beef"):
        assert urllib3.request("GET", changed).status == 403


def test_an_upload_that_breaks_off_leaves_nothing(bucket: str, s3_environment: S3Server) -> None:
    url = urlsplit(presigned(s3_environment, bucket, "PUT"))
    assert url.hostname is not None
    with socket.create_connection((url.hostname, url.port or 80)) as connection:
        head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\n"
        connection.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode() + bytes(500_000))
    get = presigned(s3_environment, bucket, "GET")
    assert urllib3.request("GET", get).status == 404


KILLED_BEFORE_THE_BODY = """
import http.client, os, signal, sys
from spira_tasks.artifacts.s3 import Bucket

def send(self, data, send=http.client.HTTPConnection.send):
    if data == b"content":
        os.kill(os.getpid(), signal.SIGKILL)
    send(self, data)

backend = Bucket(*sys.argv[1].removeprefix("s3://").split("/", 1))
http.client.HTTPConnection.send = send
getattr(backend, sys.argv[2])("some/object", b"content")
"""


@pytest.mark.parametrize("write", ["write", "write_once"])
def test_a_writer_killed_between_head_and_body_leaves_nothing(bucket: str, write: str) -> None:
    command = [sys.executable, "-c", KILLED_BEFORE_THE_BODY, bucket, write]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    time.sleep(0.5)  # the server sees the connection end
    assert Bucket(*bucket.removeprefix("s3://").split("/", 1)).find("some/object") is None


class Cable(Proxy):
    """Between a program and an S3 server; can be cut."""

    def __init__(self, server: S3Server) -> None:
        self.target = urlsplit(server.endpoint)
        super().__init__()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.target.hostname, self.target.port)


def test_while_the_store_does_not_answer_files_and_manifests_of_devices_wait(
    bucket: str, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cable = Cable(s3_server)
    monkeypatch.setenv("SPIRA_S3_ENDPOINT", cable.url.replace("tcp:", "http:"))
    with Collection.at(tmp_path, audio=bucket) as running:
        phone, sent = running.device(), session(45)
        phone.client.timeout = 30
        *others, last = sent.takes.values()
        for content in others:
            assert phone.put(content).json()["complete"] is True
        cable.shut()
        assert phone.put(last).status_code == 503
        cable.reopen()
        assert phone.put(last, offset=len(last)).json()["complete"] is True
        cable.shut()
        refused = phone.commit(sent)
        assert (refused.status_code, refused.json()["error"]) == (503, "try_again")
        assert phone.receipts() == []
        cable.reopen()
        assert [phone.commit(sent).status_code for _ in "12"] == [201, 200]
        assert phone.receipts()[0]["status"] == "accepted"
    cable.shut()
