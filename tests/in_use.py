"""Let a version serve, without the act of a promotion around it."""

from __future__ import annotations

from spira_tasks.tracking import Tracker


def put_into_use(tracker: Tracker, version: str) -> None:
    """Make a version the champion, and the champion that it replaces ``previous``."""
    tracker.assign(version, tracker.replaced_by(version))
