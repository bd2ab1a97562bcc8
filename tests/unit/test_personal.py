"""Numbers and addresses that lead to a person: what is found, what is not, and by whom."""

from __future__ import annotations

from datetime import date
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from suites import recordings

from expectations.personal import holds_personal_data, is_cns, is_cpf
from expectations.suites import metadata
from spira_tasks import quality
from spira_tasks.errors import ConfigError
from spira_tasks.governance.decisions import checked_reason
from spira_tasks.intake.pseudonyms import identifiers_in_text

TELLING = [
    "000.000.001-91", "CPF 00000000191", "CPF 52998224725", "529 982 247 25", "529.982.247/25",
    "529.982.247-26",  # mistyped, and yet
    "98 52998224725", "cpf_52998224725", "CNS 898001160660761", "898 0011 6066 0761",
    "(11) 91234 5678", "11 91234 5678", "11912345678", "11.91234.5678", "11 9 1234-5678",
    "011 91234-5678", "tel(11)98765-4321", "(11)\u00a098765\u20134321", "5511987654321",
    "+55 11 98765-4321", "(11) 98765-4321", "+551134567890", "(11) 3456 7890", "11 3456-7890",
    "a.b@c.org", "1234567A", "1234567a", "12345678k", "1234567-A", "1234567\u2013a", "1234567/K",
    "RGH1234567A", "rgh12345678-k", "prontuário1234567b", "_1234567A", "CPF52998224725",
    "cpf529.982.247-26", "tel11987654321", "Whatsapp(11)98765-4321", "fone5511987654321",
    "CNS898001160660761", "cns898 0011 6066 0761",
]  # fmt: skip
TELLS_NOTHING = [
    "2026-03-04T10:20:30-03:00", "2024-05-01 12:30", "12.9.2024 1130", "12/09/2024 11:30",
    "20240501-1234", "202405-1234", "11-19-2024", "20240501123045", "1760000000000",
    "clean1-000123-0-sentence", "PTT-20200405-WA0012", "0f8fad5b-d9cb-469f-a165-708677289501",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "1634056560", "serial 52998224726", "serial 20912345678", "card 898001160660762",
    "Android 11; 10.4.2", "Chrome/91.0.4472.120", "12345678-d9cb-469f-a165-708677289501",
    "1234567a-d9cb-469f-a165-708677289501", "ab112345-6789-469f-a165-708677289501",
    "20240501a", "20240501-B", "PTT-20240501-WA1234567", "SN1234567A", "a1234567b",
    "deadbeef1234567a", "1234567 a 3", "1234567 E 89", "1234567-as", "1234567l", "cpf52998224726",
    "cns898001160660762", "beef52998224725", "ad898001160660761",
]  # fmt: skip


@pytest.mark.parametrize("text", TELLING)
def test_what_leads_to_a_person_is_found(text: str) -> None:
    assert holds_personal_data(f"on {text} today")


@pytest.mark.parametrize("text", TELLS_NOTHING)
def test_times_digests_counters_and_versions_do_not_lead_to_a_person(text: str) -> None:
    assert not holds_personal_data(text)


def test_random_digits_have_the_check_digits_of_a_person_rarely() -> None:
    rng = np.random.default_rng(4)
    cpf = ["".join(row) for row in rng.choice([*"0123456789"], (4000, 11))]
    cns = ["".join(row) for row in rng.choice([*"0123456789"], (4000, 15))]
    assert sum(map(is_cpf, cpf)) < 80  # one in a hundred
    assert sum(map(is_cns, cns)) < 300  # one in twenty-two


GAPS = st.sampled_from(["", " ", "-", ".", " - "])
DIGITS = st.text("0123456789", min_size=4, max_size=4)
SURROUNDINGS = st.sampled_from(["", "call ", "tel:", "bed 12, ", "2024 "])


@given(
    st.tuples(
        SURROUNDINGS,
        st.sampled_from(["", "+55", "+55 "]),
        st.sampled_from(["11", "21", "47", "85", "(11)", "(92)", "(085)"]),
        *(GAPS, st.sampled_from(["9", "9 "]), DIGITS, GAPS, DIGITS),
    )
)
def test_a_mobile_is_found_however_it_is_written(parts: tuple[str, ...]) -> None:
    assert holds_personal_data("".join(parts))


def cpf(nine: str) -> str:
    """A CPF from its first nine digits, as the tax office reckons it: a remainder of 10 is 0."""
    for first in (1, 0):
        total = sum(int(digit) * place for place, digit in enumerate(nine, first))
        nine += str(total % 11 % 10)
    return nine


@given(st.from_regex(r"[0-9]{9}", fullmatch=True), st.integers(1, 9))
def test_a_cpf_is_found_by_its_check_digits_however_it_is_written(nine: str, change: int) -> None:
    number = cpf(nine)
    is_one = len(set(number)) > 1  # eleven equal digits are none
    assert is_cpf(number) == is_one
    assert not is_cpf(number[:-1] + str((int(number[-1]) + change) % 10))
    for marks in ("{}{}{}{}", "{}{}{}-{}", "{} {} {} {}", "{}.{}.{}-{}", "{}.{}.{}/{}"):
        written = marks.format(number[:3], number[3:6], number[6:9], number[9:])
        assert holds_personal_data(f"of {written}") or not is_one


@given(
    st.dates(date(2020, 4, 1), date(2039, 12, 31)),
    st.from_regex(r"([0-9]{3,7}|-[0-9]{1,6}|[A-K]?)", fullmatch=True),
    st.sampled_from(["", "rec-", "r", "s-11-"]),
)
def test_an_identifier_made_of_a_day_and_a_counter_leads_to_nobody(
    day: date, counter: str, prefix: str
) -> None:
    assert not holds_personal_data(f"{prefix}{day:%Y%m%d}{counter}", is_identifier=True)


@pytest.mark.parametrize(
    "text",
    [
        *("rec-52998224725", "rec52998224725", "s 898001160660761", "a@b.org", "1234567A-3"),
        *("1234567k", "rec-12345678g", "RGH1234567a", "s-rgh1234567-A"),
    ],
)
def test_an_identifier_that_is_somebodys_number_is_found(text: str) -> None:
    assert holds_personal_data(text, is_identifier=True)


@pytest.mark.parametrize(
    "text", ["1234567a", "12345678f", "rec-0001234-A", "rec-0001234-k", "rec0001234a", "r12345678b"]
)
def test_an_identifier_that_may_be_a_digest_or_a_counter_leads_to_nobody(text: str) -> None:
    assert not holds_personal_data(text, is_identifier=True)


def test_of_random_identifiers_hardly_any_is_taken_for_somebodys_number() -> None:
    rng = np.random.default_rng(9)
    for length in (8, 9, 12, 16, 32):
        hexadecimal = ["".join(row) for row in rng.choice([*"0123456789abcdef"], (5000, length))]
        assert sum(holds_personal_data(text, is_identifier=True) for text in hexadecimal) == 0
    uuids = [str(UUID(bytes=rng.bytes(16))) for _ in range(20_000)]
    assert sum(map(holds_personal_data, uuids)) <= 2  # all digits, as a telephone


def test_ingest_the_gate_and_written_reasons_find_the_same() -> None:
    texts = [f"note {text}" for text in (*TELLING, *TELLS_NOTHING)]
    table = recordings(4 * len(texts)).iloc[: len(texts)].assign(x_note=texts)
    reported = {*range(len(TELLING))}
    assert set(identifiers_in_text(table)) == reported
    report = quality.check(table, metadata.suite(table))
    name = "expect_column_values_to_hold_no_personal_data:x_note"
    assert {row for row, codes in report.faults.items() if name in codes} == reported
    refused = set()
    for number, text in enumerate(texts):
        try:
            checked_reason(text)
        except ConfigError:
            refused.add(number)
    assert refused == reported


def test_ingest_and_the_gate_pass_identifiers_made_of_days() -> None:
    table = recordings(400)
    days = [f"rec-20240501{number:03d}" for number in range(400)]
    assert any(map(holds_personal_data, days))  # as free text some of them would be a CPF
    table = table.assign(
        record_id=days, session_id=pd.Series(days).str[4:].iloc[::2].repeat(2).array
    )
    assert identifiers_in_text(table) == {}
    report = quality.check(table, metadata.suite(table))
    assert report.faults == {}
