"""``predict``, and the model behind it: the numbers of the evaluation, or why there is none."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import Run, linked_copy

from spira_tasks import package
from spira_tasks.artifacts import Store
from spira_tasks.cli import main
from spira_tasks.commands.predict import N_BATCH
from spira_tasks.speech.answers import Policy, decide
from spira_tasks.speech.audio import FULL_SCALE, read_pcm16
from spira_tasks.stages import register
from spira_tasks.tracking import Tracker

MODEL = "spira@challenger"  # the finished run has no champion


@pytest.fixture(scope="module")
def store(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return linked_copy(finished.store, tmp_path_factory.mktemp("predict") / "store")


@pytest.fixture(scope="module")
def model(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The registered model, as its files in the store load."""
    tracker = Tracker(store.tracking_uri)
    return package.load(tracker.versions()[0], tracker, store, tmp_path_factory.mktemp("loaded"))


@pytest.fixture(scope="module")
def evaluated(finished: Run) -> pd.DataFrame:
    """What was evaluated: ``clean``, the probability, with ``path`` and ``waveform``."""
    report = finished.store.directory(finished.results["evaluate"].outputs["report"])
    split = finished.store.directory(finished.results["split"].outputs["recordings"])
    recordings = pd.read_parquet(split.path("recordings.parquet"))
    files = [path for path in finished.cohort.rglob("*") if path.is_file()]
    by_content = {sha256(path.read_bytes()).hexdigest(): str(path) for path in files}
    return pd.read_parquet(report.path("predictions.parquet")).merge(
        recordings[["record_id", "waveform"]].assign(
            path=recordings["audio_sha256"].map(by_content)
        ),
        on="record_id",
    )


def predicted(store: Store, out: Path, *files: object, status: int = 0) -> list[dict[str, Any]]:
    """What the command writes about files, as JSON."""
    given = [str(one) for one in files]
    arguments = ["predict", MODEL, *given, "--format", "json", "--out", str(out)]
    assert main([*arguments, "--store", store.url]) == status
    rows: list[dict[str, Any]] = json.loads(out.read_text())
    return rows


def test_a_file_gets_the_probability_that_the_evaluation_gave_it(
    store: Store, finished: Run, evaluated: pd.DataFrame, tmp_path: Path
) -> None:
    rows = predicted(store, tmp_path / "out.json", *evaluated["path"])
    probabilities = [row["probability"] for row in rows]
    assert probabilities == pytest.approx(evaluated["clean"].tolist(), abs=1e-6)
    point = finished.results["evaluate"].metrics["operating_point"]
    made = finished.results["evaluate"].outputs
    finished.store.directory(made["classifier"]).copy_to(tmp_path / "classifier")
    policy = Policy.load(tmp_path / "classifier")
    report = finished.store.directory(made["report"]).path("evaluation.json").read_text()
    assert [*(policy.inconclusive or ())] == (json.loads(report)["inconclusive"]["band"] or [])
    for row in rows:
        assert np.mean(row["window_scores"]) == pytest.approx(row["probability"], abs=1e-6)
        assert row["decision"] == decide(row["probability"], point, policy)
        assert (row["record_again"], row["operating_point"]) == ([], point)
        assert row["version"] == made["classifier"]
        assert row["model"] == "spira/1"


def test_samples_with_their_rate_get_the_answer_of_their_file(
    finished: Run, model: Any, evaluated: pd.DataFrame
) -> None:
    one = evaluated.iloc[0]
    pcm16 = read_pcm16(finished.store.blobs.read(one.waveform))
    samples = pcm16.astype(np.float32) / np.float32(FULL_SCALE)
    given = pd.DataFrame({"samples": [samples], "sample_rate_hz": [16_000]})
    assert model.predict(given)["probability"][0] == pytest.approx(one.clean, abs=1e-6)

    doubled = pd.DataFrame({"samples": [np.repeat(samples, 3)], "sample_rate_hz": [48_000]})
    assert model.predict(doubled)["probability"][0] == pytest.approx(one.clean, abs=0.05)
    with pytest.raises(ValueError, match="`samples` with `sample_rate_hz`"):
        model.predict(given[["samples"]])


def test_a_recording_that_nobody_should_judge_by_gets_no_answer_but_why(
    store: Store, evaluated: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = Path(evaluated["path"].iloc[0])
    waveform, rate_hz = soundfile.read(good)
    folder = tmp_path / "given"
    folder.mkdir()
    shutil.copy(good, folder / f"a{good.suffix}")
    soundfile.write(folder / "b-short.wav", waveform[:rate_hz], rate_hz)
    soundfile.write(folder / "c-loud.flac", np.clip(waveform * 100, -1, 1), rate_hz)
    soundfile.write(folder / "d-silent.wav", np.zeros(5 * rate_hz), rate_hz)
    soundfile.write(folder / "e-long.ogg", np.tile(waveform, 20)[: 41 * rate_hz], rate_hz)
    (folder / "f.wav").write_bytes(good.read_bytes()[:-1000])
    (folder / "g.mp3").write_bytes(b"no audio at all")
    (folder / "notes.txt").write_text("left out")
    rows = predicted(store, tmp_path / "out.json", folder, status=65)
    said = capsys.readouterr().err
    assert "6 of 7 files got no answer" in said
    assert "spira/1 is not the model in use" in said
    assert [row["probability"] is not None for row in rows] == [True] + [False] * 6
    assert [row["decision"] is not None for row in rows] == [True] + [False] * 6
    assert [row["window_scores"] for row in rows[1:]] == [[]] * 6
    why = [row["record_again"] for row in rows]
    assert why[1] == ["duration_seconds_low"]
    assert "duration_seconds_low" not in rows[1]["unusual"]
    assert "clipping_fraction_high" in why[2]
    assert why[3:] == [["constant"], ["too_long"], ["truncated"], ["unknown_container"]]


def test_more_files_than_a_batch_come_in_their_order_and_once(
    store: Store, evaluated: pd.DataFrame, tmp_path: Path
) -> None:
    for number in range(N_BATCH + 2):
        source = Path(evaluated["path"].iloc[number % 2])
        (tmp_path / f"{number:02}{source.suffix}").symlink_to(source)
    pattern, out = str(tmp_path / "*.*"), tmp_path / "out.csv"
    arguments = ["predict", MODEL, pattern, pattern, "--store", store.url, "--out", str(out)]
    assert main(arguments) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["file"]).stem for row in rows] == [f"{n:02}" for n in range(N_BATCH + 2)]
    expected = [evaluated["clean"].iloc[number % 2] for number in range(N_BATCH + 2)]
    assert [float(row["probability"]) for row in rows] == pytest.approx(expected, abs=1e-6)
    assert all(len(row["window_scores"].split(";")) > 1 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([MODEL, "nowhere.wav"], "nowhere.wav: no such file"),
        (["spira@champion", "FILE"], "known are: spira/1, spira@challenger"),
        (["spira/2", "FILE"], "no model 'spira/2'"),
        (["a model", "FILE"], "no model 'a model'"),
        ([MODEL, "FILE", "--out", "no/such/folder.csv"], "cannot be written"),
    ],
)
def test_a_mistake_ends_with_78_and_a_line_that_says_what_to_do(
    arguments: list[str],
    said: str,
    store: Store,
    evaluated: pd.DataFrame,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [evaluated["path"].iloc[0] if one == "FILE" else one for one in arguments]
    assert main(["predict", *given, "--store", store.url]) == 78
    printed = capsys.readouterr()
    assert said in printed.err
    assert "Traceback" not in printed.err
    assert not printed.out


def test_a_model_whose_files_were_changed_answers_nothing(
    finished: Run, evaluated: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = linked_copy(finished.store, tmp_path / "store")
    (policy,) = (Path(store.url) / "mlflow/artifacts").rglob("policy.json")
    changed = policy.read_text().replace("2.5", "0.5")
    policy.unlink()  # it is linked to the file of others
    policy.write_text(changed)
    assert main(["predict", MODEL, evaluated["path"].iloc[0], "--store", store.url]) == 78
    printed = capsys.readouterr()
    assert "policy.json is not the file that was registered" in printed.err
    assert not printed.out


SERVED = """
import asyncio, json, sys
import httpx, mlflow
from mlflow.pyfunc import scoring_server

model = mlflow.pyfunc.load_model(sys.argv[1])
app = scoring_server.init(model)
example = json.load(open(sys.argv[1] + "/serving_input_example.json"))
example["dataframe_split"]["data"].append(["bm8gYXVkaW8="])

async def ask():
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
        return await client.post("/invocations", json=example)

answer = asyncio.run(ask())
assert answer.status_code == 200, answer.text
ours = [name for name in sys.modules if name.startswith(("spira_tasks", "expectations"))]
print(json.dumps([answer.json()["predictions"], ours]))
"""


def test_the_server_of_mlflow_answers_the_example_without_this_project(
    model: Any, store: Store, tmp_path: Path
) -> None:
    version = Tracker(store.tracking_uri).versions()[0]
    store.directory(version.tags[package.PACKAGE]).copy_to(tmp_path / "model")
    done = subprocess.run(
        [sys.executable, "-c", SERVED, str(tmp_path / "model")],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (answered, refused), ours = json.loads(done.stdout.splitlines()[-1])
    assert ours == []
    here = model.predict(pd.DataFrame({"audio": [register.example()]}))
    assert answered["probability"] == pytest.approx(here["probability"][0], abs=1e-6)
    assert answered["decision"] in ("positive", "negative", "inconclusive")
    assert (refused["probability"], refused["decision"]) == (None, None)
    assert refused["record_again"] == ["unknown_container"]
