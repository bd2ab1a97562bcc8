"""How good the labels of a snapshot are: what no table of recordings says, for its sheet (S7, G13).

All of it follows from label events, and not from the day on which somebody asks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import isnan
from statistics import median
from typing import Any

from sqlalchemy import Connection

from expectations.limits import (
    MIN_AGREEMENT,
    MIN_SESSIONS_TO_AGREE_ON,
    SECOND_OPINION_FRACTION,
    tolerated,
)
from expectations.words.verdicts import sentence
from spira_services.labels import reliability
from spira_services.labels.agreement import Table
from spira_services.labels.assignment import REDUNDANCY
from spira_services.labels.reliability import Agreement
from spira_services.labels.store import LABEL, LabelEvent, events_as_of
from spira_tasks.contract.verdict import Number, Verdict

PEOPLE = ("clinician", "adjudication")


@dataclass(frozen=True)
class Labels:
    """What a sheet says of the labels of a snapshot."""

    n_sessions_by_source: Mapping[str, int]
    median_days: float | None  # from a recording to what a person said of it
    checks: tuple[Verdict, ...]

    def checks_in_words(self) -> str:
        return "\n".join(f"{one.status}: {sentence(one, 'en')}" for one in self.checks)


def of(connection: Connection, as_of: datetime, rows: Iterable[Mapping[str, Any]]) -> Labels:
    """Judge the labels of the rows of a snapshot, by what the store knew at its time."""
    sources = {str(row["session_id"]): str(row["label_source"]) for row in rows}
    said = [
        event
        for event in events_as_of(connection, as_of, LABEL)
        if event.item_kind == "session" and event.item_id in sources
    ]
    people = [event for event in said if event.source in PEOPLE]
    days = [(event.recorded_at - event.valid_from).total_seconds() / 86_400 for event in people]
    overall = reliability.agreement(Table.of(said).ratings)
    return Labels(
        n_sessions_by_source=dict(sorted(Counter(sources.values()).items())),
        median_days=round(median(days), 1) if days else None,
        checks=(agreement(overall), second_opinion(people, len(sources))),
    )


def agreement(found: Agreement) -> Verdict:
    """Whether clinicians who label the same sessions agree beyond chance."""
    enough = found.n_items >= MIN_SESSIONS_TO_AGREE_ON and not isnan(found.alpha)
    good = found.alpha >= MIN_AGREEMENT
    return Verdict(
        "label_agreement",
        "insufficient" if not enough else "pass" if good else "warn",
        observed=Number(round(found.alpha, 4)) if enough else None,
        threshold=MIN_AGREEMENT,
        n=found.n_items,
        suite="labels",
        severity="warning",
    )


def second_opinion(people: Iterable[LabelEvent], n_sessions: int) -> Verdict:
    """Whether most labels rest on two clinicians, or on an adjudicator."""
    heard: dict[str, set[str]] = defaultdict(set)
    judged = set()
    for event in people:
        heard[event.item_id].add(event.annotator)
        judged |= {event.item_id} if event.source == "adjudication" else set()
    several = judged | {item for item, names in heard.items() if len(names) >= REDUNDANCY}
    n_alone = n_sessions - len(several)
    return Verdict(
        "second_opinion",
        "warn" if n_alone > tolerated(n_sessions, SECOND_OPINION_FRACTION) else "pass",
        observed=Number(round(n_alone / n_sessions, 4), "share") if n_sessions else None,
        threshold=SECOND_OPINION_FRACTION,
        n=n_sessions,
        suite="labels",
        severity="warning",
    )
