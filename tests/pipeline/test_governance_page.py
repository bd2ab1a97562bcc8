"""The governance site in a real Airflow api-server: who may read it, and what a URL can reach."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from html import unescape
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote, urlencode

import pytest
from stores import step_record

from expectations import policy
from spira_tasks.artifacts import Store
from spira_tasks.contract.run import State, StepRecord
from spira_tasks.contract.verdict import Number, Verdict
from spira_tasks.provenance import ROOT

pytestmark = pytest.mark.slow

RUN = "manual__2026-11-21T03:00:00+00:00"
PACK = "spira-report-manual__2026-11-21T03_00_00_00_00.zip"
ENCODED = "manual__2026-11-21T03%3A00%3A00%2B00%3A00"
HOSTILE = '<img src=x onerror=alert(1)> & "São Paulo".html'
# admin may do all; officer only reads; nobody has no role; neighbour reads for another hospital.
USERS = {
    "admin": "admin",
    "officer": "viewer:hospital",
    "nobody": ":hospital",
    "neighbour": "viewer:elsewhere",
}
BUNDLE = {
    "name": "ours",
    "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
    "kwargs": {"path": str(ROOT / "dags")},
    "team_name": "hospital",
}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass(frozen=True)
class Server:
    port: int
    store: Store
    tokens: dict[str, str]

    def ask(
        self, path: str, user: str = "", method: str = "GET", body: str = "", **headers: str
    ) -> Answer:
        """``path`` goes out as it is: nothing of it is made regular on the way."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        if user:
            headers["Authorization"] = f"Bearer {self.tokens[user]}"
        connection.request(method, path, body=body or None, headers=headers)
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        connection.close()
        return answer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Airflow's api-server on SQLite, our plugin, and a store with two runs."""
    home = tmp_path_factory.mktemp("airflow")
    store = Store(str(tmp_path_factory.mktemp("store")))
    fill(store, tmp_path_factory.mktemp("site"))
    (home / "users.json").write_text(json.dumps({user: f"{user}-secret" for user in USERS}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "SPIRA_RUNTIME": "process",
        "SPIRA_STORE": store.url,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__MULTI_TEAM": "True",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "SPIRA_SCHEDULE": "0 3 * * 1",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
            f"{user}:{role}" for user, role in USERS.items()
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "users.json"),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([BUNDLE]),
        "AIRFLOW__API__WORKERS": "1",
    }
    teams = ("teams create hospital", "teams create elsewhere")
    for command in ("db migrate", *teams, "dags reserialize"):
        subprocess.run(
            [sys.executable, "-m", "airflow", *command.split()],
            check=True,
            capture_output=True,
            env=environment,
        )
    with (home / "api-server.log").open("wb") as log:
        process = subprocess.Popen(
            # with pdeathsig the server ends even when pytest is killed
            [
                *("setpriv", "--pdeathsig", "TERM", "--", sys.executable, "-m", "airflow"),
                *("api-server", "--host", "127.0.0.1", "--port", str(port)),
            ],
            stdout=log,
            stderr=log,
            env=environment,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/api/v2/version", process, home / "api-server.log")
        yield Server(port, store, {user: token(port, user) for user in USERS})
    finally:
        process.terminate()
        process.wait(timeout=60)


def fill(store: Store, folder: Path) -> None:
    """A run with a report, made by hand, and one without."""
    (folder / "plots").mkdir()
    (folder / "overview.en.html").write_text("<h1>Overview</h1>")
    (folder / "verdict.en.html").write_text("<h1>Verdict of the run</h1>")
    (folder / "plots" / "drift.svg").write_text("<svg/>")
    (folder / PACK).write_bytes(b"PK")
    (folder / HOSTILE).write_text("<p>a site with a bad name</p>")
    site = store.put_directory(folder)
    store.runs.write(RUN, record("report", "done", outputs={"site": site}))
    store.documents.write("site/latest.json", {"run_id": RUN})
    verdicts = (
        Verdict("a", "pass"),
        Verdict("contains_erased_subject", "block", observed=Number(3, "people")),
        Verdict("<leak>", "block"),
    )
    store.runs.write("second", record("ingest", "done"))
    (folder / "registration.json").write_text(json.dumps({"version": "3", "classifier": "c"}))
    outputs = {"registration": store.put_directory(folder)}
    judged = (
        Verdict("sensitivity_floor", "block", Number(0.7, "rate"), 0.8, n=120, n_unit="people"),
        Verdict("auc_above_chance", "block", Number(0.5), 0.6, firm=True),
    )
    waits = Verdict("approved_by_a_person", "warn", names={"excluded": ("admin",)})
    for run in ("stopped", "own"):
        store.runs.write(run, record("register", "done", outputs=outputs))
    store.runs.write("stopped", record("promote", "blocked", verdicts=judged))
    store.runs.write("own", record("promote", "done", verdicts=(waits,)))
    store.runs.write("second", record("check_training_set", "blocked", verdicts=verdicts))


def record(step: str, state: State, **fields: Any) -> StepRecord:
    return StepRecord(step, step, state, "2026-11-21T12:00:00+00:00", 1.0, **fields)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(url, timeout=5)
        except (URLError, TimeoutError):
            time.sleep(0.5)
        else:
            return
    raise AssertionError(log.read_text()[-3000:])


def token(port: int, user: str) -> str:
    body = json.dumps({"username": user, "password": f"{user}-secret"}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/auth/token", body, {"Content-Type": "application/json"}
    )
    return str(json.loads(urllib.request.urlopen(request, timeout=60).read())["access_token"])


PATHS = [
    "/spira/",
    f"/spira/runs/{ENCODED}/",
    f"/spira/runs/{ENCODED}/overview.en.html",
    f"/spira/runs/{ENCODED}/plots/drift.svg",
    f"/spira/runs/{ENCODED}/pack",
    "/spira/runs/no-such-run/index.html",
    "/spira/tasks/second/check_training_set",
    "/spira/runs/stopped/decide",
    "/spira/static/style.css",
    "/spira/docs",
    "/spira/openapi.json",
    "/spira/..%2f..%2fetc/passwd",
    "/spira//",
    "/spira/nothing",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "DELETE"])
def test_without_a_login_every_path_answers_401(server: Server, path: str, method: str) -> None:
    answer = server.ask(path, method=method)
    assert answer.status == 401
    assert b"Verdict" not in answer.body


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("user", ["nobody", "neighbour"])
def test_who_may_not_read_the_runs_of_the_dag_gets_403(
    server: Server, path: str, user: str
) -> None:
    assert server.ask(path, user).status == 403


def test_a_wrong_token_is_refused(server: Server) -> None:
    forged = Server(server.port, server.store, {"forged": server.tokens["officer"][:-4] + "AAAA"})
    assert forged.ask(f"/spira/runs/{ENCODED}/overview.en.html", "forged").status in (401, 403)


@pytest.mark.parametrize("user", ["officer", "admin"])
def test_a_viewer_reads_the_site_of_a_run(server: Server, user: str) -> None:
    answer = server.ask(f"/spira/runs/{ENCODED}/overview.en.html", user)
    line = '<p class="note">Last run started: none. Next run by the schedule: 20'
    assert (answer.status, answer.text[: 17 + len(line)]) == (200, f"<h1>Overview</h1>{line}")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    picture = server.ask(f"/spira/runs/{ENCODED}/plots/drift.svg", user)
    assert (picture.status, picture.headers["content-type"]) == (200, "image/svg+xml")
    for name in ("pack", PACK):
        pack = server.ask(f"/spira/runs/{ENCODED}/{name}", user)
        assert (pack.status, pack.body) == (200, b"PK")
        assert pack.headers["content-disposition"] == f"attachment; filename*=UTF-8''{PACK}"


def test_the_front_page_leads_to_the_newest_overview_and_a_run_to_its_verdict(
    server: Server,
) -> None:
    front = server.ask("/spira/", "officer")
    assert (front.status, front.headers["location"]) == (307, f"runs/{ENCODED}/overview.en.html")
    run = server.ask(f"/spira/runs/{ENCODED}/", "officer")
    assert (run.status, run.headers["location"]) == (307, "verdict.en.html")
    officer = {"Accept-Language": "pt-BR,pt;q=0.9,en;q=0.8"}
    run = server.ask(f"/spira/runs/{ENCODED}/", "officer", **officer)
    assert run.headers["location"] == "verdict.pt.html"


def test_head_has_the_headers_and_no_body_and_nothing_can_be_written(server: Server) -> None:
    path = f"/spira/runs/{ENCODED}/overview.en.html"
    head = server.ask(path, "officer", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(server.ask(path, "officer").body))
    for method in ("OPTIONS", "POST", "PUT", "DELETE", "TRACE"):
        assert server.ask(path, "admin", method).status in (404, 405)


@pytest.mark.parametrize("path", ["/spira/", f"/spira/runs/{ENCODED}/verdict.en.html", "/spira/no"])
@pytest.mark.parametrize("user", ["", "officer"])
def test_every_answer_forbids_scripts_and_other_hosts(server: Server, path: str, user: str) -> None:
    headers = server.ask(path, user).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'self'" in policy
    assert "script-src" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path",
    [
        f"/spira/runs/{ENCODED}/../../../../etc/passwd",
        f"/spira/runs/{ENCODED}/%2e%2e/%2e%2e/second/ingest.json",
        f"/spira/runs/{ENCODED}/..%2f..%2fsecond%2fingest.json",
        f"/spira/runs/{ENCODED}/%2fetc%2fpasswd",
        f"/spira/runs/{ENCODED}//etc/passwd",
        f"/spira/runs/{ENCODED}/overview.en.html%00.txt",
        f"/spira/runs/{ENCODED}/..%5c..%5coverview.en.html",
        "/spira/runs/../site/latest.json",
        "/spira/runs/..%2fsite/latest.json",
        "/spira/runs/%2e%2e/site",
        "/spira/runs/second%00/",
        "/spira/runs/second/pack",
        "/spira/runs/%2e%2e/pack",
        f"/spira/runs/{ENCODED}/pack/../../second/ingest.json",
        "/spira/runs/.hidden/",
        "/spira/tasks/second/..%2fsecond%2fingest",
        "/spira/tasks/second%2f..%2fsecond/ingest",
        "/spira/tasks/%2e%2e/site",
        f"/spira/runs/{'a' * 300}/",
        "/spira/runs/a-run-of-another-store/",
    ],
)
def test_a_url_reaches_nothing_but_files_of_a_site_of_this_store(server: Server, path: str) -> None:
    answer = server.ask(path, "admin")
    assert answer.status == 404
    assert b"root:" not in answer.body
    assert b"run_id" not in answer.body


def test_html_in_a_name_is_a_name(server: Server) -> None:
    encoded = quote(HOSTILE, safe="")
    answer = server.ask(f"/spira/runs/{ENCODED}/{encoded}", "officer")
    assert answer.text == "<p>a site with a bad name</p>"
    for path in (f"/spira/runs/{encoded}/", f"/spira/tasks/second/{encoded}"):
        refused = server.ask(path, "officer")
        assert refused.status == 404
        assert "alert" not in refused.text


def test_a_run_without_a_report_says_so_and_why_it_was_blocked(server: Server) -> None:
    page = server.ask("/spira/runs/second/", "officer")
    assert page.status == 200
    assert "There is no report yet" in page.text
    assert "(LGPD art. 18): fewer than 5." in page.text
    assert "&lt;leak&gt;" in page.text
    assert "<leak>" not in page.text
    assert server.ask("/spira/runs/second/index.html", "officer").text == page.text


def test_a_gate_shows_its_verdict_its_counts_and_its_run(server: Server) -> None:
    page = server.ask("/spira/tasks/second/check_training_set", "officer").text
    assert "2 blocking, 0 warnings, 1 passed" in page
    assert "(LGPD art. 18): fewer than 5." in page
    assert "<code>&lt;leak&gt;</code>" in page
    assert '<a href="../../runs/second/">' in page
    judged_again = server.ask("/spira/tasks/stopped/promote_approved", "officer")
    assert (judged_again.status, "2 blocking" in judged_again.text) == (200, True)


@pytest.mark.parametrize("step", ["erase", "another"])
def test_what_a_step_of_another_dag_said_is_not_shown(server: Server, step: str) -> None:
    server.store.runs.write("erasing", record(step, "done", config={"reason": "form 12"}))
    assert server.ask(f"/spira/tasks/erasing/{step}", "admin").status == 404
    assert server.ask(f"/spira/tasks/{ENCODED}/report", "officer").status == 200


def test_who_took_a_pack_is_on_the_page_of_airflows_audit_log(server: Server) -> None:
    def taken() -> list[dict[str, str]]:
        answer = server.ask("/api/v2/eventLogs?event=spira_report_pack&order_by=id", "admin")
        return list(json.loads(answer.body)["event_logs"])

    before = len(taken())
    for user, name in (("officer", "pack"), ("admin", PACK)):
        assert server.ask(f"/spira/runs/{ENCODED}/{name}", user).body == b"PK"
    server.ask(f"/spira/runs/{ENCODED}/pack", "officer", "HEAD")
    server.ask(f"/spira/runs/{ENCODED}/verdict.en.html", "officer")
    for user in ("", "nobody", "neighbour"):
        assert server.ask(f"/spira/runs/{ENCODED}/pack", user).status in (401, 403)
    new = taken()[before:]
    assert [(one["owner"], one["run_id"]) for one in new] == [("officer", RUN), ("admin", RUN)]
    assert {one["dag_id"] for one in new} == {"spira_continuous_training"}
    digest = sha256(b"PK").hexdigest()
    assert json.loads(new[0]["extra"]) == {"file": PACK, "sha256": digest}


def test_a_damaged_file_is_not_shown(server: Server, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("what was signed")
    digest = server.store.put_directory(tmp_path)
    server.store.runs.write("damaged", step_record("report", outputs={"site": digest}))
    path = "/spira/runs/damaged/index.html"
    assert server.ask(path, "officer").text == "what was signed"
    name = server.store.blobs.path(server.store.blobs.put(b"what was signed"))
    name.chmod(0o644)
    name.write_text("what was forged")
    answer = server.ask(path, "officer")
    assert answer.status == 500
    assert "forged" not in answer.text
    assert "damaged" in answer.text


def test_airflow_offers_the_pages_where_they_belong(server: Server) -> None:
    plugins = json.loads(server.ask("/api/v2/plugins", "officer").body)["plugins"]
    (ours,) = [plugin for plugin in plugins if plugin["name"] == "spira_governance"]
    views = {view["destination"]: view["href"] for view in ours["external_views"]}
    assert views == {
        "nav": "/spira/",
        "dag_run": "/spira/runs/{RUN_ID}/",
        "task_instance": "/spira/tasks/{RUN_ID}/{TASK_ID}",
    }
    assert (
        json.loads(server.ask("/api/v2/plugins/importErrors", "officer").body)["total_entries"] == 0
    )


def test_an_address_that_gives_wrong_passwords_waits(server: Server) -> None:
    """The last test here, as it locks out its own address for a while."""

    def log_in(password: str) -> int:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
        body = json.dumps({"username": "admin", "password": password})
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/auth/token", body, headers)
        status = connection.getresponse().status
        connection.close()
        return status

    right, wrong = "admin-secret", "guessed"
    passwords = [wrong, wrong, wrong, right, wrong, wrong, wrong, right]
    assert [log_in(one) for one in passwords] == [401, 401, 401, 201, 401, 401, 429, 429]
    assert server.ask("/api/v2/plugins", "admin").status == 200  # who is logged in goes on


WHY = "read together with the ward"


def decide(server: Server, run: str, user: str, by: str = "", **fields: str) -> Answer:
    """Send a form as a browser does, with the token of the page that ``by`` was shown."""
    page = server.ask(f"/spira/runs/{run}/decide", by or user)
    token = re.search(r'name="token" value="([^"]+)"', page.text)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if site := fields.pop("site", ""):
        headers["Sec-Fetch-Site"] = site
    form = {"token": token[1] if token else "", "reason": WHY, **fields}
    path = f"/spira/runs/{run}/decide"
    return server.ask(path, user, "POST", urlencode(form), **headers)


def decisions(server: Server, dag: str = "spira_model_decision") -> list[dict[str, Any]]:
    answer = server.ask(f"/api/v2/dags/{dag}/dagRuns", "admin")
    return list(json.loads(answer.body)["dag_runs"])


def test_a_decision_on_the_page_starts_a_run_in_the_name_of_who_decides(server: Server) -> None:
    page = server.ask("/spira/runs/stopped/decide", "admin")
    assert page.text.count("<form") == 7  # approve, refuse, waive, sign two; release, hold
    assert unescape(page.text).count(policy.FILE.read_text("utf-8")) == 1  # to read what is signed
    assert policy.read().digest in page.text
    assert "form-action 'self'" in page.headers["content-security-policy"]
    assert "Finds the patients" in page.text
    assert 'value="auc_above_chance"' not in page.text  # nobody may waive it
    done = decide(
        server, "stopped", "admin", act="waive", suite="promotion", check="sensitivity_floor"
    )
    assert done.status == 200
    made = decisions(server)[-1]
    assert made["triggering_user_name"] == "admin"
    waiver = {"suite": "promotion", "check": "sensitivity_floor"}
    assert made["conf"] == {"act": "waive", "reason": WHY, **waiver}
    assert f"/dags/spira_model_decision/runs/{quote(made['dag_run_id'], safe='')}" in done.text
    assert decide(server, "stopped", "admin", act="release", record="rec-1").status == 200
    assert decisions(server, "spira_data_decision")[-1]["conf"]["record"] == "rec-1"
    logged = json.loads(server.ask("/api/v2/eventLogs?event=spira_decision", "admin").body)
    assert {one["owner"] for one in logged["event_logs"]} == {"admin"}


@pytest.mark.parametrize(
    ("user", "fields", "status"),
    [
        ("officer", {"act": "approve", "version": "3"}, 403),  # who may only read
        ("admin", {"act": "approve", "version": "3", "token": ""}, 403),
        ("admin", {"act": "approve", "version": "3", "token": "forged.by.somebody"}, 403),
        ("admin", {"act": "approve", "version": "3", "by": "officer"}, 403),  # of another person
        ("admin", {"act": "approve", "version": "3", "site": "cross-site"}, 403),
        ("admin", {"act": "approve", "version": "3", "reason": "ok"}, 400),
        ("admin", {"act": "approve", "version": "3", "reason": "ask on 11 91234-5678"}, 400),
        ("admin", {"act": "approve", "version": "three"}, 400),
        ("admin", {"act": "erase", "version": "3"}, 400),
        ("admin", {"act": "approve", "version": "3", "reason": "x" * 20_000}, 413),
    ],
)
def test_a_form_that_is_not_ours_or_not_right_decides_nothing(
    user: str, fields: dict[str, str], status: int, server: Server
) -> None:
    before = len(decisions(server))
    assert decide(server, "stopped", user, **fields).status == status
    assert len(decisions(server)) == before


def test_nobody_is_offered_to_approve_what_they_started(server: Server) -> None:
    page = server.ask("/spira/runs/own/decide", "admin").text
    assert "another person has to approve it" in page
    assert 'value="approve"' not in page
    assert decide(server, "own", "admin", act="approve", version="3").status == 403
    assert decide(server, "own", "admin", act="refuse", version="3").status == 200


def test_only_who_may_decide_is_led_there(server: Server) -> None:
    for page in (f"{ENCODED}/verdict.en.html", "stopped/"):  # with a report, and before it
        assert '<a href="decide">' in server.ask(f"/spira/runs/{page}", "admin").text
        assert '<a href="decide">' not in server.ask(f"/spira/runs/{page}", "officer").text
    assert (
        "nothing here that you may decide"
        in server.ask("/spira/runs/stopped/decide", "officer").text
    )
