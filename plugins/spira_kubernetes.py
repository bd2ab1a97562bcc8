"""Run a step as a hardened pod that outlives whoever started it.

This has never met a cluster.  Its tests hold the pod against Kubernetes' own schema and let the
operator speak to a small stand-in for the API server; docs/kubernetes.md says what that leaves out.
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
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowRuntimeError
from kubernetes.client import ApiException  # type: ignore[import-untyped, unused-ignore]
from kubernetes.client import models as k8s
from spira_identity import actor
from spira_links import LINKS
from spira_secrets import hidden, secrets_of
from spira_status import (
    FINAL,
    command_line,
    failure,
    memory_limit,
    out_of_memory,
    reason_of,
    result_of,
)
from urllib3.exceptions import HTTPError

from spira_tasks.contract.pipelines import Pipeline
from spira_tasks.contract.step import Resources

USER = 10001  # the image's own
STOP_SECONDS = 60  # for a step to save its state after SIGTERM
START_SECONDS = 15 * 60  # from a node to the first line: the image may have to be pulled
CPUS_KEPT_FREE = 0.5  # what a node must have left; the limit is what a step may use
LOGS_MIB = 256  # a container's only file outside memory is its log, of which the kubelet keeps 50
N_LAST_LINES = 12
GPU = "nvidia.com/gpu"
ATTEMPT = "try_number"  # label of the provider: which try follows the pod

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

# Variables that a step takes from its Secret; as in spira_secrets.
NEEDED = ("SPIRA_S3_ENDPOINT", "SPIRA_S3_ACCESS_KEY", "SPIRA_S3_SECRET_KEY")
MLFLOW = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
VARIABLES = {
    "store": (*NEEDED, "SPIRA_S3_REGION"),
    "data": (*NEEDED, "SPIRA_S3_REGION", "SPIRA_PSEUDONYM_KEY", "SPIRA_PSEUDONYM_MAP"),
    "models": (*NEEDED, "SPIRA_S3_REGION", *MLFLOW),
    "governance": (*NEEDED, "SPIRA_S3_REGION", *MLFLOW, "SPIRA_SIGNING_KEY"),
}


PLACES = {"tmp": "/tmp", "shm": "/dev/shm", "rekey": "/run/spira"}  # noqa: S108


class StepPodOperator(KubernetesPodOperator):  # type: ignore[misc]
    """Run a step of a pipeline in a pod.

    The command line, the limits, the meaning of an exit status and the record in the store are the
    same as under Docker.  The keys come from a Secret of the cluster, so they are in no pod's spec.
    When the process that follows a pod dies, the pod goes on and the next try finds it.

    Whether a node has a GPU to lend shows only when it is too late: a pod that asks for one in vain
    waits.  So a step whose GPU is optional asks for none, and ``gpu_optional = false`` in the site
    file makes it ask.

    Parameters
    ----------
    pipeline : Pipeline
    limits : Resources
        What the step may use here.
    store : str
        URL of the store as the step sees it.
    """

    template_fields = ()  # a step is data, not a template
    operator_extra_links = LINKS
    ui_color = "#dcd7f4"

    def __init__(self, *, pipeline: Pipeline, limits: Resources, store: str, **kwargs: Any) -> None:
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
            active_deadline_seconds=limits.minutes * 60,  # should nobody be there to stop it
            termination_grace_period=STOP_SECONDS,
            schedule_timeout_seconds=limits.minutes * 60,  # it may queue for a node
            startup_timeout_seconds=START_SECONDS,
            on_finish_action="delete_succeeded_pod",  # a failed one stays for whoever wants to look
            durable=True,
            deferrable=False,  # a triggerer would not know the meaning of an exit status
            do_xcom_push=False,  # no sidecar: the result is in the store
            **kwargs,
        )
        self.pipeline = pipeline
        self.limits = limits
        self.store = store
        self.n_gpus = n_gpus
        self._secrets: dict[str, str] = {}
        self._last_lines: deque[str] = deque(maxlen=N_LAST_LINES)
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
                raise AirflowException("somebody removed the pod while it worked") from None
            raise AirflowException(
                f"the Kubernetes API refused: {error.status} {error.reason}; see that Airflow may "
                f"work with pods in the namespace {self.namespace!r} (docs/kubernetes.md)"
            ) from error
        except HTTPError as error:
            raise AirflowException(f"the Kubernetes API does not answer: {error}") from error
        if not self._succeeded:
            raise AirflowException("the step was stopped")
        record = result_of(self.store, context["run_id"], self.task_id, self._secrets)
        # Airflow itself would not: do_xcom_push is False, so that the provider adds no sidecar.
        context["ti"].xcom_push(key="return_value", value=record)
        return record

    def build_pod_request_obj(self, context: Context, *, dry_run: bool = False) -> k8s.V1Pod:
        try:
            step = self.pipeline.from_params(context["params"]).step(self.task_id)
        except ValueError as error:
            raise AirflowFailException(str(error)) from None
        if any(reference.startswith("folder:") for reference in step.inputs.values()):
            raise AirflowFailException(
                f"step {step.name!r} reads a folder, and a pod sees none: put the recordings into "
                "S3 and give their s3://bucket/prefix as data"
            )
        run_id = context["run_id"]
        self.cmds = [_literal(word) for word in command_line("python", step, run_id)]
        n_times = int(context["task_state_store"].get("out_of_memory", 0))
        memory_mib = memory_limit(self.limits.memory_mib, n_times)
        self.container_resources = _limits(self.limits.cpus, memory_mib, self.n_gpus)
        owner = {"dag": context["ti"].dag_id, "task": self.task_id, "run": run_id}
        actors = k8s.V1EnvVar(name="SPIRA_ACTOR", value=_literal(actor(context)))
        self.env_vars = [*_environment(self.limits, self.store), actors]
        self.labels = {f"spira.{of}": make_safe_label_value(name) for of, name in owner.items()}
        pod = super().build_pod_request_obj(context, dry_run=dry_run)
        # A Service of this namespace called spira-s3 would set SPIRA_S3_PORT.
        pod.spec.enable_service_links = False
        return pod

    def get_or_create_pod(self, pod_request_obj: k8s.V1Pod, context: Context) -> k8s.V1Pod:
        pod = super().get_or_create_pod(pod_request_obj, context)
        if pod is not pod_request_obj:  # of an earlier try: from now on only this one may stop it
            self.log.info("found the pod of an earlier try; its log follows from the start")
            self.client.patch_namespaced_pod(
                name=pod.metadata.name,
                namespace=pod.metadata.namespace,
                body={"metadata": {"labels": {ATTEMPT: self._attempt}}},
            )
        return pod

    def on_kill(self) -> None:
        """Stop the pod of this try, and only that: a newer try may have taken it over."""
        if self.pod is None:
            return
        try:
            metadata = self.pod.metadata
            found = self.client.read_namespaced_pod(metadata.name, metadata.namespace)
        except ApiException as error:
            self.log.warning("cannot ask for the pod: %s %s", error.status, error.reason)
            return
        if found.metadata.labels.get(ATTEMPT) == self._attempt:
            self.log.info("asking the step to stop; it has %d s", STOP_SECONDS)
            super().on_kill()

    def cleanup(self, *, remote_pod: k8s.V1Pod, context: Context, **_others: Any) -> None:
        """Say how a pod ended.

        The provider comes here after an error too.  A pod that goes on is then left as it is; the
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
        """The exception for a failed pod, by what the cluster and the container say of it."""
        name, status = self.task_id, get_container_status(pod, self.base_container_name)
        ended = status.state.terminated if status else None
        if pod.status.reason or ended is None:  # evicted, past its deadline, lost with its node
            why = pod.status.reason or "no reason given"
            return AirflowException(
                f"the cluster ended step {name!r}: {why}; {pod.status.message or ''}".rstrip("; ")
            )
        if ended.reason == "OOMKilled":
            n_times = int(context["task_state_store"].get("out_of_memory", 0)) + 1
            try:
                context["task_state_store"].set("out_of_memory", n_times)
            except AirflowRuntimeError as error:
                self.log.warning("Airflow did not take a note, the limit stays: %s", error)
            return out_of_memory(name, self.limits.memory_mib, n_times)
        reason = ""
        if ended.exit_code in FINAL:
            reason = reason_of(self.store, context["run_id"], name, self._secrets)
        last_lines = [ended.message] if ended.message else [*self._last_lines]
        return failure(name, ended.exit_code, reason or "\n".join(last_lines))

    def _not_started(self, error: Exception) -> AirflowException:
        """The exception for a pod that never began; the pod goes, lest it begin unobserved."""
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
        keys = [v for name, v in self._secrets.items() if name.endswith(("_KEY", "_PASSWORD"))]
        self._last_lines.append(hidden(text.rstrip(), keys))
        return self._last_lines[-1]


def _secret(suffix: str) -> str:
    return f"{os.environ.get('SPIRA_KUBERNETES_SECRET') or 'spira'}-{suffix}"


def _environment(limits: Resources, store: str) -> list[k8s.V1EnvVar]:
    secret = _secret(limits.access)
    return [k8s.V1EnvVar(name="SPIRA_STORE", value=_literal(store))] + [
        k8s.V1EnvVar(
            name=name,
            value_from=k8s.V1EnvVarSource(
                secret_key_ref=k8s.V1SecretKeySelector(
                    name=secret, key=name, optional=name not in NEEDED
                )
            ),
        )
        for name in VARIABLES[limits.access]
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
    """Where a step may write; and for whom pseudonyms are made, the map of a rotated key."""
    volumes = [_memory("tmp", limits.scratch_mib), _memory("shm", limits.shm_mib)]
    if limits.access == "data":
        # For the container's own group alone: a map that anybody could read is refused.
        source = k8s.V1SecretVolumeSource(
            secret_name=_secret("rekey"), default_mode=0o440, optional=True
        )
        volumes.append(k8s.V1Volume(name="rekey", secret=source))
    return volumes


def _memory(name: str, size_mib: int) -> k8s.V1Volume:
    """A folder in memory, counted in the container's limit: no recording reaches a node's disk."""
    source = k8s.V1EmptyDirVolumeSource(medium="Memory", size_limit=f"{size_mib}Mi")
    return k8s.V1Volume(name=name, empty_dir=source)


def _literal(text: str) -> str:
    """Guard against Kubernetes, which puts variables, and so keys, in place of ``$(NAME)``."""
    return text.replace("$", "$$")
