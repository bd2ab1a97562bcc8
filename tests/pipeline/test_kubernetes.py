"""The pod of a step: held against Kubernetes' schemas, no more rights than needed, no key in it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException
from airflow.serialization.serialized_objects import DagSerialization
from pods import (
    PARAMS,
    RUN_ID,
    VALUES,
    connections,
    context_of,
    hold_against_schema,
    operator_of,
    pod_of,
)

from spira.access import secrets_of
from spira.outcome import command_line
from spira_tasks.contract.access import REQUIRED, STEP_ACCESS
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.contract.step import Resources
from spira_tasks.provenance import ROOT

__all__ = ["connections"]  # the fixture

STEPS = [step.name for step in TRAINING]

# -- the pod ---------------------------------------------------------------------------------


@pytest.mark.parametrize("task", STEPS)
def test_the_pod_of_every_step_fits_kubernetes_schema(task: str) -> None:
    hold_against_schema(pod_of(task))


@pytest.mark.parametrize(
    "change",
    [
        lambda pod: pod["spec"].update(restartPolice="Never"),
        lambda pod: pod["spec"]["containers"][0]["securityContext"].update(privileged="no"),
        lambda pod: pod["spec"]["containers"][0].pop("name"),
        lambda pod: pod["spec"]["volumes"][0]["emptyDir"].update(sizeLimits="1Mi"),
    ],
)
def test_the_schema_check_can_fail(change: Callable[[dict[str, Any]], None]) -> None:
    pod = copy.deepcopy(pod_of("train"))
    change(pod)
    with pytest.raises(kubernetes_validate.ValidationError):
        hold_against_schema(pod)


@pytest.mark.parametrize("task", STEPS)
def test_a_pod_runs_the_command_line_of_every_runtime(task: str) -> None:
    (container,) = pod_of(task)["spec"]["containers"]
    words = [expanded(word, VALUES) for word in container["command"]]
    assert words == command_line("python", TRAINING.from_params(PARAMS).step(task), RUN_ID)
    assert not container.get("args")


def expanded(text: str, values: dict[str, str]) -> str:
    """What Kubernetes makes of a word: ``$(NAME)`` is a variable and ``$$`` is ``$``."""

    def replace(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else values.get(found[1], found[0])

    return re.sub(r"\$\$|\$\((\w+)\)", replace, text)


@pytest.mark.parametrize("task", STEPS)
def test_a_pod_may_do_nothing_that_a_step_need_not_do(task: str) -> None:
    spec = pod_of(task)["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "runAsNonRoot": True,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["restartPolicy"] == "Never"
    assert spec["terminationGracePeriodSeconds"] == 60
    assert not spec.get("hostNetwork")
    mounted = {mount["name"]: mount for mount in container["volumeMounts"]}
    for volume in spec["volumes"]:
        assert "emptyDir" in volume or mounted[volume["name"]]["readOnly"]
        assert not {"hostPath", "persistentVolumeClaim"} & set(volume)


def test_a_pod_has_the_limits_of_its_step() -> None:
    spec = pod_of("train")["spec"]
    (container,) = spec["containers"]
    fixed = {"memory": "4096Mi", "ephemeral-storage": "256Mi"}
    assert container["resources"] == {
        "limits": {"cpu": "2", **fixed},
        "requests": {"cpu": "0.5", **fixed},
    }
    assert spec["activeDeadlineSeconds"] == 24 * 3600
    assert operator_of("train").execution_timeout.total_seconds() == 24 * 3600
    assert [volume["emptyDir"] for volume in spec["volumes"]] == [
        {"medium": "Memory", "sizeLimit": "1024Mi"},
        {"medium": "Memory", "sizeLimit": "256Mi"},
    ]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp", "/dev/shm"]


def test_a_gpu_is_asked_for_only_where_the_step_must_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site.toml"
    site.write_text("[steps.train]\ngpu_optional = false\ncpus = 8\nqueue = 'gpu'\n")
    monkeypatch.setenv("SPIRA_SITE", str(site))
    pod = pod_of("train")
    hold_against_schema(pod)
    resources = pod["spec"]["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == "1"
    assert resources["limits"]["cpu"] == "8"
    assert pod["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert operator_of("train").queue == "gpu"
    assert "nvidia.com/gpu" not in json.dumps(pod_of("split"))


@pytest.mark.parametrize("task", STEPS)
def test_the_labels_of_a_pod_are_valid_and_say_whose_it_is(task: str) -> None:
    labels = pod_of(task)["metadata"]["labels"]
    assert labels["spira.dag"] == "spira_continuous_training"
    assert labels["spira.task"] == task
    assert labels["spira.run"].startswith("scheduled__2026-11-21T030000")
    for name, value in labels.items():
        assert re.fullmatch(r"[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?", name), name
        assert re.fullmatch(r"([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?", value), value


# -- keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", STEPS)
def test_keys_come_from_a_secret_and_are_nowhere_in_a_pod_or_a_dag(task: str) -> None:
    operator = operator_of(task)
    operator._secrets = secrets_of(operator.limits)
    pod = operator.build_pod_request_obj(context_of(task), dry_run=True)
    (container,) = pod.spec.containers
    clear = {one.name: one.value for one in container.env if one.value is not None}
    assert clear == {
        "SPIRA_STORE": "s3://spira-store/v1",
        "SPIRA_ACTOR": "airflow:scheduler",
        "SPIRA_COMMAND": "",
    }
    references = [v.value_from.secret_key_ref for v in container.env if v.value_from]
    assert {reference.name for reference in references} == {f"spira-{operator.limits.access}"}
    assert {reference.key for reference in references} == set(operator._secrets)
    assert {reference.key for reference in references if not reference.optional} == set(REQUIRED)
    with DAG("dag") as dag:
        operator.dag = dag
    shown = json.dumps([pod.to_dict(), DagSerialization.to_dict(dag)], default=str)
    assert operator.template_fields == ()
    assert not [value for value in VALUES.values() if value in shown]


@pytest.mark.parametrize("access", STEP_ACCESS)
def test_a_pod_has_the_variables_that_a_container_has(access: Any) -> None:
    assert set(STEP_ACCESS[access].variables) == set(secrets_of(Resources(access=access)))


def test_only_who_makes_pseudonyms_sees_the_map_of_a_rotated_key() -> None:
    (volume,) = [v for v in pod_of("ingest")["spec"]["volumes"] if "secret" in v]
    assert volume["secret"] == {"secretName": "spira-rekey", "defaultMode": 0o440, "optional": True}
    assert "spira-rekey" not in json.dumps([pod_of(task) for task in STEPS if task != "ingest"])


def test_namespace_and_secret_are_the_sites_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pod_of("split")["metadata"]["namespace"] == "spira"
    monkeypatch.setenv("SPIRA_KUBERNETES_NAMESPACE", "ward")
    monkeypatch.setenv("SPIRA_KUBERNETES_SECRET", "ward-7")
    pod = pod_of("split")
    assert pod["metadata"]["namespace"] == "ward"
    assert '"name": "ward-7-store"' in json.dumps(pod)


def test_a_folder_of_recordings_is_refused() -> None:
    context = context_of("ingest") | {"params": {"data": "/srv/recordings"}}
    with pytest.raises(AirflowFailException, match="a pod sees none"):
        operator_of("ingest").build_pod_request_obj(context, dry_run=True)


# -- the document ----------------------------------------------------------------------------


def test_the_yaml_of_the_document_fits_kubernetes_schema() -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.S)]
    assert [block["kind"] for block in blocks] == ["Role", "NetworkPolicy"]
    for block in blocks:
        hold_against_schema(block)
    (expression,) = blocks[1]["spec"]["podSelector"]["matchExpressions"]
    assert expression["key"] in pod_of("split")["metadata"]["labels"]
    assert all(name in text for access in STEP_ACCESS.values() for name in access.variables)
