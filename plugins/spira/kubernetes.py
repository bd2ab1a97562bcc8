"""Run a step as a hardened pod that outlives its starter.

This has never run on a cluster.  Its tests validate the pod by Kubernetes' own schemas and run the
operator against a small stand-in for the API server; docs/kubernetes.md says what is not tested.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.pod_generator import make_safe_label_value
from airflow.providers.cncf.kubernetes.utils.container import get_container_status
from airflow.providers.cncf.kubernetes.utils.pod_manager import (
    PodLaunchFailedException,
    PodLaunchTimeoutException,
    PodPhase,
)
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from kubernetes.client import ApiException  # type: ignore[import-untyped, unused-ignore]
from kubernetes.client import models as k8s
from urllib3.exceptions import HTTPError

from spira import outcome
from spira.access import hidden, secrets_of
from spira.links import LINKS
from spira_tasks.contract.access import REQUIRED, STEP_ACCESS
from spira_tasks.contract.pipelines import Pipeline
from spira_tasks.contract.step import Resources, Step

USER = 10001  # the image's own
START_SECONDS = 15 * 60  # from scheduling to the first line, with the pull of the image
CPUS_KEPT_FREE = 0.5  # the request, which a node must have free; the limit is larger
LOGS_MIB = 256  # a container's only file outside memory is its log, of which the kubelet keeps 50
GPU = "nvidia.com/gpu"
ATTEMPT = "try_number"  # label of the provider: the try that owns the pod

TOLERATION = k8s.V1Toleration(key=GPU, operator="Exists", effect="NoSchedule")
POD_SECURITY = k8s.V1PodSecurityContext(
    run_as_non_root=True,
    run_as_user=USER,
    run_as_group=USER,
    fs_group=USER,
    seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
)
CONTAINER_SECURITY = k8s.V1SecurityContext(
    run_as_non_root=True,
    privileged=False,
    allow_privilege_escalation=False,
    read_only_root_filesystem=True,
    capabilities=k8s.V1Capabilities(drop=["ALL"]),
)

PLACES = {"tmp": "/tmp", "shm": "/dev/shm", "rekey": "/run/spira"}  # noqa: S108


class StepPodOperator(KubernetesPodOperator):  # type: ignore[misc]
    """Run a step of a pipeline in a pod.

    The command line, the limits, the meaning of an exit status and the record in the store are the
    same as under Docker.  The keys come from a Secret of the cluster, so they are in no pod's spec.
    When the process that follows a pod dies, the pod goes on and the next try finds it.

    A pod that asks for a GPU waits until a node has one, for ever if none has.  So a step whose GPU
    is optional asks for none, unless the site file says ``gpu_optional = false``.

    ``limits`` is what the step may use here, ``store`` the URL of the store as the step sees it.
    """

    template_fields = ()  # a step is data, not a template
    operator_extra_links = LINKS
    ui_color = "#dcd7f4"

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        limits: Resources,
        store: str,
        number: int | None = None,
        step_name: str = "",
        shard: dict[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        n_gpus = 0 if limits.gpu_optional else limits.n_gpus
        super().__init__(
            name=f"spira-{kwargs['task_id']}".replace("_", "-"),
            namespace=os.environ.get("SPIRA_KUBERNETES_NAMESPACE") or "spira",
            image_pull_policy="IfNotPresent",
            env_vars=_environment(limits, store),
            volumes=_volumes(limits),
            volume_mounts=[
                k8s.V1VolumeMount(
                    name=volume.name, mount_path=PLACES[volume.name], read_only=bool(volume.secret)
                )
                for volume in _volumes(limits)
            ],
            tolerations=[TOLERATION] if n_gpus else None,
            security_context=POD_SECURITY,
            container_security_context=CONTAINER_SECURITY,
            automount_service_account_token=False,
            active_deadline_seconds=limits.minutes * 60,  # if no process is there to stop it
            termination_grace_period=int(outcome.STOP_SECONDS),
            schedule_timeout_seconds=limits.minutes * 60,  # it may queue for a node
            startup_timeout_seconds=START_SECONDS,
            on_finish_action="delete_succeeded_pod",  # a failed one stays for a person to look at
            durable=True,
            deferrable=False,  # a triggerer does not interpret exit statuses
            do_xcom_push=False,  # no sidecar: the result is in the store
            **kwargs,
        )
        self.step_name, self.shard = step_name or self.task_id, shard
        self.pipeline = pipeline
        self.number = number
        self.limits = limits
        self.store = store
        self.n_gpus = n_gpus
        self._secrets: dict[str, str] = {}
        self._last_lines: deque[str] = deque(maxlen=outcome.N_LAST_LINES)
        self._attempt = ""
        self._succeeded = False

    def execute(self, context: Context) -> dict[str, Any]:
        self._secrets = secrets_of(self.limits)
        self.log_formatter = self._line  # not earlier: Airflow copies operators
        self._attempt = str(context["ti"].try_number)
        self._succeeded = False
        try:
            self.execute_sync(context)
        except (PodLaunchFailedException, PodLaunchTimeoutException) as error:
            raise self._not_started(error) from None
        except ApiException as error:
            if error.status == 404 and self.pod is not None:
                raise AirflowException("the pod was removed while it ran") from None
            raise AirflowException(
                f"the Kubernetes API refused: {error.status} {error.reason}; see that Airflow may "
                f"work with pods in the namespace {self.namespace!r} (docs/kubernetes.md)"
            ) from error
        except HTTPError as error:
            raise AirflowException(f"the Kubernetes API does not answer: {error}") from error
        if not self._succeeded:
            raise AirflowException("the step was stopped")
        record = outcome.result_of(
            self.store, context["run_id"], self._step(context).record, self._secrets
        )
        # With do_xcom_push False, which avoids the provider's sidecar, Airflow pushes nothing.
        context["ti"].xcom_push(key="return_value", value=record)
        return record

    def build_pod_request_obj(self, context: Context, *, dry_run: bool = False) -> k8s.V1Pod:
        step = self._step(context)
        if any(reference.startswith("folder:") for reference in step.inputs.values()):
            raise AirflowFailException(
                f"step {step.name!r} reads a folder, and a pod sees none: put the recordings into "
                "S3 and give their s3://bucket/prefix as data"
            )
        run_id = context["run_id"]
        self.cmds = [_literal(word) for word in outcome.command_line("python", step, run_id)]
        n_times = int(context["task_state_store"].get("out_of_memory", 0))
        memory_mib = outcome.memory_limit(self.limits.memory_mib, n_times)
        self.container_resources = _limits(self.limits.cpus, memory_mib, self.n_gpus)
        owner = {"dag": context["ti"].dag_id, "task": self.task_id, "run": run_id}
        actors = k8s.V1EnvVar(name="SPIRA_ACTOR", value=_literal(outcome.actor(context)))
        self.env_vars = [*_environment(self.limits, self.store), actors]
        self.labels = {f"spira.{of}": make_safe_label_value(name) for of, name in owner.items()}
        pod = super().build_pod_request_obj(context, dry_run=dry_run)
        # A Service of this namespace called spira-s3 would set SPIRA_S3_PORT.
        pod.spec.enable_service_links = False
        return pod

    def _step(self, context: Context) -> Step:
        return outcome.configured_step(
            self.step_name, self.pipeline, context, number=self.number, shard=self.shard
        )

    def get_or_create_pod(self, pod_request_obj: k8s.V1Pod, context: Context) -> k8s.V1Pod:
        pod = super().get_or_create_pod(pod_request_obj, context)
        if pod is not pod_request_obj:  # of an earlier try: from now on this try owns it
            self.log.info("found the pod of an earlier try; its log follows from the start")
            self.client.patch_namespaced_pod(
                name=pod.metadata.name,
                namespace=pod.metadata.namespace,
                body={"metadata": {"labels": {ATTEMPT: self._attempt}}},
            )
        return pod

    def on_kill(self) -> None:
        """Stop the pod if this try still owns it: a newer try may have taken it over."""
        if self.pod is None:
            return
        try:
            metadata = self.pod.metadata
            found = self.client.read_namespaced_pod(metadata.name, metadata.namespace)
        except ApiException as error:
            self.log.warning("cannot ask for the pod: %s %s", error.status, error.reason)
            return
        if found.metadata.labels.get(ATTEMPT) == self._attempt:
            self.log.info("asking the step to stop; it has %.0f s", outcome.STOP_SECONDS)
            super().on_kill()

    def cleanup(self, *, remote_pod: k8s.V1Pod, context: Context, **_others: Any) -> None:
        """Raise the failure of a pod that has ended; delete one that succeeded.

        The provider calls this after an error too.  A pod that still runs is then left alone: the
        provider's own method would hide it from the next try, which would start a second one.
        """
        phase = remote_pod.status.phase if remote_pod and remote_pod.status else None
        if self._killed or phase not in PodPhase.terminal_states:
            return
        if phase == PodPhase.SUCCEEDED:
            self._succeeded = True
            self.process_pod_deletion(remote_pod, reraise=False)
            return
        self.patch_already_checked(remote_pod, reraise=False)
        raise self._failure(remote_pod, context)

    def _failure(self, pod: k8s.V1Pod, context: Context) -> AirflowException:
        """The exception for a failed pod, by the states of pod and container."""
        name = self._step(context).record
        status = get_container_status(pod, self.base_container_name)
        ended = status.state.terminated if status else None
        if pod.status.reason or ended is None:  # evicted, past its deadline, lost with its node
            why = pod.status.reason or "no reason given"
            return AirflowException(
                f"the cluster ended step {name!r}: {why}; {pod.status.message or ''}".rstrip("; ")
            )
        if ended.reason == "OOMKilled":
            n_times = int(context["task_state_store"].get("out_of_memory", 0)) + 1
            outcome.leave_note(context["task_state_store"], "out_of_memory", n_times)
            return outcome.out_of_memory(
                self.step_name, self.limits.memory_mib, n_times, is_trial=self.number is not None
            )
        reason = ""
        if ended.exit_code in outcome.FINAL:
            reason = outcome.reason_of(self.store, context["run_id"], name, self._secrets)
        last_lines = [ended.message] if ended.message else [*self._last_lines]
        return outcome.failure(name, ended.exit_code, reason or "\n".join(last_lines))

    def _not_started(self, error: Exception) -> AirflowException:
        """The exception for a pod that did not start; deletes it, or it could still start."""
        words = [str(error), f"see that image {self.image} and the Secret are there"]
        try:
            pod = self.pod_manager.read_pod(self.pod)
            status = get_container_status(pod, self.base_container_name)
            if status and status.state.waiting:
                words.append(f"{status.state.waiting.reason}: {status.state.waiting.message or ''}")
            self.pod_manager.delete_pod(pod)
        except ApiException as api_error:
            self.log.warning("cannot remove the pod: %s %s", api_error.status, api_error.reason)
        return AirflowException("\n".join(words))

    def _line(self, container: str, text: str) -> str:  # noqa: ARG002  (the provider's signature)
        self._last_lines.append(hidden(text.rstrip(), self._secrets))
        return self._last_lines[-1]


def _secret(suffix: str) -> str:
    return f"{os.environ.get('SPIRA_KUBERNETES_SECRET') or 'spira'}-{suffix}"


def _environment(limits: Resources, store: str) -> list[k8s.V1EnvVar]:
    secret = _secret(limits.access)
    # no host has the script that the image's own SPIRA_COMMAND names
    plain = {"SPIRA_STORE": store, "SPIRA_COMMAND": ""}
    return [k8s.V1EnvVar(name=name, value=_literal(text)) for name, text in plain.items()] + [
        k8s.V1EnvVar(
            name=name,
            value_from=k8s.V1EnvVarSource(
                secret_key_ref=k8s.V1SecretKeySelector(
                    name=secret, key=name, optional=name not in REQUIRED
                )
            ),
        )
        for name in STEP_ACCESS[limits.access].variables
    ]


def _limits(cpus: float, memory_mib: int, n_gpus: int) -> k8s.V1ResourceRequirements:
    fixed = {"memory": f"{memory_mib}Mi", "ephemeral-storage": f"{LOGS_MIB}Mi"}
    if n_gpus:
        fixed[GPU] = str(n_gpus)
    return k8s.V1ResourceRequirements(
        limits={**fixed, "cpu": f"{cpus:g}"},
        requests={**fixed, "cpu": f"{min(cpus, CPUS_KEPT_FREE):g}"},
    )


def _volumes(limits: Resources) -> list[k8s.V1Volume]:
    """The folders that a step may write, and the map of a rotated key where it is needed."""
    volumes = [_memory("tmp", limits.scratch_mib), _memory("shm", limits.shm_mib)]
    if limits.access == "data":
        # Readable by the container's group alone: intake refuses a map that anybody can read.
        source = k8s.V1SecretVolumeSource(
            secret_name=_secret("rekey"), default_mode=0o440, optional=True
        )
        volumes.append(k8s.V1Volume(name="rekey", secret=source))
    return volumes


def _memory(name: str, size_mib: int) -> k8s.V1Volume:
    """A folder in memory, so that no recording reaches a node's disk; part of the memory limit."""
    source = k8s.V1EmptyDirVolumeSource(medium="Memory", size_limit=f"{size_mib}Mi")
    return k8s.V1Volume(name=name, empty_dir=source)


def _literal(text: str) -> str:
    """Escape ``$``: Kubernetes replaces ``$(NAME)`` by variables, which may be keys."""
    return text.replace("$", "$$")
