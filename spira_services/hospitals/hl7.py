"""Read files of HL7 v2 messages: ADT^A01 and ADT^A03 (admitted, discharged), ORU^R01 (results).

A file holds one message or many, with or without the framing of MLLP.  Each segment has to end with
its terminator: one that does not may be half written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from spira_services.hospitals.reading import Reading, read_files
from spira_services.hospitals.rows import (
    LOINC,
    PLACES,
    Entry,
    Participant,
    Quantity,
    Status,
    aware,
    in_utc,
)
from spira_tasks.errors import ConfigError
from spira_tasks.intake.pseudonyms import canonical_number

CODES: Mapping[str, Quantity] = {f"{code}^LN": LOINC[code] for code in LOINC}
READ = ("ADT^A01", "ADT^A03", "ORU^R01")
ICD10_SYSTEMS = ("I10", "I10C", "ICD10", "CID10")
OBX_STATUS: dict[str, Status] = {
    "F": "final",
    "U": "final",
    "C": "corrected",
    **dict.fromkeys("PRS", "preliminary"),
    **dict.fromkeys("DWX", "retracted"),
    **dict.fromkeys("INO", "unfinished"),
}
DG1_STATUS: dict[str, Status] = {"F": "final", "A": "preliminary", "W": "preliminary", "": "final"}
CLASSES = {"I": "WARD", "E": "ER", "O": "OUTPATIENT"}
FRAMING = "\x0b\x1c"
MAX_BYTES = 64 << 20  # of a file

TIME = re.compile(
    r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(?:(\d\d)(?:\.(\d{1,4}))?)?(?:([+-]\d\d)(\d\d))?", re.ASCII
)
OFFSET = re.compile(r"[+-]\d\d\d\d")
ESCAPE = re.compile(r"\\([FSTRE])\\")


@dataclass(frozen=True)
class Hl7Files:
    """A folder into which an interface engine writes messages.

    Parameters
    ----------
    folder, pattern
        Which files; those of a name that begins with a dot are still being written.
    number_types : sequence of str
        Types (CX-5) of an identifier in PID-3 that is a hospital number.
    authority : str
        Its assigning authority (CX-4); empty for any.
    codes : mapping
        ``code^system`` of OBX-3 to the quantity.
    wards : mapping
        Point of care (PV1-3) to a place of the row contract.
    offset : str
        Of times that have none, nor has MSH-7, where the hospital states it: ``-0300``.
    """

    hospital_id: str
    folder: Path
    pattern: str = "*.hl7"
    number_types: Sequence[str] = ("MR", "PI")
    authority: str = ""
    codes: Mapping[str, Quantity] = field(default_factory=lambda: CODES)
    wards: Mapping[str, str] = field(default_factory=dict)
    offset: str = ""

    def __post_init__(self) -> None:
        if self.offset and not OFFSET.fullmatch(self.offset):
            raise ConfigError("the offset of HL7 times is written like -0300")
        if wrong := {*self.wards.values()} - {*PLACES}:
            raise ConfigError(f"wards of {self.hospital_id}: {sorted(wrong)} are none of {PLACES}")

    @property
    def source(self) -> str:
        return f"{self.hospital_id}:hl7"

    def read(
        self,
        participants: Sequence[Participant],
        since: Mapping[str, datetime],  # noqa: ARG002
    ) -> Reading:
        """Read all files that are there."""
        there = self.folder.glob(self.pattern)
        return read_files(self, participants, there, MAX_BYTES, self._file)

    def _file(self, file: Path, people: Mapping[str, Participant], reading: Reading) -> None:
        for segments in messages(decoded(file.read_bytes()), reading):
            self._message(segments, people, reading)

    def _message(
        self, segments: Sequence[str], people: Mapping[str, Participant], reading: Reading
    ) -> None:
        head = Segment.of_header(segments[0])
        if head is None:
            reading.note("unreadable_rows", rows=1)
            return
        kind = "^".join(head.component(9, n) for n in (1, 2))
        if kind not in READ:
            return
        stated = OFFSET.search(head.first(7))
        offset = stated[0] if stated else self.offset
        updated = aware(instant(head.first(7), offset))
        person: Participant | None = None
        request: Segment | None = None
        told = ""
        for line in segments[1:]:
            segment = head.split(line)
            if segment.name == "EVN":
                told = segment.first(2)
            elif segment.name == "PID":
                person, request = self._person(segment, people, reading), None
            elif segment.name == "OBR":
                request = segment
            if person is None:
                continue
            of = Common(person.subject_id, offset, updated, kind, told)
            if segment.name == "OBX":
                reading.entries += self._result(segment, request, of, reading)
            elif segment.name == "DG1":
                reading.entries += self._diagnosis(segment, of, reading)
            elif segment.name == "PV1":
                reading.entries += self._visit(segment, of)

    def _person(
        self, segment: Segment, people: Mapping[str, Participant], reading: Reading
    ) -> Participant | None:
        numbers = set()
        for n in range(segment.repetitions(3)):
            kind, authority = segment.component(3, 5, n), segment.component(3, 4, n)
            is_number = kind in self.number_types or (not kind and segment.repetitions(3) == 1)
            if is_number and (not self.authority or authority.split("&")[0] == self.authority):
                numbers.add(canonical_number(segment.component(3, 1, n)))
        known = [people[number] for number in numbers if number in people]
        if len(known) > 1:
            reading.note("two_patients", messages=1)
            reading.refused.update(person.subject_id for person in known)
        if len(known) != 1:
            return None
        reading.found.add(known[0].subject_id)
        return known[0]

    def _result(
        self, segment: Segment, request: Segment | None, of: Common, reading: Reading
    ) -> Iterator[Entry]:
        names = [f"{segment.component(3, n)}^{segment.component(3, n + 2)}" for n in (1, 4)]
        known = [name for name in names if name in self.codes]
        if len({self.codes[name] for name in known}) != 1:
            reading.saw_unknown(names[0])
            return
        value: str | None = segment.component(5, 1) or None
        if segment.repetitions(5) > 1:
            value = "several"
        elif segment.first(2) == "SN":  # comparator ^ number
            value = segment.component(5, 1).removeprefix("=") + segment.component(5, 2) or None
        elif value == '""':
            value = None
        at = segment.first(14) or (request.first(7) if request else "")
        yield Entry(
            of.subject_id,
            self.codes[known[0]],
            known[0],
            value,
            segment.component(6, 1) or None,
            instant(at, of.offset),
            OBX_STATUS.get(segment.first(11), "unknown"),
            segment.component(21, 1) or None,
            of.updated,
        )

    def _diagnosis(self, segment: Segment, of: Common, reading: Reading) -> Iterator[Entry]:
        code, system = segment.component(3, 1), segment.component(3, 3)
        if system not in ICD10_SYSTEMS:
            reading.saw_unknown(system)
            return
        status = DG1_STATUS.get(segment.first(6), "unknown")
        if segment.first(21) == "D":
            status = "retracted"
        yield Entry(
            of.subject_id,
            "diagnosis",
            system,
            code or None,
            None,
            instant(segment.first(5), of.offset),
            status,
            segment.component(20, 1) or None,
            of.updated,
        )

    def _visit(self, segment: Segment, of: Common) -> Iterator[Entry]:
        kind, name = segment.first(2), segment.component(19, 1) or None
        place = self.wards.get(segment.component(3, 1)) or CLASSES.get(kind, kind or None)
        if of.kind == "ADT^A01":
            at = instant(segment.first(44) or of.told, of.offset)
            yield Entry(of.subject_id, "unit", "PV1-2", place, None, at, "final", name, of.updated)
        if of.kind == "ADT^A03":
            at = instant(segment.first(45) or of.told, of.offset)
            yield Entry(
                of.subject_id, "discharged", "PV1-45", True, None, at, "final", name, of.updated
            )


@dataclass(frozen=True)
class Common:
    """What the segments of one person in one message share."""

    subject_id: str
    offset: str
    updated: datetime | None
    kind: str
    told: str  # EVN-2: when it happened


@dataclass(frozen=True)
class Segment:
    """A segment cut into fields; numbers are those of the standard, from 1."""

    fields: Sequence[str]
    marks: str  # field, component, repetition, escape, subcomponent

    @classmethod
    def of_header(cls, line: str) -> Segment | None:
        """Read MSH, whose first field is the mark between fields itself."""
        marks = line[3:8]
        ends = line[8:9] == marks[:1] or line[9:10] == marks[:1]  # version 2.7 has a sixth mark
        if not line.startswith("MSH") or len({*marks}) != 5 or not ends:
            return None
        return cls(["MSH", marks[0], *line[4:].split(marks[0])], marks)

    def split(self, line: str) -> Segment:
        """Cut another segment of the same message."""
        return Segment(line.split(self.marks[0]), self.marks)

    @property
    def name(self) -> str:
        return self.fields[0]

    def repetitions(self, number: int) -> int:
        return self._field(number).count(self.marks[2]) + 1

    def first(self, number: int) -> str:
        return self.component(number, 1)

    def component(self, number: int, component: int, repetition: int = 0) -> str:
        """Return the text of a component, empty where there is none."""
        parts = self._field(number).split(self.marks[2])[repetition].split(self.marks[1])
        found = parts[component - 1] if component <= len(parts) else ""
        named = dict(zip("FSRET", self.marks, strict=True))
        if self.marks[3] == "\\":
            found = ESCAPE.sub(lambda escape: named[escape[1]], found)
        return found.strip()

    def _field(self, number: int) -> str:
        return self.fields[number] if number < len(self.fields) else ""


def decoded(content: bytes) -> str:
    """Only names and free text have other letters than ASCII, and units: °C."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def messages(content: str, reading: Reading) -> Iterator[list[str]]:
    """Cut a file into messages, each a list of segments that begins with MSH."""
    ended = content.rstrip("\x1c\r\n \t") + "\r"
    if content.strip() and not content.rstrip(" \t").endswith(("\r", "\n", "\x1c")):
        # Half a segment may hold half a number.
        ended = ended[: ended.rfind("MSH")]
        reading.note("cut_file", files=1)
    message: list[str] = []
    for line in re.split(r"[\r\n]+", ended):
        segment = line.strip(FRAMING)
        if segment.startswith("MSH"):
            if message:
                yield message
            message = [segment]
        elif message and segment[:3] not in {"", "FHS", "BHS", "BTS", "FTS"}:
            message.append(segment)
        elif segment and segment[:3] not in {"FHS", "BHS", "BTS", "FTS"}:
            reading.note("unreadable_rows", rows=1)
    if message:
        yield message


def instant(text: str, offset: str) -> datetime | None:
    """Read a time of HL7 v2 in UTC, with the offset where it has none itself.

    Examples
    --------
    >>> instant("20260304102030-0300", "").isoformat(), instant("202603041020", "-0300").isoformat()
    ('2026-03-04T13:20:30+00:00', '2026-03-04T13:20:00+00:00')
    >>> instant("20260304", "-0300"), instant("", "-0300")
    (None, None)
    """
    found = TIME.fullmatch(text)
    if not found:
        return None
    year, month, day, hour, minute, second, part, hours, minutes = found.groups()
    where = f"{hours}:{minutes}" if hours else f"{offset[:3]}:{offset[3:]}" if offset else ""
    return in_utc(
        f"{year}-{month}-{day}T{hour}:{minute}:{second or '00'}.{(part or '').ljust(6, '0')}{where}"
    )
