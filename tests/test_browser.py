"""What a person does with a browser: log in, start a run, watch it, read why it was refused."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest
from browser import CHROMIUM, Page, chromium
from started import Up

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]
DAG = "spira_continuous_training"
RUN_SECONDS = 900.0


@dataclass(frozen=True)
class Session:
    """A browser that is logged in, and where it takes its pictures to."""

    page: Page
    up: Up
    pictures: Path


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    up = Up(tmp_path_factory.mktemp("up"))
    process = up.start()
    try:
        up.wait_until_ready(process)
        with chromium(tmp_path_factory.mktemp("profile")) as page:
            yield Session(page, up, tmp_path_factory.mktemp("pictures"))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)


def test_a_refused_run_is_started_watched_and_understood_without_a_log(
    session: Session, cohort: Path
) -> None:
    page, up = session.page, session.up

    page.open(f"{up.airflow}/plugin/governance")  # asks for a login, and leads back
    page.type("input[name=username]", "admin")
    page.type("input[name=password]", up.password)
    page.picture(session.pictures / "login.png")
    page.click("button", "Sign in")
    page.read("There is no report yet")

    page.open(f"{up.airflow}/dags/{DAG}")
    page.click("button", "Trigger")
    page.type("#element_data", str(cohort))
    page.click('[id="number-input:element_epochs:inc"]')  # 1
    page.picture(session.pictures / "form.png")
    page.click("[data-testid=trigger-dag-submit]")
    link = f'a[href^="/dags/{DAG}/runs/manual"]'
    run = page.wait(f"document.querySelector('{link}').getAttribute('href')")

    page.open(f"{up.airflow}{run}")
    run_id = unquote(run.rpartition("/")[2])
    page.read(f"{run_id}\nFailed", RUN_SECONDS)  # a gate refused: that is its state in Airflow
    page.picture(session.pictures / "run.png")
    page.click("a", "Governance")
    page.wait("document.querySelector('iframe').contentDocument.title.includes('SPIRA')")
    verdict = page.read("enough_test_subjects")
    page.picture(session.pictures / "verdict.png")
    assert "at least 10 of each are needed" in verdict

    page.open(f"{up.airflow}{run}/tasks/promote")
    page.click("a", "Details")
    page.click("a", "Verdict: blocked")
    gate = page.read("enough_test_subjects")
    page.picture(session.pictures / "gate.png")
    assert "blocking" in gate

    outside = [
        url
        for url in page.requested
        if url.startswith("http") and not url.startswith((up.airflow, up.mlflow))
    ]
    assert outside == []


def test_the_overview_of_all_runs_opens_from_the_menu(session: Session) -> None:
    page, up = session.page, session.up
    page.open(f"{up.airflow}/")
    page.click("button", "Browse")
    page.click("a", "Governance")
    page.wait("document.querySelector('iframe').contentDocument.title.includes('SPIRA')")
    page.read("All runs")
    page.picture(session.pictures / "overview.png")
