"""Run a step as a hardened container that outlives its starter; clean up the engines."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from http import HTTPStatus
from typing import Any

from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRuntimeError,
    AirflowTaskTimeout,
)
from docker.errors import APIError, DockerException, NotFound
from docker.types import Mount
from requests.exceptions import RequestException

from spira import outcome
from spira.access import hidden, secrets_of
from spira.engine import (
    LABEL,
    PLATFORM,
    SAMPLE_SECONDS,
    START_SECONDS,
    Engine,
    EngineLost,
    Identity,
    Line,
    NoGPU,
    connect,
    unix_second,
)
from spira.links import LINKS
from spira.site import Place, Site, network_of, platform_of
from spira_tasks.contract.access import STEP_ACCESS
from spira_tasks.contract.pipelines import Pipeline
from spira_tasks.contract.step import Resources, Step

ENDED = ("success", "failed")  # states of a DAG run

log = logging.getLogger("spira.containers")


class StepDockerOperator(DockerOperator):  # type: ignore[misc]
    """Run a step of a pipeline in a container.

    The container is unprivileged and limited (``spira.engine``), gets its keys from Airflow's
    connections (``spira.access``) and leaves its result in the store.  When the process that
    follows it dies, the container goes on; the next try finds it by its labels, shows the lines
    that were missed, and takes its result.

    ``limits`` is what the step may use here, ``place`` its engine, ``store`` the URL of the store
    as the step sees it, and ``network`` a Docker network that reaches no more than the step needs.
    A ``shard`` runs on that of ``places`` whose turn it is.
    """

    template_fields = ()  # a step is data, not a template
    operator_extra_links = LINKS
    ui_color = "#cfe4f7"

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        limits: Resources,
        place: Place,
        store: str,
        network: str,
        number: int | None = None,
        step_name: str = "",
        shard: dict[str, int] | None = None,
        places: Sequence[Place] = (),
        **kwargs: Any,
    ) -> None:
        if shard and places:
            place = places[(shard["number"] - 1) % len(places)]
        super().__init__(docker_url=place.url, auto_remove="never", mount_tmp_dir=False, **kwargs)
        self.step_name, self.shard = step_name or self.task_id, shard
        self.place = place
        self.pipeline = pipeline
        self.number = number
        self.limits = limits
        self.store = store
        self.network = network
        self._after = ""  # timestamp of the last line in the log
        self._timed_out = False
        self._identity: Identity | None = None
        self._secrets: dict[str, str] = {}
        self._actor = ""

    def execute(self, context: Context) -> dict[str, Any]:
        step = outcome.configured_step(
            self.step_name, self.pipeline, context, number=self.number, shard=self.shard
        )
        self._secrets = secrets_of(self.limits)
        self._actor = outcome.actor(context)
        try:
            return self._run(step, context)
        except AirflowTaskTimeout:
            self._timed_out = True  # Airflow calls on_kill now, which stops the container
            raise
        except NotFound:
            raise AirflowException("the container was removed while it ran") from None
        except (EngineLost, RequestException, DockerException) as error:
            raise AirflowException(
                f"the Docker engine at {self.docker_url} does not answer as it should: {error}; "
                "see that it runs and that Airflow may use it (make doctor)"
            ) from error

    def on_kill(self) -> None:
        """Stop the container if this try still owns it: a newer try may have taken it over."""
        if self._identity is None:
            return  # stopped before there was a container
        try:
            self._stop(connect(self.place), self._identity)
        except (RequestException, DockerException) as error:  # the timeout is the error to show
            self.log.warning("cannot stop the container: %s", error)

    def _stop(self, engine: Engine, identity: Identity) -> None:
        for found in engine.find(identity):
            if found["State"] == "running" and engine.belongs_to(found["Id"], identity):
                self.log.info("asking the step to stop; it has %.0f s", outcome.STOP_SECONDS)
                engine.stop(found["Id"], outcome.STOP_SECONDS)
                if self._timed_out:  # else execute goes on and shows the last lines itself
                    self._show(engine.lines(found["Id"], self._after))

    def _run(self, step: Step, context: Context) -> dict[str, Any]:
        ti = context["ti"]
        identity = self._identity = Identity(
            dag=ti.dag_id,
            task=ti.task_id,
            run=ti.run_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
            attempt=ti.try_number,
            platform=platform_of(self.store, self.network),
        )
        notes = context["task_state_store"]
        engine = connect(self.place)  # of its own: on_kill interrupts execute's requests
        n_times = int(notes.get("out_of_memory", 0))
        limit = outcome.memory_limit(self.limits.memory_mib, n_times)

        container = self._adopt(engine, identity, step, notes)
        if container is None:
            self._after = ""
            container = self._start(engine, identity, step, limit)
        last_lines, peak_mib = self._follow(engine, container, notes)

        ending = engine.ending(container)
        if ending.status == 0:
            engine.remove(container)
            record = outcome.result_of(self.store, context["run_id"], step.record, self._secrets)
            return record | {"peak_memory_mib": peak_mib}
        # The container stays for a person to look at; spira_maintenance removes it later.
        if ending.out_of_memory:
            outcome.leave_note(notes, "out_of_memory", n_times + 1)
            seen = f"the peak seen was {peak_mib} MiB (sampled every {SAMPLE_SECONDS:.0f} s)"
            raise outcome.out_of_memory(
                self.step_name,
                self.limits.memory_mib,
                n_times + 1,
                seen,
                is_trial=self.number is not None,
            )
        reason = ""
        if ending.status in outcome.FINAL:
            reason = outcome.reason_of(self.store, context["run_id"], step.record, self._secrets)
        last_lines = [ending.error, *last_lines] if ending.error else last_lines
        raise outcome.failure(step.name, ending.status, reason or "\n".join(last_lines))

    def _adopt(self, engine: Engine, identity: Identity, step: Step, notes: Any) -> str | None:
        """Take over the container that an earlier try left running or finished; remove others.

        A failed container stays: this try is its retry.
        """
        adopted = None
        label = self._label(step, identity)
        for found in engine.find(identity):
            container, state = found["Id"], found["State"]
            finished = state == "exited" and engine.ending(container).status == 0
            if not finished and state != "running":
                continue
            if found["Labels"].get("spira.command") != label or adopted:
                self.log.warning("stopping a container of an earlier try that does other work")
                engine.stop(container, outcome.STOP_SECONDS)
                engine.remove(container)
                continue
            adopted = container
            engine.claim(container, identity)
            cursor = notes.get("log_cursor") or {}
            self._after = cursor.get("at", "") if cursor.get("container") == container else ""
            self.log.info(
                "found the container of an earlier try, %s: taking it over; lines since %s follow",
                "finished" if finished else "still working",
                self._after or "its start",
            )
        return adopted

    def _start(self, engine: Engine, identity: Identity, step: Step, limit: int) -> str:
        image_id = engine.image_id(self.image)
        if not image_id:
            raise AirflowFailException(
                f"image {self.image} is not on the engine at {self.docker_url} and cannot be "
                "pulled: build it (make images), or correct SPIRA_TASKS_IMAGE"
            )
        folders = [
            ref.removeprefix("folder:") for ref in step.inputs.values() if ref[:7] == "folder:"
        ]
        if rekey_map := self._secrets.get("SPIRA_PSEUDONYM_MAP"):
            folders.append(rekey_map)
        mounts = [Mount(folder, folder, type="bind", read_only=True) for folder in folders]

        def start(resources: Resources) -> str:
            return engine.start(
                identity,
                image=self.image,
                command=outcome.command_line("python", step, identity.run),
                environment={
                    "SPIRA_STORE": self.store,
                    "SPIRA_ACTOR": self._actor,
                    "SPIRA_IMAGE": f"{self.image} {image_id}",  # into the record of the result
                    **self.environment,
                    **self._secrets,
                },
                resources=resources,
                memory_mib=limit,
                network=self.network,
                user=self.user,
                mounts=mounts,
                labels={"spira.command": self._label(step, identity)},
            )

        try:
            container = start(self.limits)
        except NotFound as error:
            raise AirflowFailException(
                f"the engine at {self.docker_url} cannot start the container: {error.explanation}"
            ) from None
        except NoGPU as error:
            if not self.limits.gpu_optional:
                raise AirflowFailException(
                    f"step {step.name!r} needs {self.limits.n_gpus} GPU, and the engine at "
                    f"{self.docker_url} has none ({error}): install NVIDIA's container toolkit "
                    "there, name another engine in the site file, or let gpu_optional be true"
                ) from None
            self.log.warning("the engine has no GPU (%s): the step runs without", error)
            container = start(dataclasses.replace(self.limits, n_gpus=0))
        self.log.info("container %s of image %s", container[:12], self.image)
        return container

    def _label(self, step: Step, identity: Identity) -> str:
        """Hash of image and command: an older DAG or image makes a container with another one."""
        work = [self.image, *outcome.command_line("python", step, identity.run)]
        return sha256("\0".join(work).encode()).hexdigest()[:16]

    def _follow(self, engine: Engine, container: str, notes: Any) -> tuple[list[str], int]:
        """Show a container's lines until it ends; return the last of them and its memory's peak."""
        last_lines: list[str] = []
        peak_mib, sampled_at = 0, 0.0
        for lines in engine.follow(container, self._after):
            if lines:
                last_lines = (last_lines + self._show(lines))[-outcome.N_LAST_LINES :]
                outcome.leave_note(notes, "log_cursor", {"container": container, "at": self._after})
            if time.monotonic() - sampled_at > SAMPLE_SECONDS:
                sampled_at = time.monotonic()
                # The container may have just ended; engine.follow reports an engine that is away.
                with suppress(APIError, RequestException):
                    peak_mib = max(peak_mib, engine.memory_mib(container))
        return last_lines, peak_mib

    def _show(self, lines: list[Line]) -> list[str]:
        shown = []
        for line in lines:
            text = hidden(line.text, self._secrets)
            self.log.info("%s", text)
            shown.append(text)
            self._after = line.at
        return shown


def reap_all(*, keep_hours: float, state_of_run: Callable[[str, str], str]) -> dict[str, int]:
    """Remove the containers of every engine of the site that no task comes back for.

    ``keep_hours`` is how long an ended container is kept, ``state_of_run(dag, run)`` the state of a
    DAG run.  Returns how many containers were ``stopped``, ``removed`` and ``kept``.  Raises
    AirflowException when an engine does not answer, after the others were done.
    """
    counts = {"stopped": 0, "removed": 0, "kept": 0}
    store = os.environ.get("SPIRA_STORE", "")
    away = []
    for name, place in Site.from_environment().engines.items():
        try:
            engine = connect(place)
            every = [
                found
                for network in {network_of(access) for access in STEP_ACCESS}
                for found in engine.client.containers(
                    all=True,
                    filters={"label": [LABEL, f"{PLATFORM}={platform_of(store, network)}"]},
                )
            ]
            for found in every:
                try:
                    if done := _reap(engine, found, keep_hours, state_of_run):
                        counts[done] += 1
                except NotFound:
                    continue  # its task has removed it meanwhile
        except (DockerException, RequestException) as error:
            log.warning("engine %s does not answer: %s", name or place.url, error)
            away.append(name or place.url)
    log.info("%(stopped)d stopped, %(removed)d removed, %(kept)d kept", counts)
    if away:
        raise AirflowException(f"engines that did not answer: {', '.join(away)}")
    return counts


def _reap(
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
        engine.stop(container, outcome.STOP_SECONDS)
        return "stopped"
    seconds = _ended_seconds_ago(engine.client.inspect_container(container))
    least = START_SECONDS if found["State"] == "created" else 0.0
    if seconds <= max(keep_hours * 3600, least):
        return "kept"
    engine.remove(container)
    return "removed"


def _has_ended(labels: dict[str, str], state_of_run: Callable[[str, str], str]) -> bool:
    """Whether the DAG run of a container has ended or was deleted."""
    try:
        return state_of_run(labels["spira.dag"], labels["spira.run"]) in ENDED
    except AirflowRuntimeError as error:
        if (error.error.detail or {}).get("status_code") == HTTPStatus.NOT_FOUND:
            return True
        log.warning("Airflow does not give the state of run %s: %s", labels["spira.run"], error)
        return False


def _ended_seconds_ago(details: dict[str, Any]) -> float:
    """How long ago a container ended, or was made when it never started."""
    finished = details["State"]["FinishedAt"]
    at = details["Created"] if finished.startswith("0001") else finished
    return time.time() - unix_second(at)
