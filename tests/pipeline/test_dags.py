"""The DAGs: they parse light, and Airflow runs the steps that the command line runs."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from conftest import Run, linked_copy, made_once

from spira.outcome import actor, configured_step
from spira_tasks.artifacts import Store
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.provenance import ROOT
from spira_tasks.speech.networks import NETWORKS
from spira_tasks.speech.strategies import STRATEGIES

ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "SPIRA_RUNTIME": "process",
    "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
}


def python(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python as Airflow's processes run, in an Airflow home of the test's own."""
    database = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT, **database, **environment},
    )


def airflow(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "airflow", *arguments, home=home, **environment)


def last_line(script: str, home: Path, **environment: str) -> str:
    """The last line of a script: what it imports may print lines, too."""
    process = python("-c", script, home=home, **environment)
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout.splitlines()[-1].rstrip()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Airflow home with a copy of a database that is made once."""

    def make(folder: Path) -> None:
        process = airflow("db", "migrate", home=folder)
        assert process.returncode == 0, process.stderr

    made, own = made_once("airflow", tmp_path_factory, make), tmp_path_factory.mktemp("airflow")
    shutil.copy(made / "airflow.db", own)  # its airflow.cfg names its own folder
    return own


@pytest.fixture(scope="module")
def parsed(home: Path) -> dict[str, Any]:
    """What one process says that has read every DAG: Airflow's import takes four seconds of it."""
    script = """
import json, sys; sys.path[:0] = ["dags", "plugins"]
from pathlib import Path
dags = {file.stem: __import__(file.stem).dag for file in Path("dags").glob("spira_*.py")}
training = dags["spira_continuous_training"]
last = {task.task_id: task.on_failure_fail_dagrun for task in training.tasks if task.is_teardown}
steps = {task.task_id for task in training.tasks if "shard" not in task.task_id} - set(last)
print(json.dumps({
    "ours": sorted(name for name in sys.modules if name.split(".")[0] == "spira_tasks"),
    "heavy": sorted({"torch", "pandas", "numpy", "great_expectations", "mlflow"} & {*sys.modules}),
    "last": last,
    "late": bool(training.deadline),
    "the report follows all steps": training.get_task("report").upstream_task_ids == steps,
    "before the outcome": list(training.get_task("outcome").upstream_task_ids),
    "descriptions": {name: dag.description for name, dag in dags.items()},
    "forms": {name: {k: dag.params.get_param(k).dump() for k in dag.params}
              for name, dag in dags.items()},
}))
"""
    return dict(json.loads(last_line(script, home, SPIRA_SITES="")))


def test_parsing_a_dag_imports_only_the_contract_and_the_pipelines(parsed: dict[str, Any]) -> None:
    names = ("access", "decision", "exits", "pipelines", "place", "presets", "run", "step", "typed")
    contract = ("", ".contract", *(f".contract.{name}" for name in (*names, "verdict")))
    assert parsed["ours"] == [f"spira_tasks{name}" for name in contract]
    assert parsed["heavy"] == []


@pytest.mark.parametrize("runtime", ["docker", "kubernetes"])
def test_the_dags_parse_light_for_containers_too(home: Path, runtime: str) -> None:
    """And every step becomes a task with a time limit."""
    script = """
import sys; sys.path[:0] = ["dags", "plugins"]
import spira_continuous_training, spira_maintenance
tasks = spira_continuous_training.dag.tasks
assert all(task.execution_timeout for task in tasks), tasks
heavy = {"torch", "pandas", "numpy", "great_expectations", "mlflow"} & set(sys.modules)
cron = getattr(spira_maintenance.dag.schedule, "expression", None)
mapped = [task.operator_class for task in tasks if task.is_mapped]
names = {kind.__name__ for kind in [*mapped, *(type(t) for t in tasks if not t.is_mapped)]}
print(*sorted(names), cron, "|", *heavy)
"""
    last = last_line(script, home, SPIRA_RUNTIME=runtime, SPIRA_STORE="s3://bucket/prefix")
    expected = {"docker": "StepDockerOperator 17 * * * *", "kubernetes": "StepPodOperator None"}
    assert last == f"AskOperator OutcomeOperator ShardsOperator {expected[runtime]} |"


def test_the_first_run_of_a_schedule_is_the_next_one_and_never_one_that_has_passed(
    home: Path,
) -> None:
    """As Airflow computes it; three hours after the last one, of a week between two."""
    script = """
import sys; sys.path[:0] = ["dags", "plugins"]
import spira_continuous_training, spira_maintenance, spira_retention
from airflow.serialization.serialized_objects import DagSerialization
found = []
for module in (spira_continuous_training, spira_retention, spira_maintenance):
    dag = DagSerialization.from_dict(DagSerialization.to_dict(module.dag))
    first = dag.next_dagrun_info(last_automated_run_info=None).run_after
    found += [first.isoformat(), dag.max_active_runs]
print(*found)
"""
    last = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(hours=3)
    weekly = last.strftime("%M %H * * %w")
    containers = {"SPIRA_RUNTIME": "docker", "SPIRA_STORE": "s3://bucket/prefix"}
    schedules = {"SPIRA_SCHEDULE": weekly, "SPIRA_RETENTION_SCHEDULE": weekly}
    found = last_line(script, home, **containers, **schedules).split()
    training, retention, maintenance = (datetime.fromisoformat(one) for one in found[::2])
    assert training == retention == last + timedelta(days=7)
    assert maintenance.minute == 17
    assert set(found[1::2]) == {"1"}  # runs do not overlap


def test_the_report_has_no_say_in_the_state_of_the_run_and_the_outcome_has(
    parsed: dict[str, Any],
) -> None:
    assert parsed["last"] == {"report": False, "outcome": True}
    assert parsed["the report follows all steps"]
    assert parsed["before the outcome"] == ["report"]


def test_on_a_laptop_no_run_is_late(parsed: dict[str, Any]) -> None:
    assert not parsed["late"]


@pytest.mark.parametrize(("command", "is_late"), [("dags test", False), ("scheduler", True)])
def test_a_run_by_hand_has_no_deadline_in_production_either(
    home: Path, command: str, is_late: bool
) -> None:
    """``airflow dags test`` ends a good run of a DAG that has a deadline with a trace."""
    script = f"""
import sys; sys.path[:0] = ["dags", "plugins"]
sys.argv = ["airflow", *{command.split()}]
import spira_continuous_training
print(bool(spira_continuous_training.dag.deadline))
"""
    assert last_line(script, home, SPIRA_LATE_HOURS="24") == str(is_late)


def test_the_list_of_dags_says_in_plain_words_what_each_does(parsed: dict[str, Any]) -> None:
    for name, words in parsed["descriptions"].items():
        assert len(words.split()) >= 5, name
        assert "DAG" not in words, name
        assert "spira_" not in words, name


def test_every_field_of_a_form_has_a_title_and_words_and_shows_the_default_of_its_stage(
    parsed: dict[str, Any],
) -> None:
    forms = parsed["forms"]
    assert len(forms) == 12
    fields = [field for form in forms.values() for field in form.values()]
    for field in fields:
        assert field["schema"]["title"], field
        assert field["description"], field
        assert "null" not in field["schema"]["type"], field
    shown = forms["spira_continuous_training"]
    for name, target in TRAINING.options.items():
        step, _, key = target.partition(".")
        stage = importlib.import_module(f"spira_tasks.stages.{TRAINING.step(step).stage}")
        assert shown[name]["value"] == stage.Config().model_dump(mode="json")[key], name


def test_a_form_suggests_what_is_built_in_and_takes_what_a_package_adds(
    parsed: dict[str, Any],
) -> None:
    form = parsed["forms"]["spira_continuous_training"]
    for name, registry in (("model", NETWORKS), ("feature", STRATEGIES)):
        assert form[name]["schema"]["examples"] == [*registry.ours]
        assert "enum" not in form[name]["schema"]


def test_a_run_that_new_recordings_woke_reads_the_newest_and_says_so() -> None:
    def event(at: int, name: str) -> SimpleNamespace:
        extra = {"data": f"s3://spira-data/snapshots/{name}", "decision": f"training:{name}"}
        return SimpleNamespace(timestamp=at, extra=extra, source_dag_id="spira_snapshot")

    params = {"data": "somewhere", "epochs": 3}
    woken = {"params": params, "triggering_asset_events": {"new": [event(2, "b"), event(1, "a")]}}
    ingest = configured_step("ingest", TRAINING, woken)
    assert ingest.inputs["data"] == "s3://spira-data/snapshots/b"
    assert configured_step("train", TRAINING, woken).config["epochs"] == 3
    assert actor(woken) == "event:training:b"
    assert actor({"params": params}) == "airflow:scheduler"
    by_hand = configured_step("ingest", TRAINING, {"params": params})
    assert by_hand.inputs["data"] == "folder:somewhere"


@pytest.mark.parametrize("extra", [{}, {"data": "s3://other/place", "decision": "ana"}])
def test_an_event_that_somebody_sent_to_airflow_starts_nothing_in_any_name(
    extra: dict[str, str],
) -> None:
    sent = SimpleNamespace(timestamp=3, extra=extra, source_dag_id=None)
    snapshot = {"data": "s3://spira-data/snapshots/b", "decision": "training:b"}
    ours = SimpleNamespace(timestamp=2, extra=snapshot, source_dag_id="spira_snapshot")
    alone = {"params": {}, "triggering_asset_events": {"new": [sent]}}
    for act in (actor, lambda context: configured_step("ingest", TRAINING, context)):
        with pytest.raises(AirflowFailException, match="no event that woke this run is of"):
            act(alone)
    both = {"params": {}, "triggering_asset_events": {"new": [ours, sent]}}
    assert actor(both) == "event:training:b"


@pytest.mark.slow
def test_a_gate_fails_its_task_for_good_with_the_reason(home: Path, tmp_path: Path) -> None:
    conf = {"data": str(tmp_path)}
    (tmp_path / "readme.txt").write_text("no recordings here")
    process = airflow(
        *("dags", "test", "spira_continuous_training", "-c", json.dumps(conf)),
        home=home,
        SPIRA_STORE=str(tmp_path / "s"),
    )
    assert process.returncode == 1
    assert "step 'ingest' ended with status 78" in process.stdout
    assert process.stdout.count("end task task_id=ingest map_index") == 1  # no second try
    assert "ingest failed; its log says why" in process.stdout
    store = Store(str(tmp_path / "s"))
    report = store.runs.step(store.runs.ids()[-1], "report")
    assert report is not None  # of the failed run too
    assert report.state == "done"


@pytest.mark.slow
def test_the_report_of_a_run_can_be_built_again_by_its_own_dag(
    finished: Run, home: Path, tmp_path: Path
) -> None:
    store = linked_copy(finished.store, tmp_path / "s")
    conf = ("-c", '{"run": "latest"}')
    process = airflow(
        *("dags", "test", "spira_governance_report", *conf), home=home, SPIRA_STORE=store.url
    )
    assert process.returncode == 0, process.stdout[-2000:]
    assert "[spira.step]" in process.stdout  # the step's own lines are in the task's log
    pointer = store.documents.read("site/latest.json")
    assert pointer is not None
    assert pointer["run_id"] == finished.run_id
    (builder,) = set(store.runs.ids()) - {finished.run_id}
    record = store.runs.step(builder, "report")
    assert record is not None
    assert pointer["site"] == record.outputs["site"]
    assert store.directory(record.outputs["pack"]).names[0].endswith(".zip")


@pytest.mark.slow
def test_a_parameter_that_does_not_exist_is_refused(home: Path, tmp_path: Path) -> None:
    process = airflow(
        *("dags", "test", "spira_continuous_training", "-c", '{"epoch": 5}'),
        home=home,
        SPIRA_STORE=str(tmp_path / "s"),
    )
    assert process.returncode == 1
    assert "unknown parameters epoch" in process.stdout + process.stderr
