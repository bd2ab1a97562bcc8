"""``python -m spira_tasks expectations``: tables for people, and proposals that tell of nobody."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from folders import Cohort

from expectations import limits
from expectations.words.catalogue import from_json, to_json
from spira_tasks import proposal, suites
from spira_tasks.artifacts import Store
from spira_tasks.artifacts.sources import open_backend
from spira_tasks.cli import main
from spira_tasks.contract.step import Step
from spira_tasks.errors import GateRejected
from spira_tasks.runner import run_step

AGE = "expect_column_values_to_be_between(age, possible)"
Output = pytest.CaptureFixture[str]


def test_a_suite_is_listed_as_a_table(capsys: Output) -> None:
    assert main(["expectations", "list", "features", "--language", "pt"]) == 0
    shown = capsys.readouterr().out
    assert "gravidade" in shown
    assert "a execução para" in shown
    assert "features: version" in shown
    assert "training_set" not in shown


def test_what_is_listed_as_json_is_the_catalogue(capsys: Output) -> None:
    assert main(["expectations", "list", "--json"]) == 0
    assert from_json(capsys.readouterr().out) == suites.current()


def test_an_expectation_is_shown_with_its_reason_and_owner(capsys: Output) -> None:
    assert main(["expectations", "show", AGE, "--language", "pt"]) == 0
    shown = capsys.readouterr().out
    assert "Em toda gravação, a idade é de 18 a 110 anos." in shown
    assert "responsável clínico" in shown


def test_a_gate_is_shown(capsys: Output) -> None:
    assert main(["expectations", "show", "serving_parity", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["words"]["rationale"] == "The model in use must be the model that was evaluated."


@pytest.mark.parametrize("action", ["list", "show"])
def test_an_unknown_name_is_refused_with_the_known_names(action: str, capsys: Output) -> None:
    assert main(["expectations", action, "nothing"]) == 78
    error = capsys.readouterr().err
    assert "'nothing'" in error
    assert "audio" in error
    assert "Traceback" not in error


def test_a_file_is_compared_with_now(tmp_path: Path, capsys: Output) -> None:
    content = json.loads(to_json(suites.current()))
    (metadata,) = (suite for suite in content if suite["name"] == "metadata")
    (age,) = (entry for entry in metadata["expectations"] if entry["name"] == AGE)
    age["parameters"]["max_value"] = 99
    age["severity"] = "warning"
    before = tmp_path / "before.json"
    before.write_text(json.dumps(content))
    assert main(["expectations", "diff", str(before), "now", "--json"]) == 0
    changes = {change["what"]: change for change in json.loads(capsys.readouterr().out)}
    assert set(changes) == {"severity", "max_value"}
    assert (changes["max_value"]["before"], changes["max_value"]["after"]) == ("99", "110.0")
    assert main(["expectations", "diff", "now", "now"]) == 0
    assert "no difference" in capsys.readouterr().out


def test_what_is_no_version_is_refused(tmp_path: Path, capsys: Output) -> None:
    store = str(tmp_path / "store")
    assert main(["expectations", "diff", "nothing", "now", "--store", store]) == 78
    assert "no file, not `now`, and no run" in capsys.readouterr().err
    file = tmp_path / "other.json"
    file.write_text("{}")
    assert main(["expectations", "diff", str(file), "now"]) == 78
    assert "is not what `expectations list --json` writes" in capsys.readouterr().err


def test_the_page_is_printed(capsys: Output) -> None:
    assert main(["expectations", "document", "--language", "pt"]) == 0
    assert capsys.readouterr().out.startswith("# O que os dados precisam cumprir")


N_PEOPLE = 60
PLANTED = "Planted-7261"


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Sixty people, with a marker wherever a person can be recognised."""
    cohort = Cohort(tmp_path / "data", n_rows=0)
    rng = np.random.default_rng(0)
    for number in range(N_PEOPLE):
        cohort.add(
            number * 2,
            record_id=f"{PLANTED}-{number}",
            session_id=f"{PLANTED}-{number}",
            patient_rgh=f"72610{number:02d}A",
            hospital_id="site-a" if number > 2 else "site-rare",
            device_model=f"{PLANTED}-{number}",
            x_note=PLANTED,
            ri_cause=PLANTED,
            spo2=int(rng.integers(90, 99)),
            heart_rate=61.2345 if number == 0 else round(float(rng.normal(80, 8)), 1),
            temp=36.5 if number < 7 else "",
            age=109 if number == 0 else 30 + number % 50,
        )
    cohort.write()
    return cohort


def values(text: str, name: str) -> dict[str, ast.expr]:
    """The keys and values of a dictionary in the proposal."""
    (node,) = (
        node.value
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == name
    )
    assert isinstance(node, ast.Dict)
    return {
        ast.literal_eval(key): value
        for key, value in zip(node.keys, node.values, strict=True)
        if key
    }


def test_a_proposal_fits_into_the_limits(cohort: Cohort) -> None:
    text = proposal.propose(str(cohort.folder))
    names: dict[str, object] = {"Limit": limits.Limit}
    exec(text, names)  # what a person would paste
    unusual = names["UNUSUAL"]
    assert isinstance(unusual, dict)
    assert 80 <= unusual["spo2"].low <= 90
    assert 97 <= unusual["spo2"].high <= 100
    assert "PROPOSAL, FOR A PERSON TO EDIT" in text
    assert f"Seen: {N_PEOPLE} recordings of {N_PEOPLE} people" in text


def test_a_proposal_tells_of_nobody(cohort: Cohort) -> None:
    text = proposal.propose(str(cohort.folder))
    assert "Planted" not in text
    assert "7261" not in text
    assert "site-rare" not in text  # of three people
    assert ast.literal_eval(values(text, "CATEGORIES")["hospital_id"]) == ["site-a"]
    assert "109" not in text
    assert "61.2345" not in text
    assert "temp: 7 people, too few for a range" in text
    assert "fio2: 0 people" in text


def test_a_few_people_are_not_counted(cohort: Cohort) -> None:
    for row in cohort.rows[3:]:
        row["temp"] = ""
    cohort.rows[5]["age"] = "old"
    cohort.write()
    text = proposal.propose(str(cohort.folder))
    assert "temp: <5 people, too few" in text
    assert "Left out: <5 rows" in text


def test_fewer_than_five_people_get_no_proposal(tmp_path: Path, capsys: Output) -> None:
    small = Cohort(tmp_path / "data", n_rows=8)  # of four people
    small.write()
    with pytest.raises(GateRejected, match="fewer than 5 people"):
        proposal.propose(str(small.folder))
    assert main(["expectations", "propose", "--data", str(tmp_path / "nothing")]) == 78
    assert "Traceback" not in capsys.readouterr().err


def test_a_proposal_is_written_where_it_is_asked_for(
    cohort: Cohort, tmp_path: Path, capsys: Output
) -> None:
    out = tmp_path / "proposal.py"
    command = ["expectations", "propose", "--data", str(cohort.folder), "--out"]
    assert main([*command, str(out)]) == 0
    assert out.read_text() == proposal.propose(str(cohort.folder))
    assert main([*command, str(tmp_path / "nowhere" / "proposal.py")]) == 78
    assert "could not be written" in capsys.readouterr().err


def test_a_proposal_is_made_wherever_recordings_may_lie(
    cohort: Cohort, place: str, capsys: Output
) -> None:
    """A hospital's bucket says what a copy of it in a folder says."""
    backend = open_backend(place)
    for file in cohort.folder.rglob("*.*"):
        backend.write(file.relative_to(cohort.folder).as_posix(), file.read_bytes())
    assert main(["expectations", "propose", "--data", place, "--audio"]) == 0
    assert capsys.readouterr().out == proposal.propose(f"folder:{cohort.folder}", audio=True)


def test_sounds_are_profiled_when_asked_for(cohort: Cohort) -> None:
    text = proposal.propose(str(cohort.folder), audio=True)
    found = re.search(r'AudioLimit\("duration_seconds", \(None, None\), \((\S+), (\S+)\)', text)
    assert found
    assert 0 < float(found[1]) <= 1.5 <= float(found[2]) < 3  # all last 1.5 s


def test_a_range_rests_on_five_people_at_either_end() -> None:
    people = pd.Series([f"p{n}" for n in range(40)])
    usual = pd.Series(np.linspace(0, 1, 40))
    usual[0], usual[39] = -1000.0, 1000.0  # one person each
    found = proposal.usual(usual, people, None, None)
    assert isinstance(found, tuple)
    assert -1 < found[0] < 0.2
    assert 0.8 < found[1] < 2
    assert proposal.usual(usual[:19], people, None, None) == 19  # too few


def test_many_recordings_of_one_person_are_one_person() -> None:
    people = pd.Series(["p"] * 400)
    assert proposal.usual(pd.Series(np.arange(400.0)), people, None, None) == 1


def test_empty_cells_of_a_few_are_not_counted() -> None:
    shares = [proposal.filled_share(200, n_empty) for n_empty in (1, 3, 5)]
    assert len(set(shares)) == 1
    assert proposal.filled_share(200, 20) < shares[0] < proposal.filled_share(200, 0) < 1


@pytest.fixture
def two_runs(tmp_path: Path) -> Store:
    """Two runs, of which the second has fewer columns filled in."""
    store = Store(str(tmp_path / "store"))
    for run, n_rows in (("one", 80), ("two", 120)):
        table = suites.template(n_rows)
        if run == "two":
            table["unit"] = None
        folder, source = tmp_path / run, tmp_path / f"source of {run}"
        folder.mkdir()
        source.mkdir()
        table.to_parquet(folder / "recordings.parquet")
        counts = {"n_rows": n_rows, "n_quarantined": 0, "n_excluded": 0}
        (source / "ingest.json").write_text(json.dumps(counts))
        inputs = {"table": store.put_directory(folder), "source": store.put_directory(source)}
        with pytest.raises(GateRejected):  # the template's sounds are no sounds
            run_step(Step("check", "validate", inputs, {"gate": "recordings"}), run, store)
    return store


def test_two_runs_are_compared_by_what_their_gates_kept(two_runs: Store, capsys: Output) -> None:
    assert main(["expectations", "diff", "one", "two", "--store", two_runs.url, "--json"]) == 0
    changes = json.loads(capsys.readouterr().out)
    assert {(change["what"], "(unit" in change["name"]) for change in changes} == {
        ("removed", True)
    }
    assert main(["expectations", "diff", "one", "one", "--store", two_runs.url]) == 0
    assert "no difference" in capsys.readouterr().out


@pytest.mark.slow
def test_the_benchmark_runs_its_checks() -> None:
    command = [sys.executable, "-m", "benchmarks.expectations", "--trial", "gate", "--rows", "400"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    n_expected = sum(
        len(s.expectations) for s in suites.current() if s.name in {"metadata", "audio"}
    )
    assert found["n_checks"] == n_expected
    assert set(found["parts"]) >= {"import", "checks"}
