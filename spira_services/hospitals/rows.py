"""The one form of what a hospital says of a person, whatever the wire.

A connector turns what it reads into entries, values and units as they were stated.  ``decide``
makes a fact of an entry, or holds it back with a reason.  A stated unit that is known is converted;
nothing is converted because it looks like another unit.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Literal

from expectations.limits import CLINICAL, DATA, IMPOSSIBLE, UNIT_SLIPS
from spira_tasks.intake.pseudonyms import canonical_site, pseudonym

Quantity = Literal[
    "spo2",
    "resp_rate",
    "heart_rate",
    "temp",
    "fio2",
    "on_oxygen",
    "diagnosis",
    "unit",
    "discharged",
]
Status = Literal[
    "final", "preliminary", "corrected", "refuted", "retracted", "unfinished", "unknown"
]
Reason = Literal[
    "no_value",  # the source has the entry and no value in it
    "no_time",  # none, only a day, or none that is readable
    "no_offset",  # a time of day that could be anywhere
    "future",
    "unfinished",  # the source says that the result is still to come
    "unknown_status",  # or says nothing that is understood
    "not_a_number",  # or one with a comparator: below 70 is not 70
    "unknown_unit",
    "unit_slip",  # lies where the values of another unit lie
    "impossible",
    "unknown_value",  # a code, a flag or a place that is none
    "contradiction",  # one entry of the source in two versions, neither the later one
]
MENDABLE: tuple[Reason, ...] = ("unit_slip", "unknown_unit", "no_offset")  # by its configuration

LOINC: dict[str, Quantity] = {
    "59408-5": "spo2",
    "2708-6": "spo2",
    "9279-1": "resp_rate",
    "8867-4": "heart_rate",
    "8310-5": "temp",
    "3150-6": "fio2",
    "3151-8": "on_oxygen",  # a flow in litres a minute
}
PLACES = ("WARD", "ICU", "ER", "OUTPATIENT", "HOME")  # values of ``unit`` in the row contract
FLAGS = {"true": True, "false": False, "Y": True, "N": False}

PER_MINUTE = dict.fromkeys(
    ("/min", "1/min", "{breaths}/min", "{beats}/min", "bpm", "rpm", "irpm"), (1.0, 0.0)
)
# Quantity to its unit, and stated units to the factor and the shift that lead to it.
UNITS: dict[str, tuple[str, dict[str, tuple[float, float]]]] = {
    "spo2": ("percent", {"%": (1, 0), "1": (100, 0)}),
    "resp_rate": ("per minute", PER_MINUTE),
    "heart_rate": ("per minute", PER_MINUTE),
    "temp": (
        "°C",
        dict.fromkeys(("Cel", "°C", "C"), (1.0, 0.0))
        | dict.fromkeys(("[degF]", "°F", "F"), (5 / 9, -160 / 9)),
    ),
    "fio2": ("fraction", {"1": (1, 0), "L/L": (1, 0), "%": (0.01, 0)}),
    "on_oxygen": ("flag", dict.fromkeys(("L/min", "l/min", "LPM"), (1.0, 0.0))),
    "diagnosis": ("ICD-10", {}),
    "unit": ("place", {}),
    "discharged": ("flag", {}),
}
DECIMALS = 4  # 97.7 °F are 36.5 °C, not 36.50000000000001
ROOM_AIR = 0.21  # fraction of oxygen


@dataclass(frozen=True)
class Threshold:
    """A number that somebody answers for."""

    value: float
    rationale: str
    owner: str


OXYGEN_MINUTES = Threshold(
    5, "at most, between a saturation and what is known of the oxygen given", CLINICAL
)
CLOCK_MINUTES = Threshold(
    10, "at most, between the clocks of the hospital and of this machine", DATA
)

NUMBER = re.compile(r"[+-]?\d{1,9}(\.\d{1,9})?")
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?", re.ASCII)
ICD10 = re.compile(r"([A-Z]\d\d)(?:\.?([0-9A-Z]{1,4}))?", re.ASCII)


@dataclass(frozen=True)
class Participant:
    """A person to ask about.  The number lives in memory only, and is never shown."""

    hospital_id: str
    number: str = field(repr=False)
    subject_id: str


@dataclass(frozen=True)
class Entry:
    """What a source says once, as it says it.

    ``at`` without an offset is a time of day that could be anywhere; ``source_id`` names the entry
    for ever, and is None where the source has no such name.
    """

    subject_id: str
    quantity: Quantity
    name: str  # the source's, for the quantity
    value: str | float | bool | None = field(repr=False)
    unit: str | None  # as stated
    at: datetime | None
    status: Status = "final"
    source_id: str | None = field(default=None, repr=False)
    updated: datetime | None = None  # when the source last changed it


@dataclass(frozen=True)
class ClinicalFact:
    """One thing that a hospital knows of a participant, in the one form.

    A fact whose status is ``retracted`` has no value: it takes back what ``source_ref`` said.
    """

    hospital_id: str
    subject_id: str
    quantity: Quantity
    value: float | bool | str | None = field(repr=False)
    unit: str
    at: datetime  # UTC
    status: Status
    source_ref: str  # a keyed digest of the source's name for the entry
    oxygen: bool | None = None  # of ``spo2``: whether oxygen was given then; None: not known
    version: int = 1  # of what is stored under ``source_ref``, counted by the store

    @property
    def key(self) -> str:
        """The same for the same content: a correction has another one, a repetition has not.

        What is known of the oxygen is another entry's content, so it is no part of it.
        """
        content = (self.source_ref, self.value, self.at.isoformat(), self.status)
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True)
class Held:
    """An entry that is not handed on, and why.  Its value stays with the source."""

    subject_id: str
    quantity: Quantity
    reason: Reason
    source_ref: str
    updated: datetime | None = None


def instant(text: object) -> datetime | None:
    """Read an ISO time, in UTC where it has an offset; None for anything else, a day included.

    Examples
    --------
    >>> instant("2026-03-04T10:20:30-03:00").isoformat()
    '2026-03-04T13:20:30+00:00'
    >>> instant("2026-03-04"), instant("yesterday"), instant(None)
    (None, None, None)
    """
    if not isinstance(text, str) or not INSTANT.fullmatch(text):
        return None
    return in_utc(text)


def aware(read: datetime | None) -> datetime | None:
    """Return a time with an offset, None for another."""
    return read if read and read.tzinfo else None


def in_utc(text: str) -> datetime | None:
    """Parse what has the form of an ISO time and may still be none."""
    try:
        read = datetime.fromisoformat(text)
        return read.astimezone(UTC) if read.tzinfo else read
    except (ValueError, OverflowError):
        return None


def canonical_icd10(code: str) -> str | None:
    """Write a code of ICD-10 with its dot, as Brazilian registers often do not.

    Examples
    --------
    >>> canonical_icd10("j960"), canonical_icd10("J96"), canonical_icd10("pneumonia")
    ('J96.0', 'J96', None)
    """
    found = ICD10.fullmatch(code.strip().upper())
    return found and (f"{found[1]}.{found[2]}" if found[2] else found[1])


def decide(entry: Entry, hospital_id: str, secret: bytes, now: datetime) -> ClinicalFact | Held:
    """Make a fact of an entry, or say why none can be made."""
    ref = _source_ref(entry, hospital_id, secret)
    at = entry.at
    value: float | bool | str | None = None
    if entry.status == "retracted":
        at = aware(at) or entry.updated
        reason = _untimely(at, now)
    elif entry.status == "unfinished":
        reason = "unfinished"
    elif entry.status == "unknown":
        reason = "unknown_status"
    elif entry.value is None or entry.value == "":
        reason = "no_value"
    elif not (reason := _untimely(at, now)):
        value, reason = _canonical(entry)
    if reason or at is None:
        return Held(entry.subject_id, entry.quantity, reason or "no_time", ref, entry.updated)
    unit = UNITS[entry.quantity][0]
    return ClinicalFact(
        hospital_id, entry.subject_id, entry.quantity, value, unit, at, entry.status, ref
    )


def _source_ref(entry: Entry, hospital_id: str, secret: bytes) -> str:
    """By the source's name for the entry, else by whose it is, what, and when."""
    place = ("hospital-entry", canonical_site(hospital_id), entry.quantity)
    if entry.source_id is not None:
        return pseudonym(secret, *place, "id", entry.source_id)
    # Two diagnoses at one time are two; two saturations at one time contradict each other.
    what = str(entry.value) if entry.quantity == "diagnosis" else ""
    when = entry.at.isoformat() if entry.at else ""
    return pseudonym(secret, *place, "content", entry.subject_id, when, what)


def _untimely(at: datetime | None, now: datetime) -> Reason | None:
    if at is None:
        return "no_time"
    if at.tzinfo is None:
        return "no_offset"
    return "future" if at > now + timedelta(minutes=CLOCK_MINUTES.value) else None


def _canonical(entry: Entry) -> tuple[float | bool | str | None, Reason | None]:
    value, quantity = entry.value, entry.quantity
    if quantity == "diagnosis":
        code = canonical_icd10(value) if isinstance(value, str) else None
        return code, None if code else "unknown_value"
    if quantity == "unit":
        return (value, None) if value in PLACES else (None, "unknown_value")
    if quantity in {"on_oxygen", "discharged"}:
        if isinstance(value, str):
            value = FLAGS.get(value, value)
        if isinstance(value, bool):
            return value, None
        if entry.unit is None:  # three of what?
            return None, "unknown_value"
    return _measured(quantity, value, entry.unit)


def _measured(
    quantity: Quantity, value: object, stated: str | None
) -> tuple[float | bool | None, Reason | None]:
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None, "not_a_number"
    factor, shift = UNITS[quantity][1].get(stated, (0, 0)) if stated else (1, 0)
    if not factor:
        return None, "unknown_unit"
    number = round(float(value) * factor + shift, DECIMALS)
    if quantity == "on_oxygen":
        return (number > 0, None) if number >= 0 else (None, "impossible")
    limit, slip = IMPOSSIBLE[quantity], UNIT_SLIPS.get(quantity)
    if (limit.low is None or number >= limit.low) and (limit.high is None or number <= limit.high):
        return number, None
    return None, "unit_slip" if slip and slip.low <= number <= slip.high else "impossible"


def with_oxygen(facts: Iterable[ClinicalFact]) -> list[ClinicalFact]:
    """Say of each saturation whether oxygen was given then, by the nearest fact that tells.

    The result is sorted, so that equal facts give equal lists.  Oxygen that is recorded later
    changes earlier facts: apply this again to all that is stored.
    """
    facts = list(facts)
    stated: dict[str, list[tuple[datetime, bool]]] = defaultdict(list)
    for fact in facts:
        if fact.quantity == "on_oxygen" and isinstance(fact.value, bool):
            stated[fact.subject_id].append((fact.at, fact.value))
        elif fact.quantity == "fio2" and isinstance(fact.value, float):
            stated[fact.subject_id].append((fact.at, fact.value > ROOM_AIR))
    for entries in stated.values():
        entries.sort()
    return sorted(
        (
            replace(fact, oxygen=_oxygen(fact.at, stated[fact.subject_id]))
            if fact.quantity == "spo2" and fact.value is not None
            else fact
            for fact in facts
        ),
        key=lambda fact: (fact.subject_id, fact.at, fact.quantity, fact.source_ref, fact.key),
    )


def _oxygen(at: datetime, stated: Sequence[tuple[datetime, bool]]) -> bool | None:
    """``stated`` is in the order of time."""
    within = timedelta(minutes=OXYGEN_MINUTES.value)
    first = bisect_left(stated, at - within, key=itemgetter(0))
    last = bisect_right(stated, at + within, key=itemgetter(0))
    near = [(abs(at - when), given) for when, given in stated[first:last]]
    nearest = {given for gap, given in near if gap == min(near)[0]}
    return nearest.pop() if len(nearest) == 1 else None
