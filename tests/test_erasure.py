"""Erasure: afterwards no store holds a byte of the person, and everybody else is untouched."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Run
from folders import AS_OF, Cohort

from spira_tasks.artifacts import Store
from spira_tasks.cli import main
from spira_tasks.contract import Step
from spira_tasks.errors import ConfigError, GateRejected
from spira_tasks.governance import audit, certificates, decisions, erasure, inventory, signing
from spira_tasks.governance.heeded import tombstone_tag
from spira_tasks.governance.inventory import Holding
from spira_tasks.provenance import ROOT
from spira_tasks.runner import run_step, tracking_uri

WHY = "asked for it in writing"
NUMBER, SITE = "1234567A", "site-a"  # of the recordings 0 and 1 of the cohort
STEPS = (
    Step("ingest", "ingest", {"data": ""}, {"as_of": AS_OF, "max_quarantine_fraction": 1.0}),
    Step("split", "split", {"recordings": "ingest.recordings"}),
    Step("materialize", "materialize", {"recordings": "split.recordings"}),
)


def fill(store: Store, data: str, run_id: str = "r") -> None:
    """Take in a folder, split it and make features: all that a recording leaves in a store."""
    for step in STEPS:
        inputs = {"data": data} if step.name == "ingest" else step.inputs
        run_step(Step(step.name, step.stage, inputs, step.config), run_id, store)


def table(store: Store, name: str, step: str = "ingest", run_id: str = "r") -> pd.DataFrame:
    record = store.read_record(run_id, step)
    assert record is not None
    digest = record["outputs"][{"split": "recordings"}.get(step, name)]
    return inventory.read_table(store, digest, f"{name}.parquet")


def erase(store: Store, subject: str, **options: bool) -> tuple[dict[str, object], bool]:
    known, tag = erasure.known_from(subject), erasure.tag_of(subject)
    return erasure.erase(store, tracking_uri(store), known, tag, WHY, **options)


def traces(place: Path, names: set[str]) -> list[str]:
    """Every file below a folder that quotes a name, in its bytes or, of a table, in a cell."""
    found = []
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        content = path.read_bytes()
        cells = pd.read_parquet(io.BytesIO(content)).to_csv() if content[:4] == b"PAR1" else ""
        found += [
            f"{path.relative_to(place)}: {name}"
            for name in names
            if name.encode() in content or name in cells
        ]
    return found


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which six people have two recordings each."""
    folder = tmp_path_factory.mktemp("filled")
    cohort = Cohort(folder / "data")
    for row in cohort.rows:  # as real ones are: nobody's is a part of another name
        row["record_id"] = f"recording-{row['record_id']}"
        row["session_id"] = f"session-{row['session_id']}"
    fill(Store(str(folder / "store")), cohort.write())
    return folder


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> Store:
    shutil.copytree(filled, tmp_path / "copy")
    return Store(str(tmp_path / "copy/store"))


@pytest.fixture
def subject(store: Store) -> str:
    return str(table(store, "recordings")["subject_id"].iloc[0])


def contents(store: Store) -> dict[str, bytes]:
    return {entry.name: store.read(entry.name) or b"" for entry in store.entries("")}


def test_a_finished_run_keeps_no_byte_of_who_is_erased(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole pipeline ran, a model was registered; then one it learned from is erased."""
    place = tmp_path / "store"
    shutil.copytree(finished.store.url, place)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    store, run_id = Store(str(place)), finished.run_id
    rows = table(store, "recordings", "split", run_id)
    learned = rows[(rows["split"] == "train") & (rows["task"] == "SENTENCE")]
    subject = str(learned["subject_id"].iloc[0])
    own = rows[rows["subject_id"] == subject]
    features = table(store, "features", "materialize", run_id)
    features = features[features["record_id"].isin(own["record_id"])]
    names = {subject, *own["record_id"], *own["session_id"], *own["audio_sha256"]}
    loose = {*own["waveform"], *features["features"]}
    sounds = [store.blobs.read(digest)[200:1200] for digest in loose]
    names |= {digest.removeprefix("sha256:") for digest in loose}
    assert len(traces(place, names)) > 10

    certificate, changed = erase(store, subject)

    assert changed
    assert traces(place, names) == []
    everything = b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
    assert not any(sound in everything for sound in sounds)
    left = table(store, "recordings", "split", run_id)
    pd.testing.assert_frame_equal(left, rows[rows["subject_id"] != subject].reset_index(drop=True))
    (version,) = certificate["model_versions"]  # type: ignore[misc]
    assert (version["version"], version["aliases"]) == ("1", ["challenger"])
    assert certificate["retraining_needed"] is True
    assert signing.is_signed(certificate)
    assert audit.verify(store).problems == []

    promote = Step(
        "promote",
        "promote",
        {
            "recordings": "check_training_set.table",
            "registration": "register.registration",
            "report": "evaluate.report",
        },
    )
    with pytest.raises(GateRejected, match="contains_erased_subject: people in its data"):
        run_step(promote, run_id, store)


def test_the_others_keep_what_they_have(store: Store, subject: str) -> None:
    before = table(store, "recordings")
    erase(store, subject)
    after = table(store, "recordings")
    pd.testing.assert_frame_equal(
        after, before[before["subject_id"] != subject].reset_index(drop=True)
    )
    for digest in [*after["waveform"], *table(store, "features", "materialize")["features"]]:
        store.blobs.read(digest)


def test_who_is_erased_is_not_taken_in_again(store: Store, subject: str, filled: Path) -> None:
    erase(store, subject)
    fill(store, f"folder:{filled}/data", "again")
    assert subject not in set(table(store, "recordings", run_id="again")["subject_id"])
    refused = table(store, "quarantine", run_id="again")
    assert list(refused["reason"]) == ["erased", "erased"]
    assert inventory.orphans(store, inventory.survey(store)) == set()  # not even listened to
    assert erase(store, subject)[1] is False


def test_erasing_twice_says_so_and_changes_nothing(
    store: Store, subject: str, capsys: pytest.CaptureFixture[str]
) -> None:
    erase(store, subject)
    before = contents(store)
    arguments = ["erase", tombstone_tag(subject), "--reason", WHY, "--yes", "--store", store.url]
    assert main(arguments) == 0
    assert "already erased" in capsys.readouterr().err
    assert contents(store) == before


KILLED = """
import os, signal, sys
from spira_tasks.artifacts.backends import Folder
left = int(sys.argv[3])
def dying(act):
    def method(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return act(*arguments, **options)
    return method
for name in ("write", "write_once", "delete", "set_aside"):
    setattr(Folder, name, dying(getattr(Folder, name)))
from spira_tasks.cli import main
main(["erase", sys.argv[2], "--reason", "asked for it in writing", "--yes", "--store", sys.argv[1]])
print(left)
"""


def killed(store: Store, subject: str, after: int) -> subprocess.CompletedProcess[str]:
    """Erase in a process that SIGKILLs itself before its n-th act on the store."""
    return subprocess.run(
        [sys.executable, "-c", KILLED, store.url, subject, str(after)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_killed_anywhere_and_begun_again_it_ends_the_same(
    store: Store, subject: str, tmp_path: Path
) -> None:
    """Two people in turn, so that the second is taken out of copies made for the first."""

    def state(one: Store) -> dict[str, bytes]:
        apart = ("audit/", "certificates/", "decisions/", "tmp/", "mlflow/")
        return {n: c for n, c in contents(one).items() if not n.startswith(apart)}

    other = str(table(store, "recordings")["subject_id"].iloc[-1])
    erase(store, other)
    start = tmp_path / "start"
    shutil.copytree(store.url, start)
    whole = killed(store, subject, 10**6)
    n_acts = 10**6 - int(whole.stdout.splitlines()[-1])
    removed = certificates.read(store, tombstone_tag(subject))["removed"]  # type: ignore[index]
    assert n_acts > 20
    for after in sorted({*range(1, n_acts, max(1, n_acts // 7)), n_acts - 1, n_acts}):
        place = tmp_path / f"killed-{after}"
        shutil.copytree(start, place)
        copy = Store(str(place))
        assert killed(copy, subject, after).returncode == -signal.SIGKILL, after
        again = erase(copy, tombstone_tag(subject))[0]
        assert again["removed"] == removed, after
        assert state(copy) == state(store), after
        assert traces(place, {subject}) == [], after
        assert erasure.unfinished(copy) == []


def test_what_nobody_can_say_whose_it_is_goes_too(store: Store, subject: str) -> None:
    place = Path(store.url)
    refused = store.blobs.put(b"RIFF: the waveform of a recording that stands in no table")
    store.memorize("ab" * 32, {"waveform": refused})
    damaged = place / "corrupt/blobs/aa/damaged"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"half a table")
    store.checkpoint("cd" * 32).save(b"the state of a training")
    left = place / "tmp/left-by-a-killed-writer"
    left.write_bytes(b"half a waveform")
    os.utime(left, (time.time() - 100, time.time() - 100))
    erase(store, subject)
    assert not store.blobs.exists(refused)
    assert store.recall("ab" * 32) is None
    assert not damaged.exists()
    assert store.checkpoint("cd" * 32).load() is None
    assert not left.exists()


def test_temporary_files_of_killed_steps_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    for folder, age in (("spira-abcd1234", 90_000), ("spira-s3-abcd1234", 90_000), ("other", 1e6)):
        file = tmp_path / folder / "waveform.wav"
        file.parent.mkdir()
        file.write_bytes(b"sound")
        os.utime(file, (time.time() - age, time.time() - age))
    young = tmp_path / "spira-abcd1234/being-written"
    young.write_bytes(b"sound")
    assert erasure.sweep_scratch(tmp_path) == 2
    assert young.exists()
    assert (tmp_path / "other/waveform.wav").exists()


def test_a_report_or_a_release_that_names_a_recording_goes(store: Store, subject: str) -> None:
    rows = table(store, "recordings")
    own = rows.loc[rows["subject_id"] == subject, "record_id"].iloc[0]
    folder = Path(store.url).parent / "report"
    folder.mkdir()
    (folder / "gx.json").write_text(json.dumps({"unexpected": [own]}))
    (folder / "counts.json").write_text(json.dumps({"n": 12}))
    report = store.put_directory(folder)
    about = {"record": own, "reason": "too_short"}
    decisions.decide(store, "releases", about, "it is whole, I have listened")
    erase(store, subject)
    with pytest.raises(Exception, match="is missing"):
        store.directory(report).read("gx.json")
    assert store.directory(report).read("counts.json") == b'{"n": 12}'
    assert decisions.known(store, "releases") == []
    assert traces(Path(store.url), {own}) == []  # the audit log tells the release, not of whom


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
        erasure.erase(store, "", Holding(), "ab" * 16, "asked by ana@example.org herself")
    assert contents(store) == before
    assert main(["erase", "ab" * 32, "--reason", WHY, "--store", store.url]) == 78  # nobody to ask


def test_who_has_not_come_yet_can_be_kept_out(store: Store) -> None:
    certificate, _ = erase(store, "ab" * 32, absent=True)
    assert certificate["removed"]["n_rows"] == 0  # type: ignore[index]
    (tombstone,) = decisions.known(store, "erasures")
    assert tombstone.about == {"tag": tombstone_tag("ab" * 32)}


def test_the_certificate_names_nobody_and_a_changed_one_is_told(
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
    forged = certificates.read(store, tag)
    assert forged is not None
    assert "the signature fits: yes" in certificates.as_markdown(forged)
    forged["removed"]["n_rows"] = 1000
    assert "the signature fits: NO" in certificates.as_markdown(forged)


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
    (certificate,) = certificates.known(store)
    assert certificate["requested"]["by"].startswith("airflow:")
    conf = json.dumps({"subject": subject, "reason": WHY})
    refused = airflow("dags", "test", "spira_erasure", "-c", conf, home=home, SPIRA_STORE=store.url)
    assert refused.returncode != 0  # the form takes a tag, and nothing else
