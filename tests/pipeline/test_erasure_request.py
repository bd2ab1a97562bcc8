"""Who asks for an erasure, how, and what is said and signed of it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from erasing import NUMBER, SITE, WHY, contents, erase, fill, filled, store, subject, table, traces
from folders import Cohort

from spira_tasks.artifacts import Store
from spira_tasks.cli import main
from spira_tasks.errors import ConfigError
from spira_tasks.governance import decisions, erasure
from spira_tasks.governance.inventory import Holding
from spira_tasks.intake.pseudonyms import tombstone_tag
from spira_tasks.provenance import ROOT

__all__ = ["filled", "store", "subject"]  # the fixtures


def test_refused_recordings_are_found_by_the_hospitals_own_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The number comes from a pipe; neither it nor the pseudonym is printed or kept."""
    cohort = Cohort(tmp_path / "data")
    cohort.add(12, patient_rgh=NUMBER, hospital_id=SITE, record_id="refused-1", spo2=999)
    data = cohort.write()
    store = Store(str(tmp_path / "store"))
    fill(store, data)
    assert "refused-1" in set(table(store, "quarantine")["record_id"])
    command = [sys.executable, "-m", "spira_tasks", "erase", "--number", "--yes"]
    process = subprocess.run(
        [*command, "--data", data, "--reason", WHY, "--store", store.url],
        input=f"{SITE}\n{NUMBER.lower()}\n",
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert len(table(store, "quarantine")) == 0
    assert set(table(store, "recordings")["record_id"]) == {f"r{n:03d}" for n in range(2, 12)}
    assert NUMBER not in (process.stdout + process.stderr).upper()
    assert traces(Path(store.url), {NUMBER, NUMBER.lower(), "refused-1"}) == []


def test_nobody_is_erased_by_a_slip_of_the_pen(store: Store) -> None:
    before = contents(store)
    with pytest.raises(ConfigError, match="holds nothing of the subject"):
        erase(store, "ab" * 32)
    with pytest.raises(ConfigError, match="64 hex digits"):
        erase(store, "1234567A")
    with pytest.raises(ConfigError, match="looks like a personal number"):
        erasure.erase(store, Holding(), "ab" * 16, "asked by ana@example.org herself")
    assert contents(store) == before
    assert main(["erase", "ab" * 32, "--reason", WHY, "--store", store.url]) == 78  # nobody to ask


def test_who_has_not_come_yet_can_be_kept_out(store: Store) -> None:
    certificate, _ = erase(store, "ab" * 32, absent=True)
    assert certificate["removed"]["n_rows"] == 0
    (tombstone,) = decisions.known(store, "erasures")
    assert tombstone.about == {"tag": tombstone_tag("ab" * 32)}


def test_the_certificate_names_nobody_and_a_changed_one_is_reported(
    store: Store, subject: str, capsys: pytest.CaptureFixture[str]
) -> None:
    erase(store, subject)
    tag = tombstone_tag(subject)
    for form in ("md", "html", "json"):
        assert main(["erase", "--certificate", tag, "--format", form, "--store", store.url]) == 0
        shown = capsys.readouterr().out
        assert tag in shown
        assert subject not in shown
    assert main(["erase", "--list", "--json", "--store", store.url]) == 0
    (row,) = json.loads(capsys.readouterr().out)["erasures"]
    assert (row["tag"], row["state"], len(row["dataset_versions"])) == (tag, "finished", 3)
    forged = erasure.certificate_of(store, tag)
    assert forged is not None
    assert "the signature fits: yes" in erasure.as_markdown(forged)
    forged["removed"]["n_rows"] = 1000
    assert "the signature fits: NO" in erasure.as_markdown(forged)


def test_a_plan_deletes_nothing(
    store: Store, subject: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(store)
    assert main(["erase", subject, "--dry-run", "--json", "--store", store.url]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["n_recordings"], plan["n_tables"], plan["n_waveforms_and_features"]) == (2, 3, 3)
    assert contents(store) == before


def test_any_store_erases(place: str, tmp_path: Path) -> None:
    cohort = Cohort(tmp_path / "data", n_rows=4)
    store = Store(place)
    fill(store, cohort.write())
    rows = table(store, "recordings")
    erase(store, str(rows["subject_id"].iloc[0]))
    assert list(table(store, "recordings")["record_id"]) == ["r002", "r003"]
    waveforms = rows["waveform"].map(store.blobs.exists)
    assert list(waveforms) == [False, False, True, True]


def test_a_matrix_is_deleted_byte_by_byte_not_by_name_alone(store: Store, subject: str) -> None:
    """The features of a person are no file of any artifact: only a row named them."""
    features = table(store, "features", "materialize")
    rows = table(store, "recordings")
    own = set(rows.loc[rows["subject_id"] == subject, "record_id"])
    digest = features.loc[features["record_id"].isin(own), "features"].iloc[0]
    matrix = np.load(io.BytesIO(store.blobs.read(digest)))
    erase(store, subject)
    stored = [path.read_bytes() for path in Path(store.url).rglob("blobs/*/*")]
    assert not any(matrix.tobytes()[:4000] in content for content in stored)


@pytest.mark.slow
def test_airflow_erases_by_the_tag_and_never_holds_the_pseudonym(
    store: Store, subject: str, tmp_path: Path
) -> None:
    from test_dags import airflow

    home = tmp_path / "airflow"
    assert airflow("db", "migrate", home=home).returncode == 0
    conf = json.dumps({"subject": tombstone_tag(subject), "reason": WHY})
    process = airflow("dags", "test", "spira_erasure", "-c", conf, home=home, SPIRA_STORE=store.url)
    assert process.returncode == 0, process.stdout[-2000:]
    assert traces(Path(store.url), {subject}) == []
    assert traces(home, {subject}) == []
    assert subject not in process.stdout + process.stderr
    (certificate,) = erasure.certificates(store)
    assert certificate["requested"]["by"].startswith("airflow:")
    conf = json.dumps({"subject": subject, "reason": WHY})
    refused = airflow("dags", "test", "spira_erasure", "-c", conf, home=home, SPIRA_STORE=store.url)
    assert refused.returncode != 0  # the form takes a tag, and nothing else
