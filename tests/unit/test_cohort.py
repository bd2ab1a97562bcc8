import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from spira_tasks import cohort
from spira_tasks.cohort import people, recorder, write_cohort
from spira_tasks.cohort.people import CONFOUNDS, Person, Plan, Session, draw_person, draw_session
from spira_tasks.cohort.recorder import FAULTS
from spira_tasks.errors import ConfigError


class Size(TypedDict):
    subjects: int
    seed: int


SIZE: Size = {"subjects": 3, "seed": 5}
Written = tuple[Path, Mapping[str, int]]
Faulty = tuple[Path, dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("written") / "cohort"
    counts = write_cohort(folder, workers=1, **SIZE)
    return folder, counts


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Faulty:
    """Rows of eight subjects with every fault, by fault."""
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "audio").mkdir()
    plan = Plan(cohort.GENERATOR, 8, 3, faults=tuple(FAULTS))
    rows = [row for index in range(8) for row in recorder.record_subject(folder, plan, index)]
    return folder, {row["truth"]["fault"]: row for row in rows}


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def people_of(n_people: int = 1500, **choice: Any) -> tuple[list[Person], list[Session]]:
    plan = Plan(cohort.GENERATOR, n_people, 8, **choice)
    drawn = [draw_person(plan, index) for index in range(n_people)]
    return drawn, [draw_session(plan, person, 0) for person in drawn]


def by_class(
    drawn: Sequence[Person], values: Sequence[float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    ill = np.array([person.ill for person in drawn])
    return np.array(values)[ill], np.array(values)[~ill]


def test_every_subject_has_a_room_a_vowel_and_a_sentence(written: Written) -> None:
    folder, counts = written
    rows = read_csv(folder / "recordings.csv")
    assert counts["n_subjects"] == counts["n_sessions"] == 3
    assert counts["n_recordings"] == counts["n_clips"] == len(rows) == 9
    for row in rows:
        path = folder / row["audio_uri"]
        audio = soundfile.info(path)
        assert audio.samplerate in {16_000, 44_100, 48_000}
        assert audio.duration > {"AMBIENT": 5, "VOWEL": 1.5, "SENTENCE": 5}[row["task"]]
        assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_ward_noise_comes_in_two_pools_and_is_longer_than_a_sentence(written: Written) -> None:
    folder, counts = written
    rows = read_csv(folder / "ward_noise.csv")
    assert len(rows) == counts["n_ward_noises"] == 24
    assert {row["x_pool"] for row in rows} == {"train", "evaluation"}
    assert min(soundfile.info(folder / row["file_path"]).duration for row in rows) > 20


def test_the_latents_stay_out_of_the_recordings(written: Written) -> None:
    folder, _ = written
    columns = read_csv(folder / "recordings.csv")[0].keys()
    assert not {"severity", "effect", "ill", "fault", "truth"} & set(columns)
    truth = read_csv(folder / "truth.csv")
    assert [row["record_id"] for row in truth] == [
        row["record_id"] for row in read_csv(folder / "recordings.csv")
    ]


def test_the_bytes_do_not_depend_on_the_number_of_workers(written: Written, tmp_path: Path) -> None:
    write_cohort(tmp_path / "c", workers=2, **SIZE)
    assert digests(tmp_path / "c") == digests(written[0])


def test_an_interrupted_cohort_goes_on_where_it_stopped(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, power_is_out = tmp_path / "c", True
    begun: list[int] = []

    def record(out: Path, plan: Plan, index: int) -> list[dict[str, Any]]:
        begun.append(index)
        if power_is_out and index == 1:
            raise KeyboardInterrupt
        return recorder.record_subject(out, plan, index)

    monkeypatch.setattr(cohort, "record_subject", record)
    with pytest.raises(KeyboardInterrupt):
        write_cohort(folder, workers=1, **SIZE)
    assert not (folder / "cohort.json").exists()
    with (folder / "cohort.partial.jsonl").open("a") as journal:
        journal.write('["subject", 1, [{"reco')  # killed while it wrote

    with pytest.raises(ConfigError, match="beginning of another cohort"):
        write_cohort(folder, subjects=3, seed=6, workers=1)
    power_is_out = False
    write_cohort(folder, workers=1, **SIZE)
    assert begun == [0, 1, 1, 2]
    assert digests(folder) == digests(written[0])


def test_a_finished_cohort_is_left_alone(written: Written) -> None:
    folder, counts = written
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_cohort(folder, workers=1, **SIZE) == counts
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_another_cohort_is_never_written_over(written: Written, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds another cohort"):
        write_cohort(written[0], **SIZE, signal=0.5)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        write_cohort(tmp_path, **SIZE)


@pytest.mark.parametrize(
    ("choice", "known"),
    [({"preset": "p9"}, "clean"), ({"confounds": ["sox"]}, "sex"), ({"faults": ["dce"]}, "dc")],
)
def test_an_unknown_name_is_answered_with_those_there_are(
    tmp_path: Path, choice: Mapping[str, Any], known: str
) -> None:
    with pytest.raises(ConfigError, match=rf"there are .*\b{known}\b"):
        write_cohort(tmp_path / "c", **SIZE, **choice)
    assert not (tmp_path / "c").exists()


def test_a_subject_is_the_same_in_a_larger_cohort(tmp_path: Path) -> None:
    rows = []
    for name, subjects in (("small", 4), ("large", 400)):
        (tmp_path / name / "audio").mkdir(parents=True)
        plan = Plan(cohort.GENERATOR, subjects, 5, faults=("clip",))
        rows.append(recorder.record_subject(tmp_path / name, plan, 3))
    assert rows[0] == rows[1]
    assert digests(tmp_path / "small") == digests(tmp_path / "large")


def test_without_signal_illness_changes_no_sample_of_any_clip() -> None:
    plan = Plan(cohort.GENERATOR, 2, 5, signal=0.0)
    person = next(p for p in (draw_person(plan, 0), draw_person(plan, 1)) if p.ill)
    well = replace(person, ill=False, labelled_ill=False, severity=0.02, cause="")
    assert person.effect == 0
    for task in people.TASKS:
        clips = [
            recorder.render(5, who, draw_session(plan, who, 0), task)[0] for who in (person, well)
        ]
        np.testing.assert_array_equal(clips[0], clips[1])


def test_the_room_does_not_know_who_is_ill() -> None:
    plan = Plan(cohort.GENERATOR, 2, 5)
    person = draw_person(plan, 0)
    worse = replace(person, ill=not person.ill, severity=1.0, effect=1.0)
    assert draw_session(plan, person, 0) == draw_session(plan, worse, 0)
    rooms = [
        recorder.render(5, who, draw_session(plan, who, 0), "AMBIENT")[0] for who in (person, worse)
    ]
    np.testing.assert_array_equal(rooms[0], rooms[1])


def test_half_are_patients_and_no_number_tells_who() -> None:
    drawn, _ = people_of()
    ill = np.array([person.ill for person in drawn])
    assert ill.reshape(-1, 2).sum(axis=1).tolist() == [1] * (len(ill) // 2)
    assert 0.4 < ill[::2].mean() < 0.6
    assert len({person.rgh for person in drawn}) == len(drawn)


@pytest.mark.parametrize("preset", people.PRESETS)
def test_a_study_without_confounds_shares_sex_age_and_acoustics(preset: str) -> None:
    drawn, sessions = people_of(1000, preset=preset)
    for values in (
        [person.sex == "F" for person in drawn],
        [person.age / 100 for person in drawn],
        [person.site.hospital_id == "hospital-a" for person in drawn],
        [session.in_ward for session in sessions],
        [session.snr_db / 50 for session in sessions],
        [session.channel == "webns" for session in sessions],
        [session.mask_type == "NONE" for session in sessions],
        [session.prompt == "coronavirus" for session in sessions],
    ):
        ill, well = by_class(drawn, values)
        assert abs(ill.mean() - well.mean()) < 0.1


@pytest.mark.parametrize(
    ("confound", "of", "ill_and_well"),
    [
        ("ward_noise", lambda _, session: session.in_ward, (1.0, 0.0)),
        ("ward_noise", lambda _, session: session.snr_db, (14, 32)),
        ("noise_type", lambda _, session: session.in_ward, (1.0, 0.0)),
        ("noise_type", lambda _, session: session.snr_db, (14, 14)),
        ("channel", lambda _, session: session.channel == "whatsapp", (1.0, 0.0)),
        ("prompt", lambda _, session: session.prompt == "coronavirus", (1.0, 0.0)),
        ("sex", lambda person, _: person.sex == "F", (0.8, 0.2)),
        ("age", lambda person, _: person.age, (66, 32)),
        ("label_flip", lambda person, _: person.labelled_ill, (0.9, 0.1)),
        ("new_hospital", lambda person, _: person.site is people.NEW_SITE, (0.33, 0.33)),
        ("new_app_version", lambda _, session: session.app_version == "5.0.0", (0.4, 0.4)),
        ("etiology_shift", lambda person, _: person.cause == "covid", (0.0, 0.0)),
    ],
)
def test_a_confound_does_what_it_says(
    confound: str, of: Callable[[Person, Session], float], ill_and_well: tuple[float, float]
) -> None:
    drawn, sessions = people_of(confounds=(confound,))
    values = [float(of(*pair)) for pair in zip(drawn, sessions, strict=True)]
    for found, expected in zip(by_class(drawn, values), ill_and_well, strict=True):
        assert found.mean() == pytest.approx(expected, abs=0.08 if expected <= 1 else 2.5)


def test_the_noise_level_confound_opens_a_gap_of_ten_decibels() -> None:
    drawn, sessions = people_of(2000, confounds=("noise_level",))
    ill, well = by_class(drawn, [session.snr_db for session in sessions])
    assert well.mean() - ill.mean() == pytest.approx(10, abs=1.5)


def test_the_leak_gives_every_subject_several_sessions(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    rows = recorder.record_subject(tmp_path, Plan(cohort.GENERATOR, 2, 5, confounds=("leak",)), 0)
    assert len({row["session_id"] for row in rows}) == 4
    assert len({row["patient_rgh"] for row in rows}) == 1


def test_every_confound_and_fault_has_a_line_of_help() -> None:
    assert all(text and "\n" not in text for text in {**CONFOUNDS, **FAULTS}.values())


def test_every_fault_is_there_and_only_where_it_should_be(faulty: Faulty) -> None:
    _, rows = faulty
    assert rows.keys() == {"", *FAULTS}


def test_rows_carry_the_faults_of_typing(faulty: Faulty) -> None:
    _, rows = faulty
    assert 0 < rows["unit_error"]["spo2"] <= 1
    assert "+" not in rows["tz_naive"]["collected_at"]
    assert rows["tz_naive"]["collected_at"].count("-") == 2
    assert " " in rows["free_text_hospital"]["hospital_id"]
    assert "CPF" in rows["personal_data"]["device_model"]
    assert rows[""]["spo2"] > 1


def test_files_carry_the_faults_of_transfer(faulty: Faulty) -> None:
    folder, rows = faulty
    content = {
        fault: (folder / row["audio_uri"]).read_bytes()
        for fault, row in rows.items()
        if fault != "partial_sync"
    }
    assert not (folder / rows["partial_sync"]["audio_uri"]).exists()
    assert content["zero_len"] == b""
    assert content["not_audio"].startswith(b"<!doctype html>")
    assert hashlib.sha256(content["truncated"]).hexdigest() != rows["truncated"]["sha256"]
    again = rows["dup_upload"]
    assert again["record_id"].endswith("-2")
    first = folder / again["audio_uri"].replace("-2.", ".")
    assert first.read_bytes() == content["dup_upload"]


def test_waveforms_carry_the_faults_of_recording(faulty: Faulty) -> None:
    folder, rows = faulty
    heard: dict[str, npt.NDArray[np.float64]] = {}
    rate_hz: dict[str, int] = {}
    for fault in ("clip", "dc", "8k", "nan", "silent", ""):
        heard[fault], rate_hz[fault] = soundfile.read(folder / rows[fault]["audio_uri"])
    assert np.mean(abs(heard["clip"]) > 0.985) > 0.02
    assert abs(np.mean(heard["dc"])) > 0.05
    assert rate_hz["8k"] == 8_000
    assert np.isnan(heard["nan"]).any()
    assert not heard["silent"].any()
    assert abs(np.mean(heard[""])) < 0.01


def test_too_few_subjects_for_a_fault_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs 8"):
        write_cohort(tmp_path / "c", **SIZE, faults=["personal_data"])
    assert not (tmp_path / "c").exists()


def test_the_record_of_a_cohort_says_what_made_it(written: Written) -> None:
    record = json.loads((written[0] / "cohort.json").read_text())
    assert record["seed"] == 5
    assert record["generator"] == cohort.GENERATOR
    assert record["counts"] == written[1]
