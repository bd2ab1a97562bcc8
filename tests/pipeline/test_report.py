"""The report of a run as Airflow makes it: there whatever became of the run, and free of values."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import pytest
from small_run import SETTINGS

from spira_tasks import show
from spira_tasks.artifacts import Store
from spira_tasks.cohort import write_cohort
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.errors import GateRejected
from spira_tasks.intake.record_contract import COLUMNS
from spira_tasks.provenance import ROOT
from spira_tasks.runner import run_step

pytestmark = pytest.mark.slow

# Values that occur nowhere else, for a recording that is taken in.
TAKEN = {
    "record_id": "zqrecord77",
    "patient_rgh": "zqchart77",
    "session_id": "zqsession77",
    "hospital_id": "<b>zqsite77</b>",
    "collector_pid": "beadfacade77" * 5 + "beef",
    "collected_at": "2022-04-30T03:07:41-03:00",
    "ingested_at": "2022-04-30T03:07:43-03:00",
    "spo2_at": "2022-04-30T03:07:39-03:00",
    "app": "zqapp77",
    "app_version": "zqversion77",
    "device_model": "zqdevice77",
    "os": "zqsystem77",
    "cid10": "zqcode77",
    "ri_cause": "zqcause77",
    "consent_version": "zqconsent77",
    "consent_scope": "zqscope77",
    "retention_until": "2087-03-17",
    "heart_rate": "77.413927",
    "resp_rate": "17.413928",
    "temp": "36.413929",
    "bp_sys": "141.413931",
    "bp_dia": "81.413932",
    "pao2": "91.413933",
    "paco2": "41.413934",
    "ph": "7.4139351",
    "weight": "71.413936",
    "height": "171.413937",
    "fio2": "0.21413938",
    "label_confidence": "0.91413939",
    "x_note": "zqextra77",
}
# And for recordings that are refused, each for another reason.
REFUSED = (
    {"age": "7413942", "spo2": "7413943"},
    {"sex": "zqsex77", "mask_type": "zqmask77"},
    {"device_model": "zqmail77@example.org"},
    {"task": "zqtask77", "consent_status": "zqstatus77"},
    {"unit": "zqunit77", "ri_clinical": "7413944", "label_source": "zqsource77"},
    {"label_version": "7413941x"},
)
NO_VALUE = {  # columns of a few fixed words, with which nothing can be marked in a row that passes
    *("task", "unit", "prompt_version", "capture_ns", "capture_agc", "capture_aec"),
    *("codec_original", "sex", "mask_type", "on_oxygen", "sample_type", "ri_clinical"),
    *("label_source", "consent_status"),
    *("audio_uri", "sha256", "patient_pid"),  # of the first, see plant; hashes of what is marked
    *("age", "spo2", "label_version"),  # whole numbers of two digits
}
FILE = "zqfile77"  # the name of an audio file
MARKERS = [  # what a page would write otherwise, such as <b>, is left out
    re.sub(r"<.*?>", "", marker) for row in (TAKEN, *REFUSED) for marker in row.values()
] + [FILE]
# More recordings are refused than a gate accepts.
TOLERANT = {
    f"{step}.{key}": 0.9
    for step in ("ingest", "check_recordings")
    for key in ("max_quarantine_fraction", "max_site_quarantine_fraction")
}
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "SPIRA_RUNTIME": "process",
    "SPIRA_RETRY_SECONDS": "1",
    "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
}


@dataclass(frozen=True)
class Refused:
    """A run by Airflow whose model was refused, with what Airflow keeps of it."""

    run_id: str
    store: Store
    cohort: Path
    home: Path
    status: int
    output: bytes

    def airflow(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return airflow(self.home, self.store.url, *arguments)


def airflow(home: Path, store: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    own = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "SPIRA_STORE": store,
    }
    return subprocess.run(
        [sys.executable, "-m", "airflow", *arguments],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT, **own},
    )


def plant(cohort: Path) -> None:
    """Put the markers into a cohort, one row each; the audio of the first is renamed too."""
    table = cohort / "recordings.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows = [row | {"x_note": ""} for row in rows]
    new = f"audio/{FILE}.wav"
    (cohort / rows[0]["audio_uri"]).rename(cohort / new)
    rows[0] |= TAKEN | {"audio_uri": new}
    for number, markers in enumerate(REFUSED):
        rows[10 + 7 * number] |= markers
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Refused:
    cohort = tmp_path_factory.mktemp("cohort") / "c"
    write_cohort(cohort, subjects=24, seed=31, progress=False)
    plant(cohort)
    home, folder = tmp_path_factory.mktemp("airflow"), tmp_path_factory.mktemp("store")
    assert airflow(home, str(folder), "db", "migrate").returncode == 0
    conf = json.dumps({"data": str(cohort), "epochs": 2, "settings": SETTINGS | TOLERANT})
    process = airflow(home, str(folder), "dags", "test", "spira_continuous_training", "-c", conf)
    store = Store(str(folder))
    (run_id,) = store.runs.ids()
    output = process.stdout + process.stderr
    return Refused(run_id, store, cohort, home, process.returncode, output)


def test_every_column_of_the_contract_is_marked() -> None:
    assert set(COLUMNS) - NO_VALUE <= set(TAKEN)
    assert {"age", "spo2", "sex", "mask_type", "unit"} <= {name for row in REFUSED for name in row}


def test_the_marked_recording_was_taken_in_and_the_others_refused(run: Refused) -> None:
    """Else the search below would look for what was never there."""
    import pandas as pd

    outputs = run.store.runs.read(run.run_id).steps["ingest"].outputs
    taken = run.store.directory(outputs["recordings"]).path("recordings.parquet")
    refused = run.store.directory(outputs["quarantine"]).path("quarantine.parquet")
    assert TAKEN["record_id"] in set(pd.read_parquet(taken)["record_id"])
    assert len(pd.read_parquet(refused)) >= len(REFUSED)


def test_a_gate_refused_the_run_and_the_report_is_there_all_the_same(run: Refused) -> None:
    assert run.status == 1
    assert b"DagRun failed" in run.output
    report = run.store.runs.step(run.run_id, "report")
    assert report is not None
    assert report.state == "done"
    assert b"end task task_id=report" in run.output


def test_no_page_no_log_and_no_record_holds_a_value(run: Refused) -> None:
    places = dict(everything(run))
    for name in ("airflow.db", "mlflow.db", "index.html", "verdict.pt.html", "record of promote"):
        assert any(place.endswith(name) for place in places), name
    found = [
        f"{marker} in {place}"
        for place, content in places.items()
        for marker in MARKERS
        if marker.encode() in content
    ]
    assert found == []


def everything(run: Refused) -> Iterator[tuple[str, bytes]]:
    """All that people or Airflow can read: names of places and their contents."""
    yield "what Airflow printed", run.output
    for folder in (run.home, Path(run.store.url, "mlflow")):  # databases, logs, what is logged
        for path in folder.rglob("*"):
            if path.is_file():
                yield str(path), path.read_bytes()
    for step, record in run.store.runs.read(run.run_id).steps.items():
        yield f"record of {step}", json.dumps(asdict(record), ensure_ascii=False).encode()
        # ingest's own report, in the store alone, counts by the names of sites
        shown = {"site", "pack"} if step == "ingest" else {"report", "site", "pack"}
        for output in shown & set(record.outputs):
            directory = run.store.directory(record.outputs[output])
            for name in directory.names:
                content = directory.read(name)
                yield f"{step}.{output}/{name}", content
                if name.endswith(".zip"):
                    yield from unzipped(name, content)
    for name in run.store.documents.names(""):
        if name.startswith(("audit/", "site/")):
            yield name, json.dumps(run.store.documents.read(name), ensure_ascii=False).encode()


def unzipped(zip_name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(BytesIO(content)) as archive:
        for name in archive.namelist():
            yield f"{zip_name}/{name}", archive.read(name)


def test_the_command_line_computes_the_same(run: Refused, tmp_path: Path) -> None:
    """In one process and a second store: the same keys, and outputs with the same digests."""
    store = Store(str(tmp_path))
    with suppress(GateRejected):
        for step in TRAINING.configure(data=str(run.cohort), settings=SETTINGS | TOLERANT):
            run_step(step, "by hand", store)
    ours = {step["name"]: step for step in show.describe("by hand", store)["steps"]}
    airflows = show.describe(run.run_id, run.store)
    assert run.run_id.startswith("manual__")
    assert airflows["outcome"] == "blocked"
    assert [step["name"] for step in airflows["steps"]] == [step.name for step in TRAINING]
    for step in airflows["steps"]:
        assert step["outputs"] == ours[step["name"]]["outputs"]
        assert step["key"] == ours[step["name"]]["key"]
    assert b"[spira.step]" in run.output  # the step's own lines are in the task's log


def test_a_report_can_be_built_again_by_its_own_dag(run: Refused) -> None:
    process = run.airflow("dags", "test", "spira_governance_report", "-c", '{"run": "latest"}')
    assert process.returncode == 0, process.stdout[-2000:]
    pointer = run.store.documents.read("site/latest.json")
    assert pointer is not None
    assert pointer["run_id"] == run.run_id
    (builder,) = set(run.store.runs.ids()) - {run.run_id}
    record = run.store.runs.step(builder, "report")
    assert record is not None
    assert pointer["site"] == record.outputs["site"]
    assert run.store.directory(record.outputs["pack"]).names[0].endswith(".zip")
