"""What a person does with a browser: log in, start a run, watch it, read why it was refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest
from browser import NEEDS_CHROMIUM, Page, chromium
from started import Up

from spira_tasks.artifacts import Store
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.errors import GateRejected
from spira_tasks.provenance import ROOT
from spira_tasks.runner import run_step

pytestmark = NEEDS_CHROMIUM
DAG = "spira_continuous_training"
RUN_SECONDS = 1800.0
DEMO = (ROOT / ".spira" / "demo-cohort-400", 30)  # what `make demo` ingests, and its epochs


@dataclass(frozen=True)
class Session:
    """A browser that is logged in, and where it takes its pictures to."""

    page: Page
    up: Up
    pictures: Path

    def trigger(self, dag: str) -> str:
        """Send the form of a DAG, once it is filled; return the path of the run's page."""
        links = (
            f"""Array.from(document.querySelectorAll('a[href^="/dags/{dag}/runs/manual"]'), """
            "a => a.getAttribute('href').split('/').slice(0, 5).join('/'))"  # of the run itself
        )
        earlier = self.page.run(links)
        self.page.click("[data-testid=trigger-dag-submit]")
        return str(self.page.wait(f"{links}.find(a => !{json.dumps(earlier)}.includes(a))"))

    def wait_for_state(self, run: str, state: str) -> None:
        """Wait for the end of a run and go on to its page, whose badge must say ``state``.

        Meanwhile no page is drawn: Airflow's, with a run at work on it, takes half a core.
        """
        self.page.open("about:blank")
        dag, run_id = run.split("/")[2::2]
        path, until = f"api/v2/dags/{dag}/dagRuns/{run_id}", time.monotonic() + RUN_SECONDS
        while (now := self.up.ask("GET", path)["state"]) not in ("success", "failed"):
            assert time.monotonic() < until, f"{run} is {now}"
            time.sleep(2)
        self.page.open(f"{self.up.airflow}{run}")
        self.page.read(f"{unquote(run_id)}\n{state}")

    def wait_for_site(self) -> None:
        self.page.wait("document.querySelector('iframe').contentDocument.title.includes('· SPIRA')")


@pytest.fixture(scope="module")
def demo() -> Path:
    """The store of `make demo`, which finds everything where it ran before; CI just ran it."""
    store = ROOT / ".spira" / "store"
    if os.environ.get("CI") and store.exists():
        return store
    ours = ("SPIRA_", "AIRFLOW_", "MLFLOW_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    subprocess.run([ROOT / "scripts" / "demo.sh"], env=environment, check=True, timeout=1800)
    return store


@pytest.fixture(scope="module")
def session(
    demo: Path, cohort: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Session]:
    up = Up(tmp_path_factory.mktemp("up"))
    shutil.copytree(demo, up.folder / "store")
    compute(cohort, Store(str(up.folder / "store")))
    process = up.start()
    try:
        up.wait_until_ready(process)
        with chromium(tmp_path_factory.mktemp("profile")) as page:
            session = Session(page, up, tmp_path_factory.mktemp("pictures"))
            log_in(session)
            yield session
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)


def compute(cohort: Path, store: Store) -> None:
    """What the run of the small cohort will find: one process is faster than one a step."""
    with suppress(GateRejected):
        for step in TRAINING.configure(data=str(cohort), settings={"train.epochs": 1}):
            run_step(step, "before", store)


def log_in(session: Session) -> None:
    page, up = session.page, session.up
    page.open(f"{up.airflow}/plugin/governance")  # asks for a login, and leads back
    page.type("input[name=username]", "admin")
    page.type("input[name=password]", up.password)
    page.picture(session.pictures / "login.png")
    page.click("button", "Sign in")
    page.wait("document.querySelector('iframe').contentDocument.title.includes('SPIRA')")


@pytest.fixture(scope="module")
def run(session: Session, cohort: Path) -> str:
    """A run of a small cohort, started by the form and watched to its end: a gate refuses it."""
    page = session.page
    page.open(f"{session.up.airflow}/dags/{DAG}")
    page.click("button", "Trigger")
    page.type("#element_data", str(cohort))
    page.type('[id="number-input:element_epochs"] input', "1")
    page.picture(session.pictures / "form.png")
    path = session.trigger(DAG)
    session.wait_for_state(path, "Failed")
    return path


def test_a_run_started_by_its_form_finds_what_the_demo_computed_and_leads_to_its_verdict(
    session: Session,
) -> None:
    page, (recordings, epochs) = session.page, DEMO
    page.open(f"{session.up.airflow}/dags/{DAG}")
    page.click("button", "Trigger")
    page.type("#element_data", str(recordings))
    page.type('[id="number-input:element_epochs"] input', str(epochs))
    path = session.trigger(DAG)
    session.wait_for_state(path, "Success")
    page.picture(session.pictures / "succeeded.png")
    page.click("a", "Governance")
    session.wait_for_site()
    page.read("Yes, provisionally")  # by the approval that the demo gives
    page.picture(session.pictures / "promoted.png")
    records = Store(str(session.up.folder / "store")).runs.read(unquote(path.split("/")[4])).steps
    computed = {name for name, record in records.items() if not record.found}
    # A champion is there to compare with now.  After midnight ingest looks at the new day.
    assert computed - {"ingest"} == {"check_drift", "report"}


def test_the_verdict_page_of_a_run_says_why_it_was_refused(session: Session, run: str) -> None:
    page = session.page
    page.open(f"{session.up.airflow}{run}")
    page.click("a", "Governance")
    session.wait_for_site()
    page.read("Too few people to test on")
    verdict = page.read("No: refused")
    assert "at least 10 of each are needed" in verdict
    page.picture(session.pictures / "verdict.png")


def test_the_task_of_a_gate_shows_its_verdict_and_its_counts(session: Session, run: str) -> None:
    page = session.page
    page.open(f"{session.up.airflow}{run}/tasks/promote")
    page.click("a", "Details")
    page.click("a", "Verdict: blocked")
    page.read("enough_test_subjects")
    assert re.search(r"[2-9] blocking", page.text())
    page.picture(session.pictures / "gate.png")
    page.open(f"{session.up.airflow}{run}/tasks/check_features")
    page.click("a", "Details")
    page.read("Verdict: passed")
    assert "Verdict: blocked" not in page.text()


def test_the_overview_of_all_runs_opens_from_the_menu(session: Session, run: str) -> None:
    page = session.page
    page.open(f"{session.up.airflow}/")
    page.click("button", "Browse")
    page.click("a", "Governance")
    session.wait_for_site()
    page.read("All runs")
    page.read(unquote(run.rpartition("/")[2]))
    page.picture(session.pictures / "overview.png")


def test_a_report_made_again_by_its_form_succeeds(session: Session, run: str) -> None:
    page = session.page
    page.open(f"{session.up.airflow}/dags/spira_governance_report")
    page.click("button", "Trigger")
    page.read("Trigger Dag")
    path = session.trigger("spira_governance_report")
    session.wait_for_state(path, "Success")


def test_no_page_asks_another_host(session: Session, run: str) -> None:
    ours = (session.up.airflow, session.up.mlflow, "data:", "about:", "blob:")
    assert len(session.page.requested) > 50
    assert [url for url in session.page.requested if not url.startswith(ours)] == []
