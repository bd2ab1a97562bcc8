"""A hospital with invented patients: it serves FHIR over HTTP, writes HL7 and CSV, and has faults.

What it knows is one list of sayings; each wire has its own units and forms of it, and ``truth``
says what rows they are.
"""

from __future__ import annotations

import csv
import json
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from spira_services.hospitals.rows import ClinicalFact, Participant
from spira_tasks.intake.pseudonyms import subject_id

SITE = "hc"
SECRET = b"a key for tests of hospitals"
SYSTEM = "urn:hc:patient-number"
ENTRIES = "urn:hc:entry"
BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)
SAO_PAULO = timezone(timedelta(hours=-3))
PAGE = 10
LOINC = {
    "spo2": ("59408-5", "%"),
    "resp_rate": ("9279-1", "/min"),
    "heart_rate": ("8867-4", "/min"),
    "temp": ("8310-5", "Cel"),
    "fio2": ("3150-6", "%"),
    "on_oxygen": ("3151-8", "L/min"),
}
UNITS = {"spo2": "percent", "temp": "°C", "fio2": "fraction", "diagnosis": "ICD-10"} | {
    **dict.fromkeys(("resp_rate", "heart_rate"), "per minute"),
    "on_oxygen": "flag",
    "discharged": "flag",
    "unit": "place",
}


@dataclass(frozen=True)
class Saying:
    """What the hospital knows once: ``value`` in the units of the one form, a flow in litres."""

    id: str
    number: str
    quantity: str
    value: float | str | bool
    at: datetime

    @property
    def updated(self) -> datetime:
        return self.at + timedelta(minutes=5)


@dataclass
class Hospital:
    """Six people, measured six times a day."""

    n_people: int = 6
    days: int = 6
    names: tuple[str, ...] = ()  # of the patients, where a test looks for them
    numbers: tuple[str, ...] = ()
    now: datetime = BEGIN + DAY  # nothing later is known yet
    fault: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    requests: list[str] = field(default_factory=list)  # first line and Host
    bodies: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    base: str = ""
    _made: dict[tuple[str, datetime], list[dict[str, Any]]] = field(default_factory=dict)

    def number(self, person: int) -> str:
        return self.numbers[person] if self.numbers else f"55{person:05d}B"

    def name(self, person: int) -> str:
        return self.names[person] if self.names else "Invented"

    def participants(self) -> list[Participant]:
        numbers = [self.number(person) for person in range(self.n_people)]
        return [Participant(SITE, n, subject_id(SECRET, SITE, n)) for n in numbers]

    @cached_property
    def sayings(self) -> list[Saying]:
        rng = random.Random(3)
        found = []
        for person in range(self.n_people):
            number, admitted = self.number(person), BEGIN + timedelta(minutes=person)
            found.append(
                Saying(f"v{person}", number, "unit", "ICU" if person < 2 else "WARD", admitted)
            )
            code = "J96.0" if person % 2 else "J18.9"
            found.append(Saying(f"d{person}", number, "diagnosis", code, admitted))
            for n in range(6 * self.days):
                at = BEGIN + timedelta(hours=4 * n + 1, minutes=person)
                values = {
                    "spo2": float(rng.randint(88, 99)),
                    "resp_rate": float(rng.randint(12, 30)),
                    "heart_rate": float(rng.randint(60, 120)),
                    "temp": round(rng.uniform(36, 39), 1),
                    "on_oxygen": float(2 * (person % 2)),
                }
                if n % 6 == 0:
                    values["fio2"] = 0.28 if person % 2 else 0.21
                for quantity, value in values.items():
                    found.append(Saying(f"m{person}-{n}-{quantity}", number, quantity, value, at))
        last = BEGIN + self.days * DAY - timedelta(hours=1)
        found.append(Saying("v0", self.number(0), "discharged", True, last))
        return found

    def known(self) -> list[Saying]:
        """What has been written until now."""
        return [one for one in self.sayings if one.updated <= self.now]

    def truth(self) -> set[tuple[Any, ...]]:
        oxygen = {(s.number, s.at): s.value != 0 for s in self.sayings if s.quantity == "on_oxygen"}
        return {
            (
                subject_id(SECRET, SITE, one.number),
                one.quantity,
                one.value != 0 if one.quantity == "on_oxygen" else one.value,
                UNITS[one.quantity],
                one.at,
                "final",
                oxygen[one.number, one.at] if one.quantity == "spo2" else None,
            )
            for one in self.known()
        }

    # FHIR

    def resources(self, kind: str) -> list[dict[str, Any]]:
        """All resources of a kind, made once."""
        made = self._made.setdefault((kind, self.now), [])
        if not made:
            made += self._resources(kind)
        return made

    def _resources(self, kind: str) -> list[dict[str, Any]]:
        """All resources of a kind, by patients ``p0``, ``p1``…"""
        people = {self.number(person): person for person in range(self.n_people)}
        if kind == "Patient":
            return [
                {
                    "resourceType": "Patient",
                    "id": f"p{person}",
                    "identifier": [{"system": SYSTEM, "value": number}],
                    "name": [{"text": self.name(person)}],
                }
                for number, person in people.items()
            ]
        found = []
        for one in self.known():
            resource: dict[str, Any] = {
                "id": f"r-{one.id}",
                "meta": {"versionId": "1", "lastUpdated": one.updated.isoformat()},
                "identifier": [{"system": ENTRIES, "value": one.id}],
                "subject": {"reference": f"Patient/p{people[one.number]}"},
                "note": [{"text": f"{self.name(people[one.number])} {one.number}"}],
            }
            if kind == "Observation" and one.quantity in LOINC:
                found.append(resource | self._observation(one))
            elif kind == "Condition" and one.quantity == "diagnosis":
                coding = {"system": "http://hl7.org/fhir/sid/icd-10", "code": one.value}
                found.append(
                    resource
                    | {"resourceType": kind, "recordedDate": one.at.isoformat()}
                    | {"code": {"coding": [coding], "text": self.name(people[one.number])}}
                )
            elif kind == "Encounter" and one.quantity == "unit":
                left = [s for s in self.known() if s.quantity == "discharged" and s.id == one.id]
                period = {"start": one.at.isoformat()}
                if left:
                    period["end"] = left[0].at.isoformat()
                    resource["meta"]["lastUpdated"] = left[0].updated.isoformat()
                place = {"location": {"identifier": {"value": "UTI-3"}}}
                found.append(
                    resource
                    | {"resourceType": kind, "status": "finished" if left else "in-progress"}
                    | {"class": {"code": "IMP"}, "period": period}
                    | ({"location": [place]} if one.value == "ICU" else {})
                )
        return found

    def _observation(self, one: Saying) -> dict[str, Any]:
        code, unit = LOINC[one.quantity]
        system, value = "http://loinc.org", one.value
        assert isinstance(value, float)
        if one.quantity == "fio2":
            value = round(100 * value)
        late = one.at >= BEGIN + (self.days - 1) * DAY
        if late and self.fault == "fraction_for_percent" and one.quantity == "spo2":
            value = value / 100
        if late and self.fault == "fahrenheit_for_celsius" and one.quantity == "temp":
            value = round(value * 9 / 5 + 32, 1)
        if late and self.fault == "field_renamed" and one.quantity == "spo2":
            system = "urn:hc:loinc"
        quantity = {"value": value, "unit": unit, "code": unit}
        found = {
            "resourceType": "Observation",
            "status": "final",
            "code": {"coding": [{"system": system, "code": code}], "text": "free text"},
            "effectiveDateTime": one.at.astimezone(SAO_PAULO).isoformat(),
            "valueQuantity": quantity | {"system": "http://unitsofmeasure.org"},
        }
        if late and self.fault == "null_values" and one.quantity == "heart_rate":
            del found["valueQuantity"]
        if late and self.fault == "times_without_offset":
            found["effectiveDateTime"] = one.at.replace(tzinfo=None).isoformat()
        return found

    def found(self, kind: str, terms: dict[str, str]) -> list[dict[str, Any]]:
        """What a search finds."""
        resources = self.resources(kind)
        if kind == "Patient":
            _, _, number = terms["identifier"].partition("|")
            found = [one for one in resources if one["identifier"][0]["value"] == number]
            if self.fault == "two_patients" and found[0]["id"] == "p3":
                found.append(found[0] | {"id": "p33"})
            return found
        if self.fault != "wrong_patient" or terms["patient"] != "Patient/p3":
            resources = [r for r in resources if r["subject"]["reference"] == terms["patient"]]
        if since := terms.get("_lastUpdated"):
            after = datetime.fromisoformat(since.removeprefix("ge"))
            resources = [
                r for r in resources if datetime.fromisoformat(r["meta"]["lastUpdated"]) >= after
            ]
        if codes := terms.get("code"):
            wanted = codes.split(",")
            resources = [r for r in resources if r["code"]["coding"][0]["code"] in wanted]
        if self.fault == "too_few":
            resources = random.Random(str(terms)).sample(resources, len(resources) // 10)
        return resources

    def page(self, kind: str, terms: dict[str, str], offset: int) -> dict[str, Any]:
        found = self.found(kind, terms)
        entries = [{"resource": one} for one in found[offset : offset + PAGE]]
        entries.append({"resource": {"resourceType": "Provenance", "id": "x"}})
        bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset", "entry": entries}
        bundle |= {"total": len(found)}
        here = {"relation": "self", "url": f"{self.base}/{kind}?{terms}"}
        if offset + PAGE >= len(found) or self.fault == "cut_search":
            return bundle | {"link": [here]}
        times = self.asked[f"next of {kind} {terms} {offset}"] = (
            self.asked[f"next of {kind} {terms} {offset}"] + 1
        )
        following = offset + PAGE
        if self.fault == "duplicated_page" and offset == PAGE and times == 1:
            following = offset
        if self.fault in {"paging_loop", "paging_without_end"}:
            following = 0
        base = self.base
        if self.fault == "foreign_link":
            base = base.replace("127.0.0.1", "localhost")
        url = f"{base}?kind={kind}&offset={following}&patient={terms['patient']}"
        url += "".join(
            f"&{name}={terms[name].replace('+', '%2B')}"
            for name in ("_lastUpdated", "code")
            if name in terms
        )
        if self.names:  # some servers write what they please there
            url += f"&seen={found[0]['note'][0]['text']}".replace(" ", "%20")
        if self.fault in {"paging_without_end", "duplicated_page"}:
            url += f"&t={times}{offset}"
        return bundle | {"link": [here, {"relation": "next", "url": url}]}

    def answer(self, kind: str, terms: dict[str, str], offset: int) -> tuple[int, bytes]:
        outcome = {"resourceType": "OperationOutcome"}
        issue = {"severity": "error", "code": "forbidden", "diagnostics": self.name(0)}
        self.asked["all"] += 1
        if self.fault == "rate_limited" and self.asked["all"] == 1:
            return 429, b""
        if self.fault == "server_down" or (self.fault == "server_error" and self.asked["all"] < 3):
            return 503, self.name(0).encode()
        if self.fault == "access_denied":
            return 403, json.dumps(outcome | {"issue": [issue]}).encode()
        if self.fault == "timed_out":
            self.released.wait(60)
        content = json.dumps(self.page(kind, terms, offset)).encode()
        return 200, content[: len(content) // 2] if self.fault == "not_json" else content

    # Files

    def write_hl7(self, folder: Path) -> None:
        """Two files: one with a message in MLLP's framing, one with all others."""
        written = [
            "\r".join(segments) + "\r" for one in self.known() for segments in self._message(one)
        ]
        (folder / "a.hl7").write_bytes(f"\x0b{written[0]}\x1c\r".encode())
        (folder / "b.hl7").write_bytes("".join(written[1:]).encode())

    def _message(self, one: Saying) -> Iterator[list[str]]:
        def stamp(time: datetime) -> str:
            return time.astimezone(SAO_PAULO).strftime("%Y%m%d%H%M%S-0300")

        if one.quantity == "diagnosis":
            return  # goes with the admission
        kind = {"unit": "ADT^A01^ADT_A01", "discharged": "ADT^A03^ADT_A03"}.get(
            one.quantity, "ORU^R01^ORU_R01"
        )
        visit = [""] * 46
        visit[0], visit[2], visit[19] = "PV1", "I", one.id
        visit[3] = "UTI^3^1" if one.value == "ICU" else "ENF^1^2"
        visit[44 if one.quantity == "unit" else 45] = stamp(one.at)
        person = next(n for n in range(self.n_people) if self.number(n) == one.number)
        segments = [
            f"MSH|^~\\&|LIS|HC|SPIRA|IME|{stamp(one.updated)}||{kind}|{one.id}{kind[4:7]}|P|2.6",
            f"PID|1||999^^^SUS^NS~{one.number}^^^HC&1.2&ISO^MR||{self.name(person)}^^",
        ]
        if one.quantity in LOINC:
            code, unit = LOINC[one.quantity]
            value = one.value
            assert isinstance(value, float)
            if one.quantity == "temp":
                value, unit = round(value * 9 / 5 + 32, 2), "[degF]"
            if one.quantity == "spo2":
                value, unit = round(value / 100, 2), "1"
            if one.quantity == "fio2":
                unit = "1"
            result = [""] * 22
            result[0:4] = ["OBX", "1", "NM", f"{code}^{self.name(person)}^LN"]
            result[5], result[6], result[11], result[21] = f"{value}", unit, "F", one.id
            result[14] = stamp(one.at)
            yield [*segments, "OBR|1|||panel", "|".join(result), f"NTE|1||{self.name(person)}"]
            return
        if one.quantity == "unit":
            ill = next(s for s in self.sayings if s.id == one.id.replace("v", "d"))
            row = [""] * 21
            row[0], row[3], row[6], row[20] = "DG1", f"{ill.value}".replace(".", ""), "F", ill.id
            row[3], row[5] = f"{row[3]}^free text^I10", stamp(ill.at)
            yield [*segments, "|".join(visit), "|".join(row)]
            return
        yield [*segments, "|".join(visit)]

    def write_csv(self, folder: Path) -> None:
        """A long table with decimal commas, and times of the place."""
        with (folder / "all.csv").open("w", newline="") as opened:
            rows = csv.writer(opened, delimiter=";")
            rows.writerow(["ID", "PRONTUARIO", "DATA", "ITEM", "VALOR", "UNIDADE", "OBS"])
            for one in self.known():
                value, unit = f"{one.value}".replace(".", ","), LOINC.get(one.quantity, ("", ""))[1]
                if one.quantity == "fio2":
                    unit = "1"
                value = {"ICU": "UTI", "WARD": "ENF", "True": "S"}.get(value, value)
                if one.quantity == "diagnosis":
                    value = f"{one.value}".replace(".", "")
                at = one.at.astimezone(SAO_PAULO).strftime("%d/%m/%Y %H:%M:%S")
                number = one.number.removesuffix("B") + "-b"
                person = next(n for n in range(self.n_people) if self.number(n) == one.number)
                rows.writerow([one.id, number, at, one.quantity, value, unit, self.name(person)])


MAPPING = """
hospital_id = "hc"
delimiter = ";"
decimal = ","
offset = "-03:00"
time_format = "%d/%m/%Y %H:%M:%S"

[columns]
number = "PRONTUARIO"
at = "DATA"
id = "ID"
""" + "".join(
    f"""
[[measures]]
quantity = "{quantity}"
column = "VALOR"
unit_column = "UNIDADE"
where = {{ ITEM = "{quantity}" }}
values = {{ UTI = "ICU", ENF = "WARD", S = true }}
"""
    for quantity in UNITS
)


def seen(facts: list[ClinicalFact]) -> set[tuple[Any, ...]]:
    """Facts in the form of ``Hospital.truth``."""
    return {(f.subject_id, f.quantity, f.value, f.unit, f.at, f.status, f.oxygen) for f in facts}


@contextmanager
def served(hospital: Hospital) -> Iterator[str]:
    """Serve a hospital on this machine; gives the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            terms = {name: values[0] for name, values in parse_qs(body).items()}
            self.reply(self.path.split("/")[2], terms, 0, body)

        def do_GET(self) -> None:
            terms = {n: v[0] for n, v in parse_qs(self.path.partition("?")[2]).items()}
            self.reply(terms.pop("kind"), terms, int(terms.pop("offset")), "")

        def reply(self, kind: str, terms: dict[str, str], offset: int, body: str) -> None:
            hospital.requests.append(f"{self.requestline} {self.headers['Host']}")
            hospital.bodies.append(body)
            terms.pop("t", None), terms.pop("seen", None)
            status, content = hospital.answer(kind, terms, offset)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if status == 429:
                self.send_header("Retry-After", "7")
            self.end_headers()
            if hospital.fault == "connection_cut" and hospital.asked["all"] == 1:
                content = content[: len(content) // 2]
                self.close_connection = True
            try:
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET

    with Server(("127.0.0.1", 0), Handler) as server:
        hospital.base = f"http://127.0.0.1:{server.server_address[1]}/fhir"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hospital.base
        finally:
            hospital.released.set()
            server.shutdown()
            thread.join()
