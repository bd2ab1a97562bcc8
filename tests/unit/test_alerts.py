"""Alerts: each can fire, is about a metric that there is, and says what to do."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from databases import migrated

from scripts.dashboard import dashboard
from spira_services.serving.gauges import of_answers, of_models, of_queue
from spira_services.serving.queue import SqlQueue
from spira_services.web import create_app
from spira_tasks.provenance import ROOT

MONITORING = ROOT / "docker/monitoring"
TESTS = ROOT / "tests/monitoring/alerts_test.yaml"
ALERTS = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="no promtool here: apt-get install prometheus"
)


def promtool(*arguments: str | Path) -> str:
    process = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@needs_promtool
def test_each_alert_fires_for_what_it_is_about_and_not_before() -> None:
    promtool("test", "rules", TESTS)
    groups = yaml.safe_load(TESTS.read_text())["tests"]
    cases = [case for group in groups for case in group["alert_rule_test"]]
    fired = {one["alertname"] for one in cases if one.get("exp_alerts")}
    silent = {one["alertname"] for one in cases if not one.get("exp_alerts")}
    assert fired == silent == {alert["alert"] for alert in ALERTS}


@needs_promtool
def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    """Where the container has them: the rules, and the secrets that a first start makes."""
    text = (MONITORING / "prometheus.yaml").read_text()
    for secret in ("token", "password"):
        (tmp_path / secret).write_text("secret")
    text = text.replace("/run/secrets", str(tmp_path)).replace("/etc/monitoring", str(MONITORING))
    (tmp_path / "prometheus.yaml").write_text(text)
    assert f"{len(ALERTS)} rules found" in promtool("check", "config", tmp_path / "prometheus.yaml")


def test_each_alert_says_where_the_document_says_what_to_do() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "docs/runbook.md").read_text(), re.M)
    anchors = {f"docs/runbook.md#{heading.lower().replace(' ', '-')}" for heading in headings}
    for alert in ALERTS:
        assert alert["annotations"]["runbook"] in anchors
        assert alert["alert"] in headings
        assert alert["labels"]["severity"] in {"page", "ticket"}


def test_alerts_dashboard_and_document_name_metrics_that_the_services_have(tmp_path: Path) -> None:
    with migrated("", tmp_path) as engine:
        app = create_app("SPIRA", engine)
        app.state.metrics.add("queue", of_queue(SqlQueue(engine).depth))
        app.state.metrics.add("models", of_models(dict))
        app.state.metrics.add("answers", of_answers(engine))
        there = set(re.findall(r"^# TYPE (\S+)", app.state.metrics.text().decode(), re.M))
    there |= {f"{name}_{part}" for name in there for part in ("bucket", "count", "sum")}
    files = (*MONITORING.glob("*.*"), ROOT / "docs/runbook.md")
    text = "".join(file.read_text() for file in files)
    named = set(re.findall(r"\bspira_\w+", text))
    assert named
    assert named <= there


def test_the_dashboard_is_the_one_that_the_script_makes() -> None:
    assert (MONITORING / "dashboard.json").read_text() == dashboard()
