"""When enough is new: the rule that wakes a training, and the decision as an event.

The decision is a row with a unique key.  What Airflow makes of it may come twice or never: a
training that is woken twice finds all it computed, and the schedule trains on the newest snapshot.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Connection, select
from sqlalchemy.engine import Row

from spira_services import events
from spira_services.events import EVENTS
from spira_tasks.config import StageConfig

FILE = Path(__file__).parent.parent / "expectations" / "retraining.toml"
ACTION = "training"
LABELS = ("0", "1")

Count = Annotated[int, Field(ge=0)]
People = Mapping[tuple[str, str], int]  # (site, subject) to the label


class Rule(StageConfig):
    """What has to be new for a training; ``expectations/retraining.toml`` says what and why."""

    owner: str
    of_each_label: Count
    of_each_label_at_a_site: Count
    sites: Count
    cool_down_hours: Annotated[float, Field(ge=0)]


def rule() -> Rule:
    """The rule of the file."""
    return Rule.model_validate(tomllib.loads(FILE.read_text("utf-8")))


@dataclass(frozen=True)
class Decision:
    """Whether a snapshot wakes a training, and by what."""

    wakes: bool
    key: str  # of the event; the same for the same snapshot
    missing: tuple[str, ...]  # names in the rule that are not reached
    new: Mapping[str, Mapping[str, int]]  # people by site and label
    since: str  # the snapshot that woke the training before


def people_of(rows: Iterable[Mapping[str, Any]]) -> People:
    """The people in the rows of a snapshot, with the site and the label."""
    return {(row["hospital_id"], row["patient_pid"]): row["ri_clinical"] for row in rows}


def key_of(snapshot: str) -> str:
    """The unique key of the decision on a snapshot."""
    return f"{ACTION}:{snapshot}"


def last(connection: Connection, but: str = "") -> Row[Any] | None:
    """The last decision for a training, but that of a key; its details hold ``as_of``."""
    asked = select(EVENTS).where(EVENTS.c.action == ACTION, EVENTS.c.unique_key != but)
    return connection.execute(asked.order_by(EVENTS.c.number.desc())).first()


def decide(
    connection: Connection,
    snapshot: Mapping[str, str],
    new: People,
    by: Rule,
    *,
    run_id: str,
    moment: datetime,
) -> Decision:
    """Decide once for a snapshot, in the caller's transaction.

    Parameters
    ----------
    snapshot : mapping of str to str
        ``name``, ``place`` and ``as_of`` of it.
    new : People
        Who was not in the snapshot of the decision before, or with another label.
    by : Rule
    run_id : str
        Of the run that asks.  Asked again by the same run, the answer is the same; another run
        finds that the snapshot has woken a training.
    moment : datetime
        Now, for the cool-down.
    """
    key = key_of(snapshot["name"])
    before = last(connection, key)
    counts = {
        site: dict(Counter(str(label) for (at, _), label in new.items() if at == site))
        for site in sorted({site for site, _ in new})
    }
    since = str(before.details["name"]) if before is not None else ""
    earlier = connection.execute(select(EVENTS).where(EVENTS.c.unique_key == key)).first()
    if earlier is not None:
        # A try of the same run that was killed may not have woken anybody yet.
        is_mine = earlier.details["run"] == run_id
        return Decision(is_mine, key, () if is_mine else ("new_snapshot",), counts, since)
    totals = Counter(str(label) for label in new.values())
    counting = [
        site
        for site, of_label in counts.items()
        if all(of_label.get(label, 0) >= by.of_each_label_at_a_site for label in LABELS)
    ]
    reached = {
        "of_each_label": all(totals[label] >= by.of_each_label for label in LABELS),
        "sites": len(counting) >= by.sites,
        "cool_down_hours": before is None
        or moment - before.at >= timedelta(hours=by.cool_down_hours),
    }
    missing = tuple(name for name, is_reached in reached.items() if not is_reached)
    if not missing:
        about = {"new": counts, "since": since, "rule": by.model_dump(), "run": run_id}
        events.record(connection, f"run:{run_id}", ACTION, key, {**snapshot, **about})
    return Decision(not missing, key, missing, counts, since)
