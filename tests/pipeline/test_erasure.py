"""Erasure: afterwards no store holds a byte of the person, and everybody else is untouched."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import Run
from erasing import WHY, contents, erase, fill, filled, store, subject, table, traces

from spira_tasks.artifacts import Store
from spira_tasks.cli import main
from spira_tasks.contract.step import Step
from spira_tasks.errors import GateRejected
from spira_tasks.governance import decisions, erasure, inventory, signing
from spira_tasks.governance.verification import verify
from spira_tasks.intake.pseudonyms import tombstone_tag
from spira_tasks.provenance import ROOT
from spira_tasks.runner import run_step

__all__ = ["filled", "store", "subject"]  # the fixtures


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
    (version,) = certificate["model_versions"]
    assert (version["version"], version["aliases"]) == ("1", ["challenger"])
    assert certificate["retraining_needed"] is True
    assert signing.is_signed(certificate)
    assert verify(store).problems == []

    promote = Step(
        "promote",
        "promote",
        {
            "recordings": "check_training_set.table",
            "registration": "register.registration",
            "report": "evaluate.report",
        },
    )
    with pytest.raises(GateRejected, match=r"contains_erased_subject: .*fewer than 5"):
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
    assert inventory.Survey(store).orphans() == set()  # not even listened to
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


@pytest.mark.slow
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
    removed = erasure.certificate_of(store, tombstone_tag(subject))["removed"]  # type: ignore[index]
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
    refused = store.blobs.add(b"RIFF: the waveform of a recording that stands in no table")
    store.blobs.memorize("ab" * 32, {"waveform": refused})
    store.blobs.flush()
    damaged = place / "corrupt/blobs/aa/damaged"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"half a table")
    store.checkpoint("cd" * 32).save(b"the state of a training")
    left = place / "tmp/left-by-a-killed-writer"
    left.write_bytes(b"half a waveform")
    os.utime(left, (time.time() - 100, time.time() - 100))
    erase(store, subject)
    assert not store.blobs.exists(refused)
    assert store.blobs.recall("ab" * 32) is None
    assert not damaged.exists()
    assert store.checkpoint("cd" * 32).load() is None
    assert not left.exists()


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
