"""Remove containers that no task will come back for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from airflow.sdk.exceptions import AirflowException
from docker.errors import DockerException
from requests.exceptions import RequestException
from spira_engine import LABEL, Engine, connect
from spira_site import Site

log = logging.getLogger("spira.reaper")

STOP_SECONDS = 60.0
ENDED = ("success", "failed")


def reap_all(*, keep_hours: float, state_of_run: Callable[[str, str], str]) -> dict[str, int]:
    """Look through every engine of the site.

    Parameters
    ----------
    keep_hours : float
        How long an ended container is kept.
    state_of_run : callable
        ``state_of_run(dag, run)`` is the state of a DAG run.

    Returns
    -------
    dict
        How many containers were ``stopped``, ``removed`` and ``kept``.

    Raises
    ------
    AirflowException
        When an engine does not answer, after the others were looked through.
    """
    counts = {"stopped": 0, "removed": 0, "kept": 0}
    away = []
    for name, place in Site.from_environment().engines.items():
        try:
            _reap(connect(place), keep_hours, state_of_run, counts)
        except (DockerException, RequestException) as error:
            log.warning("engine %s does not answer: %s", name or place.url, error)
            away.append(name or place.url)
    log.info("%(stopped)d stopped, %(removed)d removed, %(kept)d kept", counts)
    if away:
        raise AirflowException(f"engines that did not answer: {', '.join(away)}")
    return counts


def _reap(
    engine: Engine,
    keep_hours: float,
    state_of_run: Callable[[str, str], str],
    counts: dict[str, int],
) -> None:
    for found in engine.client.containers(all=True, filters={"label": LABEL}):
        labels, container = found["Labels"], found["Id"]
        if found["State"] == "running":
            over = time.time() > float(labels["spira.deadline"])
            if over or state_of_run(labels["spira.dag"], labels["spira.run"]) in ENDED:
                log.warning("stopping %s of run %s", labels[LABEL], labels["spira.run"])
                engine.stop(container, STOP_SECONDS)
                counts["stopped"] += 1
        elif _ended_seconds_ago(engine.client.inspect_container(container)) > keep_hours * 3600:
            engine.remove(container)
            counts["removed"] += 1
        else:
            counts["kept"] += 1


def _ended_seconds_ago(details: dict[str, Any]) -> float:
    """For how long a container has done nothing; since it was made, when it never started."""
    finished = details["State"]["FinishedAt"]
    at = details["Created"] if finished.startswith("0001") else finished
    return time.time() - datetime.fromisoformat(f"{at[:19]}+00:00").timestamp()
