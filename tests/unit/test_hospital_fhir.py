"""A FHIR server with faults: each is named, and none gives a wrong row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hospital import BEGIN, DAY, ENTRIES, SECRET, SYSTEM, Hospital, seen, served
from hypothesis import given, settings
from hypothesis import strategies as st

from spira_services.hospitals.fhir import Fhir, _Search
from spira_services.hospitals.reading import Reading
from spira_services.hospitals.rows import Entry, Held, decide
from spira_services.hospitals.sync import Synced, sync
from spira_services.hospitals.watch import ALERTS, Alert
from spira_tasks.errors import ConfigError


def connector(hospital: Hospital, **changed: Any) -> Fhir:
    slept: list[float] = []
    server = Fhir(
        "hc",
        hospital.base,
        SYSTEM,
        authorization="Bearer secret-of-the-server",
        wards={"UTI-3": "ICU"},
        entry_system=ENTRIES,
        tries=3,
        sleep=slept.append,
    )
    return replace(server, **changed)


class Past:
    """Five syncs of a hospital without faults, one a day."""

    def __init__(self) -> None:
        self.since: dict[str, Any] = {}
        self.known: set[str] = set()
        self.facts: list[Any] = []
        self.history: list[Any] = []
        hospital = Hospital()
        with served(hospital):
            for day in range(1, 6):
                hospital.now = BEGIN + day * DAY
                self.add(self.sync(hospital))
        self.alerts = [alert for profile in self.synced for alert in profile.alerts]
        self.truth = hospital.truth()

    synced: list[Synced] = []  # noqa: RUF012

    def sync(self, hospital: Hospital, **changed: Any) -> Synced:
        return sync(
            connector(hospital, **changed), hospital.participants(), self.since, self.known,
            self.history, secret=SECRET, now=hospital.now,
        )  # fmt: skip

    def add(self, synced: Synced) -> None:
        self.synced.append(synced)
        self.since = synced.newest
        self.known |= {fact.key for fact in synced.facts}
        self.facts += synced.facts
        self.history.append(synced.profile)


@pytest.fixture(scope="module")
def past() -> Past:
    return Past()


@pytest.fixture
def hospital() -> Iterator[Hospital]:
    hospital = Hospital(n_people=4, now=BEGIN + DAY)
    with served(hospital):
        yield hospital


def read(hospital: Hospital, since: Any = None, **changed: Any) -> Synced:
    people = hospital.participants()
    server = connector(hospital, **changed)
    return sync(server, people, since or {}, (), secret=SECRET, now=hospital.now)


def test_daily_syncs_find_everything_once_and_raise_no_alert(past: Past) -> None:
    assert past.alerts == []
    assert seen(past.facts) == past.truth
    assert len(past.facts) == len(past.known) == len(past.truth)


FAULTS = {
    "rate_limited": {"rate_limited"},
    "server_error": {"server_error"},
    "server_down": {"server_down", "incomplete"},
    "connection_cut": {"connection_cut"},
    "timed_out": {"timed_out", "incomplete"},
    "not_json": {"not_json", "incomplete"},
    "access_denied": {"access_denied", "incomplete"},
    "foreign_link": {"foreign_link", "incomplete"},
    "cut_search": {"cut_search", "incomplete"},
    "paging_loop": {"paging_loop", "duplicated_page", "incomplete"},
    "paging_without_end": {"paging_loop", "duplicated_page", "incomplete"},
    "duplicated_page": {"duplicated_page"},
    "fraction_for_percent": {"fraction_for_percent", "too_few"},
    "fahrenheit_for_celsius": {"fahrenheit_for_celsius", "too_few"},
    "field_renamed": {"field_renamed", "too_few"},
    "null_values": {"null_values", "too_few"},
    "times_without_offset": {"times_without_offset", "too_few"},
    "too_few": {"too_few"},
    "stale": {"stale"},
    "two_patients": {"two_patients"},
    "wrong_patient": {"wrong_patient"},
}
PASSING = {"rate_limited", "server_error", "connection_cut", "duplicated_page", "wrong_patient"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_gives_no_wrong_row(fault: str, past: Past) -> None:
    hospital = Hospital(now=BEGIN + 6 * DAY, fault=fault)
    if fault == "stale":
        hospital.sayings.clear()
        hospital.now = BEGIN + 9 * DAY
    # Whatever time it takes, no answer comes before the test ends.
    timeout = 0.1 if fault == "timed_out" else 10.0
    with served(hospital):
        synced = past.sync(hospital, timeout_seconds=timeout)
    codes = {alert.code for alert in synced.alerts}
    assert codes == FAULTS[fault]
    assert codes <= {*ALERTS}
    new = Hospital(now=hospital.now).truth() - past.truth
    without = {(*row[:-1], None) for row in new}  # the oxygen given then may not have come
    assert seen(synced.facts) <= new | without
    if fault in PASSING:
        assert seen(synced.facts) == new


def test_what_was_not_read_to_the_end_is_read_the_next_time(past: Past) -> None:
    hospital = Hospital(now=BEGIN + 6 * DAY, fault="foreign_link")
    with served(hospital):
        broken = past.sync(hospital)
        assert broken.newest == past.since
        hospital.fault = ""
        known = past.known | {fact.key for fact in broken.facts}
        mended = sync(
            connector(hospital), hospital.participants(), broken.newest, known,
            [*past.history, broken.profile], secret=SECRET, now=hospital.now,
        )  # fmt: skip
    assert mended.alerts == []
    assert seen(broken.facts + mended.facts) == hospital.truth() - past.truth


def test_a_unit_that_slipped_is_read_again_when_the_source_is_mended(past: Past) -> None:
    hospital = Hospital(now=BEGIN + 6 * DAY, fault="fraction_for_percent")
    with served(hospital):
        slipped = past.sync(hospital)
    assert {one.reason for one in slipped.held} == {"unit_slip"}
    mended = Hospital(now=BEGIN + 8 * DAY, days=6)
    with served(mended):
        synced = sync(
            connector(mended), mended.participants(), slipped.newest,
            past.known | {fact.key for fact in slipped.facts}, secret=SECRET, now=mended.now,
        )  # fmt: skip
    assert seen(slipped.facts + synced.facts) == mended.truth() - past.truth


def test_a_hospital_number_goes_in_the_body_and_in_no_address(hospital: Hospital) -> None:
    read(hospital)
    numbers = [hospital.number(person) for person in range(hospital.n_people)]
    assert all(any(number in body for body in hospital.bodies) for number in numbers)
    assert not [line for line in hospital.requests for number in numbers if number in line]


def test_a_page_at_another_host_is_not_asked_for(hospital: Hospital) -> None:
    hospital.fault = "foreign_link"
    read(hospital)
    assert not [line for line in hospital.requests if "localhost" in line]


@pytest.mark.parametrize(
    "following",
    [
        "https://127.0.0.1/fhir?page=2",  # another scheme and port
        "http://127.0.0.1:1/fhir?page=2",
        "http://user@127.0.0.1:8080/fhir?page=2",
        "//elsewhere.example/fhir?page=2",
        "file:///etc/passwd",
    ],
)
def test_the_next_page_is_at_the_same_origin_or_nowhere(following: str) -> None:
    base = httpx.URL("http://127.0.0.1:8080/fhir/")
    with pytest.raises(Exception, match="foreign_link"):
        _Search.checked(base, following)
    assert str(_Search.checked(base, "?page=2")) == "http://127.0.0.1:8080/fhir/?page=2"


def test_a_server_that_asks_to_wait_is_asked_again_after_as_long(hospital: Hospital) -> None:
    hospital.fault = "rate_limited"
    slept: list[float] = []
    read(hospital, sleep=slept.append)
    assert slept == [7.0]


def test_a_failing_server_is_left_more_and_more_time_and_then_alone(hospital: Hospital) -> None:
    hospital.fault = "server_down"
    slept: list[float] = []
    synced = read(hospital, sleep=slept.append, tries=4)
    assert slept == 3 * [1.0, 2.0, 4.0]  # for three participants; the fourth is not asked about
    assert synced.facts == []
    assert synced.newest == {}


def test_a_refusal_says_which_one_and_nothing_that_the_server_wrote(hospital: Hospital) -> None:
    hospital.names = ("Maria",) * 8
    hospital.fault = "access_denied"
    synced = read(hospital)
    denied = Alert("access_denied", "hc:fhir", "", "forbidden", {"searches": 1})
    assert denied in synced.alerts
    assert "Maria" not in repr(synced)
    assert len(hospital.requests) == 1


def test_only_what_changed_is_asked_for(hospital: Hospital) -> None:
    newest = read(hospital).newest
    hospital.bodies.clear()
    read(hospital, newest)
    searches = [body for body in hospital.bodies if body and "identifier" not in body]
    assert searches
    assert all("_lastUpdated=ge2026-03-0" in body for body in searches)


def test_a_new_participant_is_read_from_the_beginning(hospital: Hospital) -> None:
    first = hospital.participants()[0]
    before = read(hospital).newest
    del before[first.subject_id]
    again = read(hospital, before)
    mine = {row for row in hospital.truth() if row[0] == first.subject_id}
    assert {row for row in seen(again.facts) if row[0] == first.subject_id} == mine
    assert len(again.facts) < len(hospital.truth())


def test_a_server_without_the_participants_is_named(hospital: Hospital) -> None:
    people = [replace(one, number=f"9{one.number}") for one in hospital.participants()]
    hospital_system = connector(hospital)
    synced = sync(hospital_system, people, {}, (), secret=SECRET, now=hospital.now)
    assert [alert.code for alert in synced.alerts] == ["nobody_found"]


def observation(**changed: Any) -> list[Entry]:
    resource = {
        "resourceType": "Observation",
        "id": "r1",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "59408-5"}]},
        "effectiveDateTime": "2026-03-04T10:00:00-03:00",
        "valueQuantity": {"value": 93, "unit": "%"},
    }
    server = Fhir("hc", "https://fhir.example/r4", SYSTEM)
    with httpx.Client(verify=False) as client:  # it asks nothing
        search = _Search(server, client, Reading("hc:fhir"))
        return list(search.observation(resource | changed, "s"))


def test_components_of_an_observation_are_entries_of_their_own() -> None:
    flow = {
        "code": {"coding": [{"system": "http://loinc.org", "code": "3151-8"}]},
        "valueQuantity": {"value": 2, "unit": "L/min"},
    }
    spo2, oxygen = observation(component=[flow])
    assert (spo2.quantity, spo2.value) == ("spo2", 93)
    assert (oxygen.quantity, oxygen.value) == ("on_oxygen", 2)
    assert spo2.at == oxygen.at


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"valueQuantity": {"value": 70, "unit": "%", "comparator": "<"}}, "not_a_number"),
        ({"valueQuantity": {"value": True, "unit": "%"}}, "not_a_number"),
        ({"valueQuantity": {"value": "NaN", "unit": "%"}}, "not_a_number"),
        ({"valueQuantity": {"value": 93, "unit": "mmHg"}}, "unknown_unit"),
        ({"valueQuantity": {"value": 0.93, "unit": "%"}}, "unit_slip"),
        ({"valueQuantity": {"value": 93, "unit": "1"}}, "impossible"),
        ({"valueQuantity": [93]}, "no_value"),
        ({"valueQuantity": {}}, "no_value"),
        ({"effectiveDateTime": "2026-03-04"}, "no_time"),
        ({"effectiveDateTime": "2026-03-04T10:00:00"}, "no_offset"),
        ({"effectiveDateTime": "2026-13-04T10:00:00Z"}, "no_time"),
        ({"effectiveDateTime": "2036-03-04T10:00:00Z"}, "future"),
        ({"status": "registered"}, "unfinished"),
        ({"status": "some other"}, "unknown_status"),
        ({"status": None}, "unknown_status"),
    ],
)
def test_an_observation_that_does_not_say_it_all_is_held_back(changed: Any, reason: str) -> None:
    (entry,) = observation(**changed)
    decided = decide(entry, "hc", SECRET, BEGIN + 9 * DAY)
    assert isinstance(decided, Held)
    assert decided.reason == reason


@pytest.mark.parametrize("address", ["http://fhir.example/r4", "https://user:word@fhir.example/r4"])
def test_an_address_that_gives_secrets_away_is_refused(address: str) -> None:
    with pytest.raises(ConfigError):
        Fhir("hc", address, SYSTEM)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["code", "status", "valueQuantity", "meta", "component"]), value=anything
)
def test_no_resource_ends_a_sync(name: str, value: Any) -> None:
    for entry in observation(**{name: value}):
        decide(entry, "hc", SECRET, BEGIN + 9 * DAY)
