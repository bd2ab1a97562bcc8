"""Erase a person from the collection."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from spira_services.collection.documents import CONSENTS, RECORDINGS, REVISIONS, SESSIONS
from spira_services.subjects import of_tag
from spira_services.uploads import drop
from spira_tasks.artifacts.blobs import Blobs


def forget(connection: Connection, blobs: Blobs, tag: str) -> dict[str, int]:
    """Erase the person of a tag in the caller's transaction; return what went, by counts.

    The audio goes at once and first: after a kill the rows still name what is left of it.
    """
    counts = {"n_sessions": 0, "n_files": 0}
    for subject in of_tag(connection, tag, REVISIONS.c.subject_id):
        theirs = select(REVISIONS.c.session_id, REVISIONS.c.revision, REVISIONS.c.document).where(
            REVISIONS.c.subject_id == subject
        )
        for session_id, revision, document in connection.execute(theirs).all():
            of_revision = (RECORDINGS.c.session_id == session_id, RECORDINGS.c.revision == revision)
            digests = connection.execute(select(RECORDINGS.c.sha256).where(*of_revision))
            files = set(digests.scalars())
            if spoken := document.get("consent_sha256"):
                files.add(spoken)
            connection.execute(delete(RECORDINGS).where(*of_revision))
            counts["n_files"] += drop(connection, blobs, files)
            connection.execute(
                delete(REVISIONS).where(
                    REVISIONS.c.session_id == session_id, REVISIONS.c.revision == revision
                )
            )
            left = select(REVISIONS.c.revision).where(REVISIONS.c.session_id == session_id)
            if connection.execute(left).first() is None:  # none is of another, mended number
                connection.execute(delete(CONSENTS).where(CONSENTS.c.session_id == session_id))
                connection.execute(delete(SESSIONS).where(SESSIONS.c.session_id == session_id))
                counts["n_sessions"] += 1
    return counts
