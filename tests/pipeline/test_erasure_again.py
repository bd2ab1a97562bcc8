"""Erasing again, once what was at work has ended, mends what it left behind."""

from __future__ import annotations

import io
import os
import tempfile
import time
from pathlib import Path

import pandas as pd
import pytest
from erasing import erase, filled, is_marked, register, store, subject, table, traces

from spira_tasks import scratch
from spira_tasks.artifacts import Store
from spira_tasks.governance import inventory
from spira_tasks.intake.pseudonyms import tombstone_tag

__all__ = ["filled", "store", "subject"]  # the fixtures


def output(store: Store, step: str, name: str) -> str:
    record = store.runs.step("r", step)
    assert record is not None
    return str(record.outputs[name])


def features_table(store: Store) -> tuple[str, bytes]:
    """Digest and content of the table that knows recordings, but not whose they are."""
    digest = store.files(output(store, "materialize", "features"))["features.parquet"]
    return digest, store.blobs.read(digest)


def test_a_version_that_was_registered_meanwhile_is_marked_and_reported(
    store: Store, subject: str, tmp_path: Path
) -> None:
    recordings = output(store, "split", "recordings")
    rows = table(store, "recordings", "split")
    task = rows.loc[(rows["subject_id"] == subject) & (rows["split"] != "test"), "task"].iloc[0]
    first, _ = erase(store, subject)
    version = register(store, recordings, tmp_path, str(task))
    second, changed = erase(store, tombstone_tag(subject))
    assert changed
    assert is_marked(store)
    assert [one["version"] for one in second["model_versions"]] == [version]
    assert second["removed"] == first["removed"]
    assert second["replaces"] == first["audit"]
    assert erase(store, tombstone_tag(subject)) == (second, False)


def test_a_table_that_a_step_stored_again_goes_with_what_it_alone_names(
    store: Store, subject: str
) -> None:
    digest, content = features_table(store)
    features = pd.read_parquet(io.BytesIO(content))
    rows = table(store, "recordings")
    own = set(rows.loc[rows["subject_id"] == subject, "record_id"])
    (matrix,) = features.loc[features["record_id"].isin(own), "features"]
    sound = store.blobs.read(matrix)
    first, _ = erase(store, subject)
    others = table(store, "features", "materialize")
    assert store.blobs.put(content) == digest
    assert store.blobs.put(sound) == matrix

    second, changed = erase(store, tombstone_tag(subject))

    assert changed
    assert not store.blobs.exists(digest)
    assert not store.blobs.exists(matrix)
    assert traces(Path(store.url), own) == []
    pd.testing.assert_frame_equal(table(store, "features", "materialize"), others)
    tag = tombstone_tag(subject)
    held = [{one["digest"] for one in made["dataset_versions"]} for made in (first, second)]
    assert held[1] >= held[0]
    assert erase(store, tag) == (second, False)


def test_erasing_somebody_else_does_not_make_a_copy_of_a_table_that_was_stored_again(
    store: Store, subject: str
) -> None:
    digest, content = features_table(store)
    rows = table(store, "recordings")
    own = set(rows.loc[rows["subject_id"] == subject, "record_id"])
    erase(store, subject)
    assert store.blobs.put(content) == digest
    erase(store, str(rows["subject_id"].iloc[-1]))
    assert traces(Path(store.url), own) == []
    assert inventory.revived(store) == set()
    assert len(table(store, "features", "materialize")) == 4


def test_what_a_step_that_was_killed_meanwhile_left_goes_and_is_reported(
    store: Store, subject: str
) -> None:
    """An ingest stores a waveform and remembers it long before there is a table that names it."""
    first, _ = erase(store, subject)
    waveform = store.blobs.add(b"RIFF: what the ingest had heard of the person")
    store.blobs.memorize("ab" * 32, {"waveform": waveform})
    store.blobs.flush()
    place = Path(tempfile.gettempdir()) / "spira-abcd1234"  # nobody holds it
    place.mkdir()
    (place / "waveform.wav").write_bytes(b"RIFF: half of it")
    second, changed = erase(store, tombstone_tag(subject))
    assert changed
    assert not store.blobs.exists(waveform)
    assert store.blobs.recall("ab" * 32) is None
    assert not place.exists()
    assert second["removed"] == first["removed"]
    assert second["replaces"] == first["audit"]
    assert erase(store, tombstone_tag(subject)) == (second, False)


@pytest.mark.parametrize("folder", ["corrupt", "checkpoints", "tmp"])
def test_erasing_again_removes_each_kind_of_thing_that_may_be_the_persons(
    store: Store, subject: str, folder: str
) -> None:
    erase(store, subject)
    left = Path(store.url) / folder / "left-by-a-killed-step"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"half a waveform")
    os.utime(left, (time.time() - 100, time.time() - 100))
    assert erase(store, tombstone_tag(subject))[1] is True
    assert not left.exists()
    assert erase(store, tombstone_tag(subject))[1] is False


def test_temporary_files_of_a_living_step_are_no_reason_to_erase_again(
    store: Store, subject: str
) -> None:
    erase(store, subject)
    with scratch.folder() as folder:
        (folder / "waveform.wav").write_bytes(b"RIFF: of somebody else")
        assert erase(store, tombstone_tag(subject))[1] is False
        assert (folder / "waveform.wav").exists()
