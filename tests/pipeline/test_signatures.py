"""A signature is on the digest of a file of limits, is in the audit log, and is on every page."""

from __future__ import annotations

from pathlib import Path

import pytest
from reading_pages import read
from run_facts import AT, facts, history, verdict

from spira_tasks.artifacts import Store
from spira_tasks.cli import main
from spira_tasks.governance import audit, signatures
from spira_tasks.governance.signatures import Part
from spira_tasks.governance.verification import verify
from spira_tasks.reports import pages
from spira_tasks.reports.facts import Signature

WHY = "the floors of our triage protocol"


def test_a_file_that_changed_is_not_signed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: dict[Part, str] = {"policy": signatures.digest("policy")}
    decision, new = signatures.sign(store, "policy", WHY)
    assert new
    assert signatures.signatures(store, before)["policy"] == decision
    assert not signatures.sign(store, "policy", WHY)[1]
    changed = tmp_path / "policy.yaml"
    changed.write_text(signatures.FILES["policy"].read_text() + "\n# another\n")
    monkeypatch.setattr(signatures, "FILES", {**signatures.FILES, "policy": changed})
    assert signatures.signatures(store, {"policy": signatures.digest("policy")}) == {}
    assert signatures.signatures(store, before)  # of a run of then


def test_a_signature_is_in_the_log_and_a_forged_one_counts_for_nothing(store: Store) -> None:
    digests: dict[Part, str] = {"plan": signatures.digest("plan")}
    signatures.sign(store, "plan", WHY)
    (event,) = [one for one in audit.events(store) if one.action == "signature"]
    assert (event.details["what"], event.details["why"]) == ("plan", WHY)
    (name,) = store.documents.names("decisions/signatures")
    store.documents.write(name, {**(store.documents.read(name) or {}), "by": "cli:somebody"})
    assert signatures.signatures(store, digests) == {}
    assert any("signatures" in problem for problem in verify(store, {}).problems)


def test_a_signature_can_be_taken_back(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    def policy(*words: str) -> int:
        return main(["policy", *words, "--store", store.url])

    assert policy("withdraw", "suites", "--why", WHY) == 78
    assert policy("sign", "suites", "--why", "ok") == 78  # no reason
    assert policy("sign", "suites", "--why", WHY) == 0
    assert policy("show") == 0
    assert WHY in capsys.readouterr().out
    assert policy("withdraw", "suites", "--why", WHY) == 0
    assert policy("show") == 0
    assert WHY not in capsys.readouterr().out.rpartition("not signed any more")[2]


def test_pages_name_who_signed_and_what_nobody_signed(tmp_path: Path) -> None:
    gate = verdict("auc_above_chance", observed=0.9, threshold=0.6, n=60)
    check = verdict("expect_column_values_to_be_between(age, possible)", suite="metadata")
    signed = {"policy": Signature("cli:ana", AT)}
    run = facts(verdicts={"promote": (gate,), "check_recordings": (check,)}, signatures=signed)
    pages.render(run, history(), tmp_path, built_at=AT)
    for page in pages.PAGES:
        said = read(tmp_path / f"{page}.en.html").text
        assert "cli:ana signed the limits of promotion on 21 November 2026." in said, page
        assert "The limits of the data are not yet signed by a clinician." in said, page
    assert (
        "clinical lead: signed by cli:ana on 21 November 2026"
        in read(tmp_path / "verdict.en.html").text
    )
    assert "clinical lead (not yet signed)" in read(tmp_path / "data.en.html").text
