"""What a snapshot wakes: the asset event, and what a run that was woken by it reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow.sdk import Asset, BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from spira.store import LAPTOP_STORE, own_store

NEW_RECORDINGS = Asset("spira_new_recordings")
SNAPSHOT_DAG = "spira_snapshot"  # the only one whose events count


class WakeOperator(BaseOperator):  # type: ignore[misc]
    """Wake what waits for new recordings, where the step before decided so; else it is skipped.

    The event only wakes.  Airflow may lose it or give it twice: the schedule reads the newest
    snapshot too, and a training that comes twice computes nothing the second time.
    """

    ui_color = "#e6e6e6"

    def __init__(self, *, step: str, **kwargs: Any) -> None:
        super().__init__(outlets=[NEW_RECORDINGS], **kwargs)
        self.step = step

    def execute(self, context: Context) -> None:
        try:
            content = own_store(LAPTOP_STORE).output(
                context["run_id"], self.step, "snapshot", "decision.json"
            )
        except OSError as error:
            raise AirflowException(f"the decision cannot be read: {error}") from None
        decision = json.loads(content)
        if not decision["wakes"]:
            missing = ", ".join(decision["missing"])
            raise AirflowSkipException(f"no training is woken; not reached: {missing}")
        event = {"data": decision["place"], "decision": decision["key"]}
        context["outlet_events"][NEW_RECORDINGS].extra = event


def waking_event(context: Context | Mapping[str, Any]) -> dict[str, str]:
    """The newest event that woke the run: ``data`` and ``decision``; empty where none did.

    Raises
    ------
    AirflowFailException
        When no event is of a snapshot: any user with access to the asset can send one.
    """
    woken_by = context.get("triggering_asset_events") or {}
    sent = [event for several in woken_by.values() for event in several]
    events = [event for event in sent if event.source_dag_id == SNAPSHOT_DAG]
    if sent and not events:
        raise AirflowFailException(
            f"no event that woke this run is of {SNAPSHOT_DAG}: start that DAG, or the training "
            "by its form"
        )
    newest = max(events, key=lambda event: event.timestamp, default=None)
    return dict(newest.extra) if newest is not None else {}
