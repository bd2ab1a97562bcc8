"""Read a FHIR R4 server: Patient by hospital number, then Observation, Condition and Encounter.

A search goes by POST with its terms in the body: servers and proxies on the way log addresses.  The
next page is an address that the server makes; it is asked for at the same server only.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from spira_services.hospitals.reading import Reading, by_number, of_hospital
from spira_services.hospitals.rows import (
    LOINC,
    PLACES,
    Entry,
    Participant,
    Quantity,
    Status,
    aware,
    instant,
)
from spira_tasks.errors import ConfigError
from spira_tasks.intake.pseudonyms import canonical_number

CODES: Mapping[str, Quantity] = {f"http://loinc.org|{code}": LOINC[code] for code in LOINC}
ICD10_SYSTEMS = (
    "http://hl7.org/fhir/sid/icd-10",
    "http://hl7.org/fhir/sid/icd-10-cm",
    "http://www.saude.gov.br/fhir/r4/CodeSystem/BRCID10",
)
UCUM = "http://unitsofmeasure.org"
OBSERVATION_STATUS: dict[str, Status] = {
    "final": "final",
    "amended": "corrected",
    "corrected": "corrected",
    "preliminary": "preliminary",
    "registered": "unfinished",
    "cancelled": "retracted",
    "entered-in-error": "retracted",
}
CONDITION_STATUS: dict[str, Status] = {
    "confirmed": "final",
    "unconfirmed": "preliminary",
    "provisional": "preliminary",
    "differential": "preliminary",
    "refuted": "refuted",
    "entered-in-error": "retracted",
}
CLASSES = {
    **dict.fromkeys(("IMP", "ACUTE", "NONAC", "OBSENC"), "WARD"),
    "EMER": "ER",
    "AMB": "OUTPATIENT",
    "HH": "HOME",
}
# The whole value set of OperationOutcome.issue.code: beside it, an outcome is free text.
ISSUES = {
    *("invalid", "structure", "required", "value", "invariant", "security", "login", "unknown"),
    *("expired", "forbidden", "suppressed", "processing", "not-supported", "duplicate"),
    *("multiple-matches", "not-found", "deleted", "too-long", "code-invalid", "extension"),
    *("too-costly", "business-rule", "conflict", "transient", "lock-error", "no-store"),
    *("exception", "timeout", "incomplete", "throttled", "informational"),
}

OVERLAP = timedelta(hours=1)  # asked for again: what was being written when the last sync asked
MAX_BYTES = 32 << 20  # of one answer
MAX_PAGES = 1000  # of one search
MAX_REPEATED = 3  # pages in a row with nothing new
MAX_FAILED = 3  # participants in a row, after whom a server is left alone
MAX_WAIT_SECONDS = 120.0
FIRST_WAIT_SECONDS = 1.0
ANSWER_SECONDS = 120.0  # for one answer, however slowly it comes
LASTING = {"server_error": "server_down"}  # when it was asked as often as it may be


class _Failed(Exception):
    """A search that cannot be ended.  ``for_all``: nobody else need be asked about now."""

    def __init__(self, code: str, issue: str = "", for_all: bool = False) -> None:
        super().__init__(code)
        self.code, self.issue, self.for_all = code, issue, for_all


class _Trouble(Exception):
    """One try that failed; the next one may not.  ``wait``: seconds that the server asks for."""

    def __init__(self, code: str, wait: float | None = None) -> None:
        super().__init__(code)
        self.code, self.wait = code, wait


class _Refused(Exception):
    """A person whom the server does not tell from others."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def keep_answers_out_of_logs() -> None:
    """Call this where a program starts, before a server is read.

    The client logs the address of each request and its answer's headers: both are the server's own
    text, in which it may name a patient.
    """
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)


@dataclass(frozen=True)
class Fhir:
    """A FHIR R4 server, and how this hospital uses it.

    Parameters
    ----------
    base : str
        Address before ``/Patient``; https, but for this machine.
    system : str
        System of the hospital numbers in ``Patient.identifier``.
    authorization : str
        Value of the header, ``Bearer …``.
    codes : mapping
        ``system|code`` of Observation to the quantity.
    wards : mapping
        Identifier of a location to a place of the row contract.
    entry_system : str
        System in ``identifier`` of the hospital's own names for entries, unique and for ever; empty
        to use the server's ``id``.
    tries : int
        How often one request is made, at most.
    """

    hospital_id: str
    base: str
    system: str
    authorization: str = field(default="", repr=False)
    codes: Mapping[str, Quantity] = field(default_factory=lambda: CODES)
    wards: Mapping[str, str] = field(default_factory=dict)
    entry_system: str = ""
    tries: int = 5
    page_size: int = 200
    timeout_seconds: float = 30.0
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        url = httpx.URL(self.base)
        if url.scheme != "https" and url.host not in {"127.0.0.1", "::1", "localhost"}:
            raise ConfigError("the address of a FHIR server has to begin with https://")
        if url.userinfo or url.query:
            raise ConfigError("the address of a FHIR server holds no password and no question mark")
        if wrong := {*self.wards.values()} - {*PLACES}:
            raise ConfigError(f"wards of {self.hospital_id}: {sorted(wrong)} are none of {PLACES}")

    @property
    def source(self) -> str:
        return f"{self.hospital_id}:fhir"

    def read(self, participants: Sequence[Participant], since: Mapping[str, datetime]) -> Reading:
        """Ask about each participant in turn; a failure leaves that one for the next time."""
        reading = Reading(self.source)
        people = by_number(of_hospital(participants, self.hospital_id), reading)
        headers = {"Accept": "application/fhir+json", "Prefer": "handling=strict"}
        if self.authorization:
            headers["Authorization"] = self.authorization
        with httpx.Client(headers=headers, timeout=self.timeout_seconds) as client:
            search = _Search(self, client, reading)
            failed = 0
            for person in people.values():
                if failed >= MAX_FAILED:
                    reading.unread.add(person.subject_id)
                    continue
                try:
                    search.person(person, people, since.get(person.subject_id))
                    failed = 0
                except _Refused as refusal:
                    reading.note(refusal.code, people=1)
                    reading.refused.add(person.subject_id)
                except _Failed as failure:
                    reading.note(failure.code, "", failure.issue, searches=1)
                    reading.unread.add(person.subject_id)
                    failed = MAX_FAILED if failure.for_all else failed + 1
        return reading


@dataclass
class _Search:
    server: Fhir
    client: httpx.Client
    reading: Reading

    def person(
        self, person: Participant, people: Mapping[str, Participant], since: datetime | None
    ) -> None:
        wanted = f"{self.server.system}|{person.number}"
        found = {
            text(patient, "id"): patient
            for patient in self.resources("Patient", {"identifier": wanted})
        }
        if not found:
            return
        if len(found) > 1:
            raise _Refused("two_patients")
        ((patient_id, patient),) = found.items()
        numbers = self.numbers(patient)
        if not patient_id or canonical_number(person.number) not in numbers:
            raise _Refused("wrong_patient")
        if len(numbers & {*people}) > 1:
            raise _Refused("two_patients")
        self.reading.found.add(person.subject_id)
        terms = {"patient": f"Patient/{patient_id}"}
        if since:
            terms["_lastUpdated"] = (
                (since - OVERLAP).astimezone(UTC).strftime("ge%Y-%m-%dT%H:%M:%SZ")
            )
        # Codes without their system, so that what moves to another system is seen and named.
        codes = ",".join(sorted({code.partition("|")[2] for code in self.server.codes}))
        for kind, entries_of, more in (
            ("Observation", self.observation, {"code": codes}),
            ("Condition", self.condition, {}),
            ("Encounter", self.encounter, {}),
        ):
            for resource in self.resources(kind, terms | more):
                if not self.is_about(resource, patient_id):
                    self.reading.note("wrong_patient", entries=1)
                    continue
                self.reading.entries += entries_of(resource, person.subject_id)

    def numbers(self, patient: Any) -> set[str]:
        return {
            canonical_number(text(one, "value") or "")
            for one in items(patient, "identifier")
            if text(one, "system") == self.server.system
        }

    def is_about(self, resource: Any, patient_id: str) -> bool:
        reference = text(resource, "subject", "reference") or ""
        if "://" in reference:
            own = self.server.base.rstrip("/") + "/"
            if not reference.startswith(own):
                return False
            reference = reference.removeprefix(own)
        return reference.split("/_history/")[0] == f"Patient/{patient_id}"

    def resources(self, kind: str, terms: Mapping[str, str]) -> Iterator[Any]:
        """Resources of one kind that a search finds; what comes twice is one entry later."""
        base = httpx.URL(self.server.base.rstrip("/") + "/")
        url = base.join(f"{kind}/_search")
        body: dict[str, str] | None = {**terms, "_count": str(self.server.page_size)}
        asked, repeated = {str(url)}, 0
        seen: set[tuple[str | None, str | None]] = set()
        for _ in range(MAX_PAGES):
            bundle = self.answer(url, body)
            entries = [one.get("resource") for one in items(bundle, "entry")]
            self.outcomes(entries)
            page = [one for one in entries if text(one, "resourceType") == kind]
            names = [(text(one, "id"), text(one, "meta", "versionId")) for one in page]
            if page and seen.issuperset(names):
                self.reading.note("duplicated_page", pages=1)
                repeated += 1
            else:
                repeated = 0
            seen.update(names)
            yield from page
            following = next(
                (
                    text(one, "url")
                    for one in items(bundle, "link")
                    if text(one, "relation") == "next"
                ),
                None,
            )
            if following is None:
                total = bundle.get("total")
                if isinstance(total, int) and total > len(seen):
                    raise _Failed("cut_search")
                return
            url, body = self.checked(base, following), None
            if str(url) in asked or repeated >= MAX_REPEATED:
                break
            asked.add(str(url))
        raise _Failed("paging_loop")

    @staticmethod
    def checked(base: httpx.URL, following: str) -> httpx.URL:
        """Return the address of the next page, at the same server."""
        try:
            url = base.join(following)
        except httpx.InvalidURL:
            raise _Failed("not_fhir") from None
        if url.userinfo or any(
            getattr(url, part) != getattr(base, part) for part in ("scheme", "host", "port")
        ):
            raise _Failed("foreign_link")
        return url

    def outcomes(self, entries: Iterable[Any]) -> None:
        """Name what the server says of the search itself."""
        for entry in entries:
            if text(entry, "resourceType") != "OperationOutcome":
                continue
            for issue in items(entry, "issue"):
                if text(issue, "severity") in {"error", "fatal"}:
                    raise _Failed("search_refused", issue_code(issue))
                if text(issue, "severity") == "warning":
                    self.reading.note("outcome_warning", "", issue_code(issue), warnings=1)

    def answer(self, url: httpx.URL, body: Mapping[str, str] | None) -> dict[str, Any]:
        """Ask until a bundle comes, or as often as is allowed."""
        passed: Counter[str] = Counter()
        code = ""
        for n in range(self.server.tries):
            try:
                bundle = self.attempt(url, body)
            except _Trouble as trouble:
                code = trouble.code
                passed[code] += 1
                wait = FIRST_WAIT_SECONDS * 2**n if trouble.wait is None else trouble.wait
                if wait > MAX_WAIT_SECONDS:
                    break
                if n + 1 < self.server.tries:
                    self.server.sleep(wait)
            else:
                for code, times in passed.items():
                    self.reading.note(code, times=times)
                return bundle
        raise _Failed(LASTING.get(code, code), for_all=code == "rate_limited")

    def attempt(self, url: httpx.URL, body: Mapping[str, str] | None) -> dict[str, Any]:
        try:
            status, headers, content = self.send(url, body)
        except httpx.TimeoutException:
            raise _Trouble("timed_out") from None
        except httpx.ConnectError:
            raise _Trouble("unreachable") from None
        except httpx.DecodingError:
            raise _Trouble("not_json") from None
        except httpx.TransportError:
            raise _Trouble("connection_cut") from None
        if status == httpx.codes.TOO_MANY_REQUESTS:
            raise _Trouble("rate_limited", retry_after(headers.get("Retry-After", "")))
        if status >= 500:
            raise _Trouble("server_error")
        if status != httpx.codes.OK:
            raise refused_by(status, content)
        answer = parsed(content)
        if answer is None:
            raise _Trouble("not_json")
        return checked_bundle(answer)

    def send(
        self, url: httpx.URL, body: Mapping[str, str] | None
    ) -> tuple[int, httpx.Headers, bytes]:
        ends = time.monotonic() + ANSWER_SECONDS
        content = bytearray()
        method = "GET" if body is None else "POST"
        with self.client.stream(method, url, data=body) as response:
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > MAX_BYTES:
                    raise _Failed("too_large")
                if time.monotonic() > ends:
                    raise httpx.ReadTimeout("the answer came too slowly")
        return response.status_code, response.headers, bytes(content)

    def observation(self, resource: Any, subject_id: str) -> Iterator[Entry]:
        """Entries of an Observation and of its components."""
        for one in (resource, *items(resource, "component")):
            field, quantity = self.quantity(one)
            if quantity is None:
                if field and not items(resource, "component"):
                    self.reading.saw_unknown(field)
                continue
            value, unit = stated(one)
            yield Entry(
                subject_id,
                quantity,
                field,
                value,
                unit,
                instant(text(resource, "effectiveDateTime"))
                or instant(text(resource, "effectiveInstant"))
                or instant(text(resource, "effectivePeriod", "start")),
                OBSERVATION_STATUS.get(text(resource, "status") or "", "unknown"),
                self.name_of(resource),
                last_updated(resource),
            )

    def quantity(self, resource: Any) -> tuple[str, Quantity | None]:
        """Return the field that leads to a quantity, else the first one there."""
        fields = [
            f"{text(coding, 'system') or ''}|{text(coding, 'code') or ''}"
            for coding in items(resource, "code", "coding")
        ]
        known = [field for field in fields if field in self.server.codes]
        quantities = {self.server.codes[field] for field in known}
        if len(quantities) == 1:
            return known[0], quantities.pop()
        return (fields or [""])[0], None

    def condition(self, resource: Any, subject_id: str) -> Iterator[Entry]:
        codings = items(resource, "code", "coding")
        known = [
            (text(coding, "system") or "", text(coding, "code"))
            for coding in codings
            if text(coding, "system") in ICD10_SYSTEMS
        ]
        if not known:
            for coding in codings:
                self.reading.saw_unknown(text(coding, "system") or "")
            return
        status = [
            text(coding, "code") or "" for coding in items(resource, "verificationStatus", "coding")
        ]
        yield Entry(
            subject_id,
            "diagnosis",
            known[0][0],
            # Two different codes are no code.
            known[0][1] if len({code for _, code in known}) == 1 else "several",
            None,
            instant(text(resource, "recordedDate")) or instant(text(resource, "onsetDateTime")),
            CONDITION_STATUS.get(status[0], "unknown") if status else "final",
            self.name_of(resource),
            last_updated(resource),
        )

    def encounter(self, resource: Any, subject_id: str) -> Iterator[Entry]:
        """Where a person is from when on, and when that ends."""
        status = text(resource, "status")
        if status in {"planned", "cancelled"}:
            return
        wards = [
            self.server.wards.get(text(one, "location", "identifier", "value") or "")
            for one in items(resource, "location")
        ]
        kind = text(resource, "class", "code") or ""
        place = next((ward for ward in wards if ward), CLASSES.get(kind, kind or None))
        told: Status = "retracted" if status == "entered-in-error" else "final"
        name, updated = self.name_of(resource), last_updated(resource)
        start = instant(text(resource, "period", "start"))
        yield Entry(subject_id, "unit", "class", place, None, start, told, name, updated)
        if end := instant(text(resource, "period", "end")):
            yield Entry(
                subject_id, "discharged", "period.end", True, None, end, told, name, updated
            )

    def name_of(self, resource: Any) -> str | None:
        if not self.server.entry_system:
            return text(resource, "id")
        own = (one for one in items(resource, "identifier"))
        return next(
            (text(one, "value") for one in own if text(one, "system") == self.server.entry_system),
            None,
        )


def text(value: Any, *path: str) -> str | None:
    """Return the text at a path, None where anything else is there."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) and value else None


def last_updated(resource: Any) -> datetime | None:
    return aware(instant(text(resource, "meta", "lastUpdated")))


def items(value: Any, *path: str) -> list[Any]:
    """Return the objects of the list at a path."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def stated(resource: Any) -> tuple[str | float | bool | None, str | None]:
    """Return a value as it is stated, and its unit."""
    quantity = resource.get("valueQuantity")
    if isinstance(quantity, dict):
        value = quantity.get("value")
        if not isinstance(value, str | int | float):
            return None, None
        unit = text(quantity, "unit")
        if text(quantity, "system") == UCUM:
            unit = text(quantity, "code") or unit
        comparator = text(quantity, "comparator")
        return (f"{comparator}{value}" if comparator else value), unit
    for name in ("valueBoolean", "valueInteger", "valueString"):
        value = resource.get(name)
        if isinstance(value, str | int | float):
            return value, None
    return None, None


def parsed(content: bytes) -> Any:
    """Return what JSON says, None where it is none."""

    def refused(constant: str) -> None:
        raise ValueError("a number that is none")

    try:
        return json.loads(content, parse_constant=refused)
    except (ValueError, RecursionError):
        return None


def checked_bundle(answer: Any) -> dict[str, Any]:
    if text(answer, "resourceType") == "OperationOutcome":
        raise _Failed("search_refused", first_issue(answer))
    if text(answer, "resourceType") != "Bundle" or text(answer, "type") != "searchset":
        raise _Failed("not_fhir")
    return dict(answer)


def refused_by(status: int, content: bytes) -> _Failed:
    issue = first_issue(parsed(content))
    if status < 400:
        return _Failed("redirected", for_all=True)
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        return _Failed("access_denied", issue, for_all=True)
    return _Failed("search_refused", issue)


def first_issue(outcome: Any) -> str:
    return next((issue_code(one) for one in items(outcome, "issue")), "")


def issue_code(issue: Any) -> str:
    code = text(issue, "code") or ""
    return code if code in ISSUES else ""


def retry_after(header: str) -> float | None:
    """Seconds to wait, from a number or a date; None where neither is there."""
    if header.strip().isdecimal():
        return float(header)
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max((until.astimezone(UTC) - datetime.now(UTC)).total_seconds(), 0.0)
