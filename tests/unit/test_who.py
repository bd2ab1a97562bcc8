"""Who is who: one person in many writings is one subject, and a placeholder is nobody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from folders import Cohort, Ingested, cohort

from spira_tasks.artifacts import Store
from spira_tasks.contract.step import Step
from spira_tasks.errors import ConfigError, GateRejected
from spira_tasks.intake import pseudonyms
from spira_tasks.runner import run_step

__all__ = ["cohort"]  # the fixture

KEY = "5f2b" * 16
SECRET = KEY.encode()
SAME = [
    *("01234567A", "1234567-A", "1234567a", " 1234567 A", "1.234.567-A", "1234567/A"),
    *("RGH 1234567A", "Prontuário: 1234567-A", "1234567\u2013A"),
    "\uff11\uff12\uff13\uff14\uff15\uff16\uff17A",
]
SAME_WITHOUT_LETTER = ["0076543", "76543.0", "76543,00", "76.543"]
NOBODY = [
    *("S/N", "N/A", "0", "000", "-", "?", "sem número", "9999", "99999999", "nan", "None", "x"),
    *("3,89913E+07", "3.89913e+07", "3.89913E7", "4E+07"),
]


def of(hospital: str, number: str) -> str:
    return pseudonyms.subject_id(SECRET, hospital, number)


@pytest.mark.parametrize("number", SAME)
def test_a_number_in_another_writing_is_the_same_person(number: str) -> None:
    assert of("site-a", number) == of("site-a", "1234567A")
    assert of(" SITE-A ", number) == of("site-a", "1234567A")


@pytest.mark.parametrize("number", SAME_WITHOUT_LETTER)
def test_a_number_that_a_spreadsheet_rewrote_is_the_same_person(number: str) -> None:
    assert of("site-a", number) == of("site-a", "76543")


def test_other_numbers_are_other_people() -> None:
    numbers = ["1234567A", "1234567B", "1234567", "12345670", "76543000", "1234567E8", "12E45"]
    assert len({of("site-a", number) for number in numbers}) == len(numbers)


@pytest.mark.parametrize("number", NOBODY)
def test_a_placeholder_or_a_number_that_lost_digits_is_refused(
    number: str, cohort: Cohort, store: Store
) -> None:
    """Else people of both classes would be one subject."""
    cohort.rows[0]["patient_rgh"] = cohort.rows[2]["patient_rgh"] = number
    made = Ingested(cohort.write(), store, max_quarantine_fraction=1.0)
    assert made.reasons == {"r000": "no_hospital_number", "r002": "no_hospital_number"}
    assert number not in "".join(made.table("quarantine")["detail"])


def test_a_pseudonym_of_the_hospital_stands_in_for_a_placeholder_in_either_case(
    cohort: Cohort, store: Store
) -> None:
    cohort.rows[0] |= {"patient_rgh": "S/N", "patient_pid": "cd" * 32}
    made = Ingested(cohort.write(), store)
    assert made.reasons == {}
    upper = pd.DataFrame({"patient_pid": ["cd" * 32, "CD" * 32]})
    assert pseudonyms.own_ids(upper, SECRET).nunique() == 1


def test_a_second_delivery_in_other_writings_brings_nobody_new(
    cohort: Cohort, store: Store
) -> None:
    for row in cohort.rows[1::2]:
        row |= {
            "patient_rgh": f"0{row['patient_rgh'][:-1]}-{row['patient_rgh'][-1]}",
            "hospital_id": row["hospital_id"].upper(),
            "session_id": f"{row['session_id']}-b",
        }
    data = cohort.write()
    made = Ingested(data, store)
    assert made.metrics["n_subjects"] == 6
    assert set(made.table("recordings")["hospital_id"]) == {"site-a", "site-b"}
    set_up = Ingested(data, store, run_id="r2", sites=["SITE-A", "site-b"])
    assert set(set_up.table("recordings")["hospital_id"]) == {"SITE-A", "site-b"}
    assert set_up.verdicts["known_sites"].status == "pass"


@pytest.mark.parametrize(
    ("number", "note"),
    [
        ("0012345678", "pac. 12345678"),
        ("12345678.0", "leito 4, 12345678"),
        ("12345678A", "pac. 012.345.678-A"),
        ("12345678A", "pac 12345678 ok"),
        ("12345678-A", "visit-of-12345678a"),
        ("98765", "registro 0098765"),
        ("ab/123", "of ab/123."),
    ],
)
def test_the_number_in_a_note_is_found_whatever_its_writing(number: str, note: str) -> None:
    rows = pd.DataFrame({"patient_rgh": [number], "x_note": [note]})
    assert [*pseudonyms.identifiers_in_text(rows)] == [0]


@pytest.mark.parametrize(
    ("number", "note"),
    [("S/N", "s/n"), ("60304A", "2026-03-04 A"), ("0012", "bed 12"), ("12345A", "12345 ms")],
)
def test_other_digits_in_a_note_are_left_alone(number: str, note: str) -> None:
    rows = pd.DataFrame({"patient_rgh": [number], "x_note": [note]})
    assert pseudonyms.identifiers_in_text(rows) == {}


def contradicting(made: Ingested) -> dict[str, str]:
    table = made.table("quarantine")
    assert set(table["reason"]) <= {"contradicting_labels"}
    return dict(zip(table["record_id"], table["detail"], strict=True))


def test_tasks_of_a_session_with_two_labels_are_all_refused(cohort: Cohort, store: Store) -> None:
    """Else one person is counted as a patient and as a control."""
    cohort.rows[0] |= {"label_source": "hospital_record"}
    cohort.rows[1] |= {"ri_clinical": 0, "sample_type": "AFTERCOVID", "label_source": "weak"}
    found = contradicting(Ingested(cohort.write(), store, max_quarantine_fraction=1.0))
    detail = (
        "ri_clinical differs between the rows of a session, such as "
        "row 2 (SENTENCE, weak) and row 1 (VOWEL, hospital_record)"
    )
    assert found == {"r000": detail, "r001": detail}


def test_a_recording_that_came_with_two_labels_is_refused_both_times(
    cohort: Cohort, store: Store
) -> None:
    again = {"record_id": "again", "session_id": "again", "ri_clinical": 0}
    cohort.rows.append(cohort.rows[1] | again)  # sample_type contradicts it too
    found = contradicting(Ingested(cohort.write(), store, max_quarantine_fraction=1.0))
    assert set(found) == {"r001", "again"}
    assert set(found.values()) == {
        "ri_clinical differs between the rows with the same audio, such as "
        "row 13 (SENTENCE) and row 2 (SENTENCE)"
    }


def test_a_sample_type_against_the_label_is_refused_and_none_is_no_contradiction(
    cohort: Cohort, store: Store
) -> None:
    for row in cohort.rows[:2]:  # both tasks of the session, a patient
        row["sample_type"] = "CONTROL"
    cohort.rows[2] |= {"sample_type": "AFTERCOVID"}
    cohort.rows[4] |= {"ri_clinical": ""}
    found = contradicting(Ingested(cohort.write(), store, max_quarantine_fraction=1.0))
    assert found == dict.fromkeys(
        ("r000", "r001"), "sample_type and ri_clinical say opposite things"
    )


Hand = Callable[..., dict[str, str]]


@pytest.fixture
def hand(store: Store, tmp_path: Path) -> Hand:
    """Put tables into the store, each as the input of this name."""

    def put(**tables: pd.DataFrame) -> dict[str, str]:
        digests = {}
        for name, table in tables.items():
            (tmp_path / name).mkdir()
            table.to_parquet(tmp_path / name / f"{name}.parquet", index=False)
            digests[name] = store.put_directory(tmp_path / name)
        return digests

    return put


def heard(**columns: list[object]) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    about = {"record_id": [f"r{number}" for number in range(n)], "task": ["SENTENCE"] * n}
    return pd.DataFrame(about | columns)


def test_features_of_no_recording_are_refused_with_what_to_do(store: Store, hand: Hand) -> None:
    table = heard(task=["VOWEL"] * 2, waveform=["sha256:0"] * 2)
    step = Step("materialize", "materialize", hand(recordings=table))
    with pytest.raises(GateRejected, match=r"\(SENTENCE\): ingest such recordings, or choose"):
        run_step(step, "r", store)


@pytest.mark.parametrize(
    ("labels", "missing"),
    [
        ([1, 1, 1, 0], "no control to train on:"),
        ([1, 0, 0, 0], "no patient to validate on:"),
        ([1, 1, 1, 1], "no control to train on and no control to validate on:"),
        ([1, 0, None, None], "no patient to validate on and no control to validate on:"),
    ],
)
def test_a_model_of_one_class_is_never_trained(
    labels: list[object], missing: str, store: Store, hand: Hand
) -> None:
    """Also where a waiver let the data past the gate, or features of a class were refused."""
    table = heard(label=labels, split=["train", "train", "validation", "validation"])
    given = hand(recordings=table, features=table[["record_id"]], ward_noise=table)
    with pytest.raises(GateRejected, match=f"of task SENTENCE there is {missing}"):
        run_step(Step("train", "train", given), "r", store)


def test_a_task_without_features_is_a_wrong_setting_and_no_lack_of_people(
    store: Store, hand: Hand
) -> None:
    table = heard(label=[1, 0], split=["train"] * 2)
    given = hand(recordings=table, features=table[["record_id"]], ward_noise=table)
    step = Step("train", "train", given, {"task": "VOWEL"})
    with pytest.raises(ConfigError, match="no recording of task VOWEL has features: set train"):
        run_step(step, "r", store)
