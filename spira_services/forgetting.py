"""Erase a person from all that the services hold: documents, audio, labels, snapshots, requests."""

from __future__ import annotations

from contextlib import suppress

from sqlalchemy import Engine

from spira_services import snapshot
from spira_services.collection import erasure
from spira_services.collection.documents import REVISIONS
from spira_services.database import now
from spira_services.hospitals import kept
from spira_services.hospitals.kept import FACTS
from spira_services.labels import store as labels
from spira_services.labels.store import ITEMS
from spira_services.serving import inferences
from spira_services.serving.tables import INFERENCES
from spira_services.subjects import begin_erasure, note_erasure, of_tag
from spira_tasks.artifacts.blobs import Blobs
from spira_tasks.artifacts.sources import NEWEST, open_backend
from spira_tasks.errors import ConfigError
from spira_tasks.intake.pseudonyms import tombstone_tag

# Where a person is named; each may be the last to do so.
NAMED_IN = REVISIONS.c.subject_id, INFERENCES.c.subject_id, ITEMS.c.subject, FACTS.c.subject_id


def forget(engine: Engine, blobs: Blobs, snapshots: str, tag: str, actor: str) -> dict[str, int]:
    """Erase the person of a tag; repeating it changes nothing.

    A snapshot with the person is deleted whole, as it is named by its content; the newest is
    written again without the person.  The session may come again from a device that was away: it is
    refused, and nothing of it is kept.

    Parameters
    ----------
    engine : Engine
    blobs : Blobs
        Store A.
    snapshots : str
        Folder, or ``s3://bucket/prefix``, that holds the snapshots.
    tag : str
        Of the tombstone, 32 hex digits.
    actor : str

    Returns
    -------
    dict
        How many of what went: ``n_snapshots``, ``n_sessions``, ``n_files``, ``n_facts`` of
        hospitals, ``n_label_events``, ``n_inferences``.
    """
    counts = {"n_snapshots": 0, "n_facts": 0, "n_label_events": 0}
    with engine.begin() as connection:
        labels.serialise(connection)  # a sync of a hospital comes before or after
        begin_erasure(connection, tag)
        # The sessions go first: what is left of them would be lent to the labels again.
        subjects = {one for column in NAMED_IN for one in of_tag(connection, tag, column)}
        counts["n_inferences"] = inferences.forget(connection, blobs, tag)
        note_erasure(connection, tag, actor)
        counts |= erasure.forget(connection, blobs, tag)
        for subject in subjects:
            counts["n_facts"] += kept.forget(connection, subject)
            counts["n_label_events"] += labels.forget(connection, subject)
    # The copies last: a snapshot that is being written is there by now, or finds the erasure.
    counts["n_snapshots"] = _delete_snapshots(snapshots, tag)
    if counts["n_snapshots"] and open_backend(snapshots).find(NEWEST) is None:
        with suppress(ConfigError):  # the person was the only one: there is none to write
            snapshot.write(engine, blobs, snapshots, now())
    return counts


def _delete_snapshots(under: str, tag: str) -> int:
    """Delete the snapshots that hold a person, and the mark of the newest if it is one of them."""
    everything = open_backend(under)
    n_deleted = 0
    for name, rows in snapshot.tables(under):
        if not any(tombstone_tag(row["patient_pid"]) == tag for row in rows):
            continue
        if name.encode() in (everything.read(NEWEST) or b""):
            everything.delete(NEWEST)
        snapshot.delete(under, name)
        n_deleted += 1
    return n_deleted
