"""What came, by site and day, and what waits for a consent: for the data manager."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta

from pydantic import BaseModel
from sqlalchemy import Connection, func, select

from spira_services.collection import form
from spira_services.collection.documents import CONSENTS, REVISIONS, SESSIONS
from spira_services.collection.form import Words
from spira_services.devices import SITES

N_DAYS = 31  # up to the time that is asked for


class Wrong(BaseModel):
    """Refused sessions with the same fault; one session may have several."""

    field: str  # of the form, or a task
    rule: str
    n_sessions: int


class Day(BaseModel):
    """Numbers of sessions that first came on a day (UTC), by what they were at the time."""

    hospital_id: str
    day: date
    n_expected: int | None
    n_came: int
    n_accepted: int
    n_refused: int  # and not yet mended
    wrong: list[Wrong]


class Pending(BaseModel):
    """A session of which the consent is still asked for."""

    session_id: str
    hospital_id: str
    received_at: datetime
    version: str
    scope: str


class Overview(BaseModel):
    as_of: datetime
    days: list[Day]
    pending: list[Pending]
    titles: dict[str, Words]  # of fields and tasks, by language


def overview(connection: Connection, as_of: datetime) -> Overview:
    """One row a site and day, the newest first; a day on which a site sent nothing has one, too."""
    as_of = as_of.astimezone(UTC)  # of which the days are
    titles = {field.name: field.title for field in form.FIELDS}
    titles |= {task.task: task.title for task in form.TASKS}
    return Overview(
        as_of=as_of,
        days=_days(connection, as_of),
        pending=_pending(connection, as_of),
        titles=titles,
    )


def _days(connection: Connection, as_of: datetime) -> list[Day]:
    last = as_of.date()
    period = [last - timedelta(days=n) for n in range(N_DAYS)]
    expected = {row.hospital_id: row.expected_per_day for row in connection.execute(select(SITES))}
    begun = select(SESSIONS.c.hospital_id, func.min(SESSIONS.c.received_at))
    first = {row[0]: row[1].date() for row in connection.execute(begun.group_by("hospital_id"))}
    came: Counter[tuple[date, str]] = Counter()
    accepted: Counter[tuple[date, str]] = Counter()
    wrong: dict[tuple[date, str], Counter[tuple[str, str]]] = {}
    revisions = (
        select(SESSIONS.c.hospital_id, SESSIONS.c.received_at, REVISIONS)
        .join(SESSIONS, SESSIONS.c.session_id == REVISIONS.c.session_id)
        .where(REVISIONS.c.received_at <= as_of, SESSIONS.c.received_at > as_of - timedelta(N_DAYS))
        .order_by(REVISIONS.c.revision)
        .with_only_columns(
            SESSIONS.c.session_id,
            SESSIONS.c.hospital_id,
            SESSIONS.c.received_at,
            REVISIONS.c.status,
            REVISIONS.c.problems,
        )
    )
    newest = {row.session_id: row for row in connection.execute(revisions)}
    for row in newest.values():
        place = (row.received_at.date(), row.hospital_id)
        came[place] += 1
        accepted[place] += row.status == "accepted"
        faults = {(problem["field"], problem["rule"]) for problem in row.problems}
        wrong.setdefault(place, Counter()).update(faults)
    places = {
        (day, site)
        for site in expected
        for day in period
        if day == last or day >= first.get(site, last)
    }
    return [
        Day(
            hospital_id=hospital_id,
            day=day,
            n_expected=expected.get(hospital_id),
            n_came=came[day, hospital_id],
            n_accepted=accepted[day, hospital_id],
            n_refused=came[day, hospital_id] - accepted[day, hospital_id],
            wrong=[
                Wrong(field=field, rule=rule, n_sessions=n)
                for (field, rule), n in sorted(wrong.get((day, hospital_id), {}).items())
            ],
        )
        for day, hospital_id in sorted(places, key=lambda place: (-place[0].toordinal(), place[1]))
    ]


def _pending(connection: Connection, as_of: datetime) -> list[Pending]:
    rows = (
        select(CONSENTS, SESSIONS.c.hospital_id)
        .join(SESSIONS, SESSIONS.c.session_id == CONSENTS.c.session_id)
        .where(CONSENTS.c.received_at <= as_of)
        .order_by(CONSENTS.c.number)
    )
    newest = {row.session_id: row for row in connection.execute(rows)}
    return [
        Pending.model_validate(row, from_attributes=True)
        for row in newest.values()
        if row.status == "pending"
    ]
