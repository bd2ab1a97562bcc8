"""What production gives back to the labels: recordings to label, and what became of answers."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, and_, exists, select

from spira_services import events
from spira_services.database import now
from spira_services.devices import Device
from spira_services.labelling import OfCollection
from spira_services.labels import assignment, store
from spira_services.labels.policy import settled
from spira_services.labels.store import ITEMS
from spira_services.serving import inferences, telemetry
from spira_services.serving.tables import INFERENCES, PREDICTIONS
from spira_services.serving.telemetry import AT, Extract, Moments, Rule
from spira_tasks.artifacts.blobs import Blobs

ACTION = "label_sample"
# Who cannot be found again cannot withdraw: without a pseudonym nothing is labelled.
MAY_BE_LABELLED = and_(
    INFERENCES.c.deleted_at.is_(None),
    INFERENCES.c.subject_id.is_not(None),
    INFERENCES.c.agreed["labels"].as_boolean(),
)
IS_ITEM = exists().where(
    ITEMS.c.item_kind == "inference", ITEMS.c.item_id == INFERENCES.c.inference_id
)


def register(connection: Connection) -> None:
    """Make inferences known to the labels, so that what is said of their people is of them too."""
    store.serialise(connection)  # an erasure comes before or after, and not between
    for row in connection.execute(select(INFERENCES).where(MAY_BE_LABELLED, ~IS_ITEM)).all():
        item = row.inference_id, row.subject_id, row.recorded_at
        store.register_item(connection, "inference", *item)


def forget_removed(connection: Connection) -> None:
    """Forget what the labels know of inferences whose rows are past their time."""
    store.serialise(connection)
    is_there = exists().where(INFERENCES.c.inference_id == ITEMS.c.item_id)
    gone = select(ITEMS.c.item_id).where(ITEMS.c.item_kind == "inference", ~is_there)
    found = connection.execute(gone.limit(store.AT_ONCE)).scalars().all()
    store.forget_items(connection, "inference", found)


def delete_own(engine: Engine, blobs: Blobs, device: Device, inference_id: str) -> None:
    """Delete an inference as ``inferences.delete_own`` does, and what the labels know of it."""
    with engine.begin() as connection:
        store.serialise(connection)  # ``register`` comes before or after
        inferences.delete_own(connection, blobs, device, inference_id)
        store.forget_items(connection, "inference", [inference_id])


@dataclass(frozen=True)
class OfProduction(OfCollection):
    """The sessions of the collection, and the inferences that are labelled."""

    def recordings(self, connection: Connection, session_id: str) -> Mapping[str, str]:
        asked = select(INFERENCES.c.task, INFERENCES.c.sha256)
        asked = asked.where(INFERENCES.c.inference_id == session_id, MAY_BE_LABELLED)
        asked_for = {row.task: f"sha256:{row.sha256}" for row in connection.execute(asked)}
        return asked_for or super().recordings(connection, session_id)


def sample(connection: Connection, day: date, rule: Rule) -> dict[str, int]:
    """Have recordings of a day labelled, once: the least sure answers, then some of each site.

    Parameters
    ----------
    connection : Connection
    day : date
        Of UTC, and over.
    rule : Rule
        How many, and the seed.

    Returns
    -------
    dict
        ``n_uncertain`` and ``n_by_site``; nothing where the day was sampled before.
    """
    register(connection)
    begin = datetime.combine(day, time(), UTC)
    asked = (
        select(
            *(INFERENCES.c.inference_id, INFERENCES.c.hospital_id),
            *(PREDICTIONS.c.probability, PREDICTIONS.c.operating_point),
        )
        .join(PREDICTIONS, PREDICTIONS.c.inference_id == INFERENCES.c.inference_id)
        .where(
            *(INFERENCES.c.received_at >= begin, PREDICTIONS.c.shown, MAY_BE_LABELLED),
            INFERENCES.c.received_at < begin + timedelta(days=1),
            PREDICTIONS.c.probability.is_not(None),
        )
    )

    def drawn(inference_id: str) -> str:
        return hashlib.sha256(f"{rule.sample_seed} {inference_id}".encode()).hexdigest()

    rows = sorted(connection.execute(asked).all(), key=lambda row: drawn(row.inference_id))
    by_doubt = sorted(rows, key=lambda row: abs(row.probability - row.operating_point))
    uncertain = [row.inference_id for row in by_doubt[: rule.sample_uncertain]]
    sites: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.inference_id not in uncertain:
            sites[row.hospital_id].append(row.inference_id)
    in_turn = sorted(
        (place, drawn(one), one) for theirs in sites.values() for place, one in enumerate(theirs)
    )
    by_site = [one for _, _, one in in_turn[: rule.sample_a_day - len(uncertain)]]
    chosen = {"uncertain": uncertain, "by_site": by_site}
    said = {"day": str(day), "seed": rule.sample_seed, "n_of": len(rows), **chosen}
    if not events.record(connection, "telemetry", ACTION, f"{ACTION}:{day}", said):
        return {}
    for one in (*uncertain, *by_site):
        assignment.open_task(connection, "inference", one)
    return {"n_uncertain": len(uncertain), "n_by_site": len(by_site)}


def _outcomes(connection: Connection, moments: Moments) -> Iterator[Mapping[str, Any]]:
    """Labels that came to hold, or changed, within a time."""
    begin, end = (min(moment, now()) for moment in moments)
    before = {one.session_id: one for one in settled(connection, begin, item_kind="inference")}
    for one in settled(connection, end, item_kind="inference"):
        if before.get(one.session_id) != one:
            yield {**vars(one), "inference_id": one.session_id, "by": one.reason["by"], "at": end}


OUTCOMES: Mapping[str, Extract] = {
    "outcomes": Extract(
        {
            **dict.fromkeys(("inference_id", "label_source", "by"), "string"),
            **dict.fromkeys(("ri_clinical", "label_version"), "int64"),
            "label_confidence": "float64",
            "at": AT,
        },
        _outcomes,
    )
}


def close_days(
    engine: Engine, under: str, moment: datetime, rule: Rule
) -> tuple[list[telemetry.Day], int]:
    """Export each day that is over and have a sample of it labelled; the days, and how many."""
    with engine.begin() as connection:
        forget_removed(connection)
        register(connection)
    wait = timedelta(hours=rule.closed_after_hours)
    days = [*telemetry.export(engine, under, moment, OUTCOMES, wait)]
    n_sampled = 0
    with engine.begin() as connection:  # also days of which an export was killed before this
        exported = telemetry.days_of(connection, telemetry.ACTION)
        for day in sorted(exported - telemetry.days_of(connection, ACTION)):
            n_sampled += sum(sample(connection, day, rule).values())
    return days, n_sampled
