"""Remove containers that no task will come back for."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError
from docker.errors import DockerException, NotFound
from requests.exceptions import RequestException
from spira_engine import START_SECONDS, Engine, connect
from spira_identity import LABEL, PLATFORM
from spira_site import Site, platform_of

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
    labels = [LABEL, f"{PLATFORM}={_own_platform()}"]
    for found in engine.client.containers(all=True, filters={"label": labels}):
        try:
            if done := _deal_with(engine, found, keep_hours, state_of_run):
                counts[done] += 1
        except NotFound:
            continue  # its task has removed it meanwhile


def _deal_with(
    engine: Engine,
    found: dict[str, Any],
    keep_hours: float,
    state_of_run: Callable[[str, str], str],
) -> str:
    labels, container = found["Labels"], found["Id"]
    if found["State"] == "running":
        over = time.time() > float(labels["spira.deadline"])
        if not over and not _has_ended(labels, state_of_run):
            return ""
        log.warning("stopping %s of run %s", labels[LABEL], labels["spira.run"])
        engine.stop(container, STOP_SECONDS)
        return "stopped"
    seconds = _ended_seconds_ago(engine.client.inspect_container(container))
    least = START_SECONDS if found["State"] == "created" else 0.0  # somebody is about to start it
    if seconds <= max(keep_hours * 3600, least):
        return "kept"
    engine.remove(container)
    return "removed"


def _has_ended(labels: dict[str, str], state_of_run: Callable[[str, str], str]) -> bool:
    """Whether a container's DAG run has; one that somebody deleted has too."""
    try:
        return state_of_run(labels["spira.dag"], labels["spira.run"]) in ENDED
    except AirflowRuntimeError as error:
        if (error.error.detail or {}).get("status_code") == HTTPStatus.NOT_FOUND:
            return True
        log.warning("Airflow does not tell the state of run %s: %s", labels["spira.run"], error)
        return False


def _own_platform() -> str:
    network = os.environ.get("SPIRA_NETWORK", "spira_steps")
    return platform_of(os.environ.get("SPIRA_STORE", ""), network)


def _ended_seconds_ago(details: dict[str, Any]) -> float:
    """For how long a container has done nothing; since it was made, when it never started."""
    finished = details["State"]["FinishedAt"]
    at = details["Created"] if finished.startswith("0001") else finished
    return time.time() - datetime.fromisoformat(f"{at[:19]}+00:00").timestamp()
