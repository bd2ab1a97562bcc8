"""The same rows by FHIR, HL7 and CSV; what is held back; nobody's number, name or text shown."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hospital import BEGIN, DAY, ENTRIES, MAPPING, SECRET, SYSTEM, Hospital, seen, served
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from expectations.limits import IMPOSSIBLE, UNIT_SLIPS
from spira_services.hospitals import drops
from spira_services.hospitals.drops import CsvFiles
from spira_services.hospitals.evidence import DIAGNOSES, evidence, says
from spira_services.hospitals.fhir import Fhir, keep_answers_out_of_logs
from spira_services.hospitals.hl7 import Hl7Files
from spira_services.hospitals.reading import Connector, Reading
from spira_services.hospitals.rows import (
    UNITS,
    ClinicalFact,
    Entry,
    Held,
    Participant,
    Status,
    decide,
    with_oxygen,
)
from spira_services.hospitals.sync import Synced, sync
from spira_services.hospitals.watch import ALERTS
from spira_tasks.errors import ConfigError

NOW = BEGIN + 9 * DAY
AT = BEGIN + timedelta(hours=1)
WHO = Participant("hc", "5500001B", "subject-1")
OTHER = Participant("hc", "5500002B", "subject-2")


def mapped(folder: Path, text: str = MAPPING) -> CsvFiles:
    (folder / "mapping.toml").write_text(text)
    return CsvFiles(folder, drops.mapping(folder / "mapping.toml"))


def files(hospital: Hospital, folder: Path) -> list[Connector]:
    """The connectors that read a hospital's files."""
    hospital.write_hl7(folder)
    hospital.write_csv(folder)
    return [Hl7Files("hc", folder, wards={"UTI": "ICU"}), mapped(folder)]


def fhir(hospital: Hospital) -> Connector:
    wards = {"UTI-3": "ICU"}
    waits = [].append  # type: ignore[var-annotated]
    return Fhir(
        "hc", hospital.base, SYSTEM, wards=wards, entry_system=ENTRIES, tries=2, sleep=waits
    )


def read(connector: Connector, people: Sequence[Participant]) -> Synced:
    return sync(connector, people, {}, (), secret=SECRET, now=NOW)


def test_three_wires_give_identical_rows(tmp_path: Path) -> None:
    hospital = Hospital(n_people=4, days=2, now=NOW)
    with served(hospital):
        by_fhir, by_hl7, by_csv = (
            read(connector, hospital.participants())
            for connector in (fhir(hospital), *files(hospital, tmp_path))
        )
    assert by_fhir.facts == by_hl7.facts == by_csv.facts
    assert seen(by_fhir.facts) == hospital.truth()
    codes = {alert.code for synced in (by_fhir, by_hl7, by_csv) for alert in synced.alerts}
    assert codes == {"stale"}  # the last value is a week old


def test_a_sync_that_is_repeated_finds_nothing_new(tmp_path: Path) -> None:
    hospital = Hospital(n_people=2, days=1, now=NOW)
    for connector in files(hospital, tmp_path):
        first = read(connector, hospital.participants())
        known = {fact.key for fact in first.facts}
        people = hospital.participants()
        again = sync(connector, people, first.newest, known, secret=SECRET, now=NOW)
        assert first.facts
        assert again.facts == []
        assert again.newest == first.newest


MARKERS = st.text("XYZ", min_size=9, max_size=9).map(lambda text: f"Q{text}Q")


PLANTED_FAULTS = (
    *("", "server_down", "access_denied", "not_json", "two_patients", "wrong_patient"),
    *("foreign_link", "field_renamed", "fraction_for_percent", "null_values"),
)
SAME_FIXTURES = [HealthCheck.function_scoped_fixture]


@settings(
    max_examples=4, deadline=None, suppress_health_check=SAME_FIXTURES, phases=[Phase.generate]
)
@given(
    names=st.lists(MARKERS, min_size=4, max_size=4, unique=True),
    numbers=st.lists(st.integers(10**8, 10**9).map(str), min_size=4, max_size=4, unique=True),
    fault=st.sampled_from(PLANTED_FAULTS),
)
def test_no_number_name_or_free_text_comes_out(
    names: list[str],
    numbers: list[str],
    fault: str,
    tmp_path_factory: pytest.TempPathFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.clear()
    keep_answers_out_of_logs()
    folder = tmp_path_factory.mktemp("planted")
    hospital = Hospital(
        n_people=4, days=2, now=NOW, fault=fault, names=(*names,), numbers=(*numbers,)
    )
    with served(hospital), caplog.at_level(logging.DEBUG):
        found = [read(one, hospital.participants()) for one in files(hospital, folder)]
        found.append(read(fhir(hospital), hospital.participants()))
    shown = [
        *(repr((one.facts, one.held, one.alerts, one.newest)) for one in found),
        *(one.profile.model_dump_json() for one in found),
        *(repr(evidence(one.facts, NOW)) for one in found),
        *(repr(hospital.participants()), caplog.text),
    ]
    assert "hc:hl7" in caplog.text  # the logs are looked at
    assert not [marker for marker in (*names, *numbers) for text in shown if marker in text]


# Decisions


def entry(quantity: Any = "spo2", value: Any = 93.0, unit: str | None = None, **of: Any) -> Entry:
    said: dict[str, Any] = {"at": AT, "status": "final", "source_id": "1", "updated": AT} | of
    return Entry("s", quantity, "field", value, unit, **said)


def decided(*of: Any, **more: Any) -> ClinicalFact | Held:
    return decide(entry(*of, **more), "hc", SECRET, NOW)


@pytest.mark.parametrize(
    ("quantity", "value", "unit", "canonical"),
    [
        ("spo2", 93, "%", 93.0),
        ("spo2", 0.93, "1", 93.0),
        ("spo2", "93", None, 93.0),
        ("temp", 36.5, "Cel", 36.5),
        ("temp", 97.7, "[degF]", 36.5),
        ("fio2", 28, "%", 0.28),
        ("fio2", 0.28, "1", 0.28),
        ("resp_rate", 18, "{breaths}/min", 18.0),
        ("on_oxygen", 2, "L/min", True),
        ("on_oxygen", 0, "L/min", False),
        ("on_oxygen", "true", None, True),
        ("diagnosis", "j960", None, "J96.0"),
        ("unit", "ICU", None, "ICU"),
    ],
)
def test_a_stated_unit_is_converted(quantity: str, value: Any, unit: Any, canonical: Any) -> None:
    fact = decided(quantity, value, unit)
    assert isinstance(fact, ClinicalFact)
    assert (fact.value, fact.unit) == (canonical, UNITS[quantity][0])


@pytest.mark.parametrize("quantity", ["spo2", "temp", "fio2"])
def test_a_value_that_lies_where_another_unit_does_is_never_taken(quantity: str) -> None:
    slip, stated = UNIT_SLIPS[quantity], {"spo2": "%", "temp": "Cel", "fio2": "1"}[quantity]
    for value in (slip.low, (slip.low + slip.high) / 2, slip.high):
        for unit in (None, stated):
            held = decided(quantity, value, unit)
            assert isinstance(held, Held)
            assert held.reason == "unit_slip"


def test_no_slip_is_a_possible_value() -> None:
    for quantity in ("spo2", "temp", "fio2"):
        slip, limit = UNIT_SLIPS[quantity], IMPOSSIBLE[quantity]
        assert limit.low is not None
        assert limit.high is not None
        assert slip.high < limit.low or slip.low > limit.high


@pytest.mark.parametrize(
    ("quantity", "value", "unit", "reason"),
    [
        ("spo2", 30, "%", "impossible"),
        ("heart_rate", 800, "/min", "impossible"),
        ("temp", 36.5, "[degF]", "impossible"),
        ("spo2", 93, "kPa", "unknown_unit"),
        ("spo2", "93,5", "%", "not_a_number"),
        ("spo2", float("nan"), "%", "not_a_number"),
        ("on_oxygen", 2, None, "unknown_value"),
        ("on_oxygen", -1, "L/min", "impossible"),
        ("on_oxygen", "perhaps", None, "unknown_value"),
        ("diagnosis", "pneumonia", None, "unknown_value"),
        ("diagnosis", "", None, "no_value"),
        ("unit", "ROOF", None, "unknown_value"),
    ],
)
def test_what_would_be_a_guess_is_held_back(
    quantity: str, value: Any, unit: Any, reason: str
) -> None:
    held = decided(quantity, value, unit)
    assert isinstance(held, Held)
    assert held.reason == reason


def test_an_entry_in_error_takes_back_what_it_said() -> None:
    said, back = decided(), decided(value=None, status="retracted", at=None)
    assert isinstance(said, ClinicalFact)
    assert isinstance(back, ClinicalFact)
    assert (back.source_ref, back.value) == (said.source_ref, None)
    assert back.key != said.key


def test_a_reference_does_not_show_the_source_name_and_needs_the_key() -> None:
    fact, other = decided(), decide(entry(), "hc", b"another key of hospitals", NOW)
    assert fact.source_ref != other.source_ref
    assert decided(source_id=None).source_ref != fact.source_ref


def test_a_saturation_takes_the_oxygen_that_is_nearest_in_time() -> None:
    def fact(quantity: str, value: Any, minutes: float, unit: str | None = None) -> ClinicalFact:
        at = AT + timedelta(minutes=minutes)
        found = decided(quantity, value, unit, at=at, source_id=None)
        assert isinstance(found, ClinicalFact)
        return found

    def oxygen(*others: ClinicalFact) -> bool | None:
        found = with_oxygen([fact("spo2", 93, 0), *others])
        return next(one.oxygen for one in found if one.quantity == "spo2")

    given, none = fact("on_oxygen", True, 1), fact("on_oxygen", False, 3)
    assert oxygen(given, none) is True
    assert oxygen(none) is False
    assert oxygen(fact("fio2", 0.21, 0)) is False
    assert oxygen(fact("fio2", 0.4, -4)) is True
    assert oxygen(fact("on_oxygen", True, 6)) is None
    assert oxygen(given, fact("on_oxygen", False, -1)) is None  # as near, and the contrary
    assert oxygen() is None


# Versions of one entry


class Said:
    """A connector of entries that are there already."""

    hospital_id, source = "hc", "hc:said"

    def __init__(self, *entries: Entry) -> None:
        self.entries = entries

    def read(self, participants: Any, since: Any) -> Reading:  # noqa: ARG002
        return Reading(self.source, [*self.entries], found={"s"})


def test_the_latest_version_of_an_entry_counts() -> None:
    corrected = entry(value=91, status="corrected", updated=AT + DAY)
    (fact,) = read(Said(entry(), corrected, entry()), []).facts
    assert (fact.value, fact.status) == (91.0, "corrected")


def test_a_correction_of_what_is_known_is_new() -> None:
    (before,) = read(Said(entry()), []).facts
    corrected = entry(value=91, status="corrected", updated=AT + DAY)
    synced = sync(Said(corrected), [], {}, {before.key}, secret=SECRET, now=NOW)
    assert [fact.source_ref for fact in synced.facts] == [before.source_ref]


def test_two_versions_that_are_equally_late_are_both_held_back() -> None:
    synced = read(Said(entry(), entry(value=91)), [])
    assert synced.facts == []
    assert "contradictions" in {alert.code for alert in synced.alerts}


def test_a_clock_that_is_ahead_does_not_hide_what_comes_later() -> None:
    synced = read(Said(entry(updated=NOW + 900 * DAY)), [])
    assert synced.newest == {"s": NOW}


# HL7

HEAD = "MSH|^~\\&|LIS|HC|SPIRA|IME|20260302013000{}||ORU^R01|1|P|2.6"
PID = "PID|1||5500001B^^^HC^MR||Name^Given"
OBX = "OBX|1|NM|59408-5^text^LN||93|%|||||F|||20260302010000"


def hl7(folder: Path, *segments: str, end: str = "\r", **changed: Any) -> Synced:
    (folder / "x.hl7").write_text("\r".join(segments) + end, newline="")
    return read(Hl7Files("hc", folder, **changed), [WHO, OTHER])


def codes(synced: Synced) -> set[str]:
    found = {alert.code for alert in synced.alerts} - {"stale"}
    assert found <= {*ALERTS}
    return found


def test_the_header_states_the_offset_of_a_message(tmp_path: Path) -> None:
    (fact,) = hl7(tmp_path, HEAD.format("-0300"), PID, OBX).facts
    assert fact.at == datetime(2026, 3, 2, 4, tzinfo=UTC)
    assert codes(hl7(tmp_path, HEAD.format(""), PID, OBX)) == {"times_without_offset"}
    (fact,) = hl7(tmp_path, HEAD.format(""), PID, OBX, offset="-0200").facts
    assert fact.at == datetime(2026, 3, 2, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [("|F|", "|P|", "preliminary"), ("|F|", "|C|", "corrected"), ("|F|", "|W|", "retracted")],
)
def test_the_status_of_a_result_is_kept(
    old: str, new: str, expected: Status, tmp_path: Path
) -> None:
    (fact,) = hl7(tmp_path, HEAD.format("-0300"), PID, OBX.replace(old, new)).facts
    assert fact.status == expected


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("|F|", "||", "unknown_statuses"),
        ("NM|59408-5^text^LN||93", "SN|59408-5^text^LN||<^70", "not_numbers"),
        ("||93|", "||93~94|", "not_numbers"),
        ("|%|", "|mm[Hg]|", "unknown_units"),
        ("||93|", "||0.93|", "fraction_for_percent"),
        ("20260302010000", "20260302", "no_times"),
        ("20260302010000", "20261302010000", "no_times"),
    ],
)
def test_a_result_that_does_not_say_it_all_is_named(
    old: str, new: str, code: str, tmp_path: Path
) -> None:
    assert old in OBX
    synced = hl7(tmp_path, HEAD.format("-0300"), PID, OBX.replace(old, new))
    assert synced.facts == []
    assert codes(synced) == {code}


@pytest.mark.parametrize("framing", ["\x0b{}\x1c\r", "{}", "\r\n{}\n\n", "BHS|^~\\&\r{}BTS|2\r"])
@pytest.mark.parametrize("mark", ["\r", "\n", "\r\n"])
def test_messages_are_found_in_any_framing(framing: str, mark: str, tmp_path: Path) -> None:
    message = mark.join([HEAD.format("-0300"), PID, OBX]) + mark
    later = message.replace("20260302010000", "20260302020000")
    written = framing.format(message) + framing.format(later)
    (tmp_path / "x.hl7").write_bytes(written.encode())
    synced = read(Hl7Files("hc", tmp_path), [WHO])
    assert len(synced.facts) == 2
    assert codes(synced) == set()


def test_other_marks_between_fields_are_read(tmp_path: Path) -> None:
    message = [HEAD.format("-0300"), PID, OBX]
    swapped = str.maketrans({"|": "$", "^": "!", "~": "*", "&": "%", "%": "&"})
    lines = [line.translate(swapped) for line in message]
    lines[2] = lines[2].replace("$&$", "$\\T\\$")  # the per cent sign is a mark now
    assert len(hl7(tmp_path, *lines).facts) == 1


def test_a_message_that_is_cut_off_is_left_out(tmp_path: Path) -> None:
    whole, cut = [HEAD.format("-0300"), PID, OBX], OBX.replace("20260302010000", "202603020200")
    synced = hl7(tmp_path, *whole, HEAD.format("-0300"), PID, cut, end="")
    assert len(synced.facts) == 1
    assert codes(synced) == {"cut_file"}


def test_every_group_of_a_message_belongs_to_the_patient_before_it(tmp_path: Path) -> None:
    stranger = PID.replace("5500001B", "7700000C")
    other, late = PID.replace("5500001B", "5500002b"), OBX.replace("|93|", "|88|")
    synced = hl7(tmp_path, HEAD.format("-0300"), PID, OBX, stranger, OBX, other, late)
    assert {(f.subject_id, f.value) for f in synced.facts} == {
        ("subject-1", 93.0),
        ("subject-2", 88.0),
    }


@pytest.mark.parametrize(
    ("identifiers", "n", "code"),
    [
        ("5500001B^^^HC^MR~123^^^SUS^NS", 1, set()),
        ("5500001B", 1, set()),  # the only one, of no stated type
        ("123^^^SUS^NS~5500001B^^^HC^NS", 0, {"nobody"}),  # a number of another kind
        ("5500001B^^^HC^MR~5500002B^^^HC^MR", 0, {"two_patients"}),
    ],
)
def test_a_person_is_known_by_a_hospital_number_only(
    identifiers: str, n: int, code: set[str], tmp_path: Path
) -> None:
    synced = hl7(tmp_path, HEAD.format("-0300"), f"PID|1||{identifiers}||Name", OBX)
    assert len(synced.facts) == n
    assert codes(synced) == code - {"nobody"}


def test_a_deleted_diagnosis_is_taken_back(tmp_path: Path) -> None:
    row = "DG1|1||J960^text^I10||20260302010000|F" + 14 * "|" + "d1|{}"
    admitted = HEAD.format("-0300").replace("ORU^R01", "ADT^A01")
    (said,) = hl7(tmp_path, admitted, PID, row.format("A")).facts
    (back,) = hl7(tmp_path, admitted, PID, row.format("D")).facts
    assert (said.value, said.status) == ("J96.0", "final")
    assert (back.source_ref, back.status) == (said.source_ref, "retracted")


@settings(max_examples=60, deadline=None, suppress_health_check=SAME_FIXTURES)
@given(st.lists(st.text("|^~\\&\r\n\x0bMSHPIDOBX193.-:\x1c", max_size=30), max_size=6))
def test_no_file_ends_a_sync(tmp_path: Path, lines: list[str]) -> None:
    hl7(tmp_path, HEAD.format("-0300"), PID, *lines)


# CSV

WIDE = """
hospital_id = "hc"
[columns]
number = "MRN"
at = "TIME"
[[measures]]
quantity = "spo2"
column = "SAT"
unit = "%"
[[measures]]
quantity = "temp"
column = "T"
unit = "[degF]"
[[measures]]
quantity = "on_oxygen"
column = "O2"
values = { yes = true, no = false }
"""
ROW = "5500001B,2026-03-02 01:00:00Z,93,97.7,yes\n"


def table(folder: Path, text: str, mapping: str = WIDE) -> Synced:
    (folder / "x.csv").write_text(text)
    return read(mapped(folder, mapping), [WHO])


def test_a_wide_table_has_a_quantity_in_each_column(tmp_path: Path) -> None:
    facts = table(tmp_path, "MRN,TIME,SAT,T,O2,NAME\n" + ROW.replace("\n", ",Maria\n")).facts
    assert {fact.quantity: fact.value for fact in facts} == {
        "spo2": 93.0,
        "temp": 36.5,
        "on_oxygen": True,
    }
    assert {fact.oxygen for fact in facts if fact.quantity == "spo2"} == {True}


@pytest.mark.parametrize(
    ("text", "n", "code"),
    [
        ("MRN,TIME,SATURATION,T,O2\n" + ROW, 0, {"field_missing"}),
        (ROW, 0, {"field_missing"}),  # without a header
        ("MRN,TIME,SAT,T,O2\n" + ROW + "5500001B,2026-03-02\n", 3, {"unreadable_rows"}),
        ("MRN,TIME,SAT,T,O2\n" + ROW + "5500001B,2026-03-02 02:00:00Z,9", 3, {"cut_file"}),
        ("MRN,TIME,SAT,T,O2\n" + ROW.replace("93", "0.93"), 2, {"fraction_for_percent"}),
        ("MRN,TIME,SAT,T,O2\n" + ROW.replace("Z", ""), 0, {"times_without_offset"}),
    ],
)
def test_a_table_that_changed_is_named(text: str, n: int, code: set[str], tmp_path: Path) -> None:
    synced = table(tmp_path, text)
    assert len(synced.facts) == n
    assert codes(synced) == code


def test_a_missing_column_is_named_as_the_mapping_calls_it(tmp_path: Path) -> None:
    synced = table(tmp_path, ROW)
    names = {alert.name for alert in synced.alerts if alert.code == "field_missing"}
    assert names == {"MRN", "TIME", "SAT", "T", "O2"}
    assert not synced.profile.complete


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    assert codes(read(mapped(tmp_path), [])) == {"no_files"}


@pytest.mark.parametrize(
    ("old", "new", "says_what"),
    [
        ('quantity = "spo2"', 'quantity = "saturation"', "measures.0.quantity"),
        ('number = "MRN"', 'numbre = "MRN"', "columns.numbre"),
        ("[columns]", "[columns", "no TOML"),
    ],
)
def test_a_mapping_file_that_is_wrong_is_refused_by_its_key(
    old: str, new: str, says_what: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says_what):
        mapped(tmp_path, WIDE.replace(old, new))


# People


def test_one_number_in_two_hospitals_is_two_people(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("MRN,TIME,SAT,T,O2\n" + ROW)
    elsewhere = replace(WHO, hospital_id="another")
    assert read(mapped(tmp_path, WIDE), [elsewhere]).facts == []


def test_two_participants_with_one_number_are_neither_asked_about(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("MRN,TIME,SAT,T,O2\n" + ROW)
    twin = replace(WHO, number="005500001-b", subject_id="subject-9")
    synced = read(mapped(tmp_path, WIDE), [WHO, twin, replace(WHO, number="S/N")])
    assert synced.facts == []
    assert codes(synced) == {"number_of_two", "number_of_nobody"}


# Evidence


def test_only_a_diagnosis_of_insufficiency_says_so() -> None:
    rows = {code: says(code) for code in ("J96.0", "J96", "J80", "J18.9", "U07.1", "S72.0")}
    labels = {code: row.label for code, row in rows.items() if row}
    assert labels == {"J96.0": 1, "J96": 1, "J80": 1, "J18.9": None, "U07.1": None}
    assert all(row.owner == "clinical lead" and row.rationale for row in DIAGNOSES)


def test_nothing_that_a_hospital_says_is_the_label_zero() -> None:
    facts = read(
        Said(
            entry("diagnosis", "J96.0", source_id="1"),
            entry("diagnosis", "J96.0", source_id="2", status="refuted"),
            entry("diagnosis", None, source_id="3", status="retracted"),
            entry("diagnosis", "J96.0", source_id="4", status="preliminary"),
            entry("diagnosis", "S72.0", source_id="5"),
            entry("spo2", 85, source_id="6"),
        ),
        [],
    ).facts
    events = evidence(facts, NOW)
    said = sorted((one.quantity, one.source, str(one.label)) for one in events)
    assert said == [
        ("ri_clinical", "hospital_record", "1"),
        ("ri_clinical", "hospital_record", "None"),
        ("ri_clinical", "hospital_record", "None"),
        ("spo2", "weak", "None"),
    ]


def test_evidence_of_one_fact_has_one_key_whenever_it_is_made() -> None:
    facts = read(Said(entry("diagnosis", "J96.0")), []).facts
    first, later = evidence(facts, NOW), evidence(facts, NOW + DAY)
    assert [one.unique_key for one in first] == [one.unique_key for one in later]
    assert first[0].valid_from == AT
