"""What people, Airflow and MLflow can read of a run in containers: no value, no other host."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from io import BytesIO

import pytest
from planted import MARKERS, NO_VALUE, REFUSED, TAKEN
from production import PORTS, Production, docker
from production import Run as DagRun
from reading_pages import outside

from scripts.deployment import CONNECT, in_postgres
from spira_tasks.artifacts import Store
from spira_tasks.intake.record_contract import COLUMNS

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def store(platform: Production, undisturbed: DagRun) -> Iterator[Store]:
    """The store of the platform, once the run has ended."""
    admin = platform.keys["admin"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPIRA_S3_ENDPOINT", f"http://127.0.0.1:{PORTS['S3']}")
        patch.setenv("SPIRA_S3_ACCESS_KEY", admin["accessKey"])
        patch.setenv("SPIRA_S3_SECRET_KEY", admin["secretKey"])
        key = platform.secrets / "steps" / "sealing_key"
        patch.setenv("SPIRA_SEALING_KEY", key.read_text().strip())
        yield Store("s3://spira-store/v1")


def test_every_column_of_the_contract_is_marked() -> None:
    assert set(COLUMNS) - NO_VALUE <= set(TAKEN)
    assert {"age", "spo2", "sex", "mask_type", "unit"} <= {name for row in REFUSED for name in row}


def test_the_marked_recording_was_taken_in_and_the_others_refused(
    undisturbed: DagRun, store: Store
) -> None:
    """Else the search below would look for what was never there."""
    import pandas as pd

    outputs = store.runs.read(undisturbed.run_id).steps["ingest"].outputs
    taken = store.directory(outputs["recordings"]).path("recordings.parquet")
    refused = store.directory(outputs["quarantine"]).path("quarantine.parquet")
    assert TAKEN["record_id"] in set(pd.read_parquet(taken)["record_id"])
    assert len(pd.read_parquet(refused)) >= len(REFUSED)


def test_no_page_no_log_no_record_and_no_database_holds_a_value(
    platform: Production, undisturbed: DagRun, store: Store
) -> None:
    places = {**of_airflow_and_mlflow(platform, undisturbed), **dict(of_store(undisturbed, store))}
    for name in ("databases", "MLmodel", "index.html", "verdict.pt.html", "record of promote"):
        assert any(place.endswith(name) for place in places), name
    assert b"undisturbed" in places["databases"]
    found = [
        f"{marker} in {place}"
        for place, content in places.items()
        for marker in MARKERS
        if marker.encode() in content
    ]
    assert found == []


def test_no_page_that_is_handed_out_asks_another_host(undisturbed: DagRun, store: Store) -> None:
    places = dict(of_store(undisturbed, store))
    pages = {name: places[name].decode() for name in places if name.endswith(".html")}
    assert any("/spira-report-" in name for name in pages)  # those in the pack too
    assert {name: found for name, text in pages.items() if (found := outside(text))} == {}


def of_airflow_and_mlflow(platform: Production, run: DagRun) -> Mapping[str, bytes]:
    """Logs, what Airflow's API answers, both databases, and the files beside the models."""
    places = {"log of the servers": platform.compose("logs").stdout.encode()}
    for task in run.tasks:
        places[f"log of {task}"] = run.log(task).encode()
        for more in ("", "/xcomEntries"):
            path = f"{run.path}/taskInstances/{task}{more}"
            places[path] = json.dumps(platform.get(path), ensure_ascii=False).encode()
    dump = in_postgres(platform.container_of("postgres"), "pg_dumpall", *CONNECT)
    places["databases"] = docker(*dump).stdout.encode()
    for one in platform.s3.list_objects("spira-mlflow", "artifacts/", recursive=True):
        name = str(one.object_name)
        places[name] = platform.s3.get_object("spira-mlflow", name).read()
    return places


def of_store(run: DagRun, store: Store) -> Iterator[tuple[str, bytes]]:
    """Records, pages and packs: names of places and their contents."""
    for step, record in store.runs.read(run.run_id).steps.items():
        yield f"record of {step}", json.dumps(asdict(record), ensure_ascii=False).encode()
        # ingest's own report, in the store alone, counts by the names of sites
        shown = {"site", "pack"} if step == "ingest" else {"report", "site", "pack"}
        for output in shown & set(record.outputs):
            directory = store.directory(record.outputs[output])
            for name in directory.names:
                content = directory.read(name)
                yield f"{step}.{output}/{name}", content
                if name.endswith(".zip"):
                    yield from unzipped(name, content)
    for name in store.documents.names(""):
        if name.startswith(("audit/", "site/")):
            yield name, json.dumps(store.documents.read(name), ensure_ascii=False).encode()


def unzipped(zip_name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(BytesIO(content)) as archive:
        for name in archive.namelist():
            yield f"{zip_name}/{name}", archive.read(name)
