"""What came, by site and day: for the data manager."""

from __future__ import annotations

from collections import Counter
from datetime import date

from pydantic import BaseModel
from sqlalchemy import Connection, select

from spira_services.collection.documents import REVISIONS, SESSIONS, SITES
from spira_services.database import now


class Day(BaseModel):
    """Numbers of sessions that first came on a day (UTC), by what they are now."""

    hospital_id: str
    day: date
    n_expected: int | None
    n_came: int
    n_accepted: int
    n_refused: int  # and not yet mended
    rules: dict[str, int]  # of the refused ones: sessions by what is wrong


def days(connection: Connection) -> list[Day]:
    """One row a site and day, the newest first; sites that sent nothing today have a row too."""
    expected = {row.hospital_id: row.expected_per_day for row in connection.execute(select(SITES))}
    newest = {
        row.session_id: row
        for row in connection.execute(select(REVISIONS).order_by(REVISIONS.c.revision))
    }
    came: Counter[tuple[date, str]] = Counter()
    accepted: Counter[tuple[date, str]] = Counter()
    rules: dict[tuple[date, str], Counter[str]] = {}
    for session in connection.execute(select(SESSIONS)):
        place = (session.received_at.date(), session.hospital_id)
        revision = newest[session.session_id]
        came[place] += 1
        accepted[place] += revision.status == "accepted"
        wrong = {problem["rule"] for problem in revision.problems}
        rules.setdefault(place, Counter()).update(wrong)
    today = now().date()
    places = {*came, *((today, hospital_id) for hospital_id in expected)}
    return [
        Day(
            hospital_id=hospital_id,
            day=day,
            n_expected=expected.get(hospital_id),
            n_came=came[day, hospital_id],
            n_accepted=accepted[day, hospital_id],
            n_refused=came[day, hospital_id] - accepted[day, hospital_id],
            rules=dict(rules.get((day, hospital_id), {})),
        )
        for day, hospital_id in sorted(places, reverse=True)
    ]
