"""What a source looks like, sync after sync, and what changed.

A profile is kept by the caller as JSON and compared with those before.  It holds counts, names of
fields, and quantiles of many values, never a few people's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median, quantiles

from expectations.limits import DATA
from spira_services.hospitals.rows import UNITS, ClinicalFact, Entry, Held, Threshold
from spira_tasks.config import StageConfig

# What to do about an alert.
AGAIN = "run the sync again later; if it lasts, ask the hospital's IT"
CONFIGURATION = (
    "compare the configuration of the hospital with what the source has now, and sync again"
)
HOSPITAL = "ask the hospital's IT what changed there"
NUMBERS = "have the data manager compare the hospital numbers with the hospital's records"
NOTHING = "nothing now; these entries are left out until the source says more"

# Every code that an alert can have, what it says, and what to do next.
ALERTS = {
    # The way to the source.
    "rate_limited": ("the server asked to wait (429)", AGAIN),
    "server_error": ("the server failed and recovered when asked again", AGAIN),
    "server_down": ("the server failed each time it was asked", AGAIN),
    "unreachable": ("no connection to the server", AGAIN),
    "connection_cut": ("the connection ended within an answer", AGAIN),
    "timed_out": ("the server did not answer in time", AGAIN),
    "not_json": ("an answer was no JSON, or was cut short", HOSPITAL),
    "not_fhir": ("an answer was no bundle of search results", CONFIGURATION),
    "too_large": ("an answer or a file is larger than any that is expected", HOSPITAL),
    "redirected": ("the server sent the connector elsewhere, where it did not go", CONFIGURATION),
    "access_denied": ("the server does not let the connector read", CONFIGURATION),
    "search_refused": ("the server refused a search, or answered it with an error", HOSPITAL),
    "outcome_warning": ("the server answered a search with a warning", HOSPITAL),
    "foreign_link": ("the next page was at another server, and was not asked for", HOSPITAL),
    "paging_loop": ("the pages of a search did not end", HOSPITAL),
    "duplicated_page": ("a page came twice", HOSPITAL),
    "cut_search": (
        "a search found more than the server gave, and there was no next page",
        HOSPITAL,
    ),
    "incomplete": ("participants were not read to the end", AGAIN),
    # Files.
    "unreadable_file": ("a file is not of the form that is expected", HOSPITAL),
    "unreadable_rows": ("lines or messages that could not be cut into fields", HOSPITAL),
    "cut_file": ("a file ends within a line or message, which was left out", AGAIN),
    "no_files": ("no file is there", CONFIGURATION),
    # People.
    "two_patients": ("the source has several patients for one number, and none was taken", NUMBERS),
    "wrong_patient": ("an answer held entries of another patient, which were left out", HOSPITAL),
    "nobody_found": ("the source knows no participant at all", CONFIGURATION),
    "number_of_two": (
        "two participants have one hospital number, and neither was asked about",
        NUMBERS,
    ),
    "number_of_nobody": ("a participant's hospital number is none", NUMBERS),
    # Values, each held back.
    "fraction_for_percent": (
        "saturations came as fractions where percent was stated",
        CONFIGURATION,
    ),
    "fahrenheit_for_celsius": ("temperatures came in °F where °C was stated", CONFIGURATION),
    "percent_for_fraction": (
        "inspired oxygen came in percent where a fraction was stated",
        CONFIGURATION,
    ),
    "impossible_values": ("values that no patient has", HOSPITAL),
    "unknown_units": ("values with a unit that is not known for them", CONFIGURATION),
    "not_numbers": ("values that are no numbers, or are above or below one", NOTHING),
    "unknown_statuses": ("entries that do not say whether they are final", CONFIGURATION),
    "unknown_values": ("codes, flags or places that are not known", CONFIGURATION),
    "times_without_offset": ("times that do not say where", CONFIGURATION),
    "no_times": ("entries without a time of day", NOTHING),
    "future_times": ("times later than now", HOSPITAL),
    "contradictions": ("one entry in two versions, neither of them the later", HOSPITAL),
    # What changed.
    "field_renamed": ("a field is gone, and a new one is there", CONFIGURATION),
    "field_missing": ("a field is gone", CONFIGURATION),
    "null_values": ("many more entries than before have no value", HOSPITAL),
    "too_few": ("many fewer entries than before", HOSPITAL),
    "too_many": ("many more entries than before", HOSPITAL),
    "stale": ("nothing new for days", HOSPITAL),
    "unit_changed": ("another unit is stated than before; the values were converted", HOSPITAL),
    "values_shifted": ("the middle of the values lies where few lay before", HOSPITAL),
}
# Of a way that may be free the next time.
PASSING = frozenset(
    ("rate_limited", "server_error", "server_down", "unreachable", "connection_cut", "timed_out")
)
REASONS = {
    "impossible": "impossible_values",
    "unknown_unit": "unknown_units",
    "not_a_number": "not_numbers",
    "unknown_value": "unknown_values",
    "unknown_status": "unknown_statuses",
    "no_offset": "times_without_offset",
    "no_time": "no_times",
    "future": "future_times",
    "contradiction": "contradictions",
}
SLIPS = {
    "spo2": "fraction_for_percent",
    "temp": "fahrenheit_for_celsius",
    "fio2": "percent_for_fraction",
}


HISTORY = Threshold(30, "profiles looked back on; a fault that lasts stays one for so long", DATA)
MIN_HISTORY = Threshold(3, "profiles before anything is called usual", DATA)
CHANCE = Threshold(1e-3, "of an alert where nothing changed; by the n of the quantity", DATA)
VOLUME_FACTOR = Threshold(
    3, "wards fill and empty: entries come in bursts, not by chance alone", DATA
)
NULL_FACTOR = Threshold(2, "times the usual share of entries without a value", DATA)
NULL_SHARE = Threshold(0.05, "of entries without a value; a sensor that fell off is usual", DATA)
FIRST_NULL_SHARE = Threshold(0.5, "the same, before anything is known of the source", DATA)
STALE_HOURS = Threshold(72, "a long weekend; people in a ward are measured daily", DATA)
MANY_VALUES = Threshold(
    20, "values before quantiles are kept: of few, they are patients' values", DATA
)


@dataclass(frozen=True, order=True)
class Alert:
    """One thing that is wrong with a source.  Counts and known names, never a patient's value."""

    code: str
    source: str
    quantity: str = ""
    name: str = ""  # a field of the connector's configuration, or a code of FHIR
    numbers: Mapping[str, float] = field(default_factory=dict, compare=False)


class Profile(StageConfig):
    """What one sync saw.  ``model_dump_json`` writes it, ``model_validate_json`` reads it."""

    source: str
    at: datetime
    complete: bool
    hours: float  # since the last complete one; 0 for the first
    asked: int
    found: int
    returning: int  # subjects who had been read to the end before
    received: dict[str, int]  # entries by quantity
    new: dict[str, int]  # facts by quantity that were not known, of returning subjects
    nulls: dict[str, int]
    held: dict[str, dict[str, int]]  # by quantity and reason
    units: dict[str, dict[str, int]]  # stated, by quantity
    fields: dict[str, int]  # by the source's names, those that are read
    unknown_fields: dict[str, int]  # and those that are not
    newest: datetime | None  # time of a fact
    quantiles: dict[str, tuple[float, float, float]]  # 5, 50 and 95 %


def stated_units(entries: Iterable[Entry]) -> dict[str, dict[str, int]]:
    """Count stated units.  Only known ones by name: anything may be written there."""
    counts: dict[str, Counter[str]] = {}
    for entry in entries:
        if entry.value is None:
            continue
        known = UNITS[entry.quantity][1]
        unit = "none" if entry.unit is None else entry.unit if entry.unit in known else "unknown"
        if known:
            counts.setdefault(entry.quantity, Counter())[unit] += 1
    return {quantity: dict(found) for quantity, found in counts.items()}


def value_quantiles(facts: Iterable[ClinicalFact]) -> dict[str, tuple[float, float, float]]:
    values: dict[str, list[float]] = {}
    for fact in facts:
        if isinstance(fact.value, float):
            values.setdefault(fact.quantity, []).append(fact.value)
    found = {}
    for quantity, some in values.items():
        if len(some) >= MANY_VALUES.value:
            cuts = quantiles(some, n=20, method="inclusive")
            found[quantity] = (cuts[0], cuts[9], cuts[18])
    return found


def of_held(held: Iterable[Held], source: str) -> list[Alert]:
    """Name why entries were held back, one alert for each quantity and reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in held:
        code = SLIPS.get(one.quantity) if one.reason == "unit_slip" else REASONS.get(one.reason)
        if code:
            found.setdefault((code, one.quantity), []).append(one.subject_id)
    return [
        Alert(code, source, quantity, "", {"entries": len(of), "people": len({*of})})
        for (code, quantity), of in sorted(found.items())
    ]


def compare(now: Profile, history: Sequence[Profile]) -> list[Alert]:
    """Name what is unlike the profiles before.

    Parameters
    ----------
    now : Profile
    history : sequence of Profile
        Of the same source, oldest first.  Incomplete ones are passed over.
    """
    before = [one for one in history if one.complete and one.source == now.source]
    before = before[-int(HISTORY.value) :]
    found = [*_nulls(now, before), *_stale(now, before)]
    if not now.complete:
        return sorted(found)  # what is not there may only not have been read
    if len(before) >= MIN_HISTORY.value:
        is_stale = any(alert.code == "stale" for alert in found)
        found += [*_fields(now, before), *_units(now, before)]
        found += [*_volume(now, before, is_stale), *_shifts(now, before)]
    if now.asked >= MIN_HISTORY.value and not now.found:
        found.append(Alert("nobody_found", now.source, numbers={"participants": now.asked}))
    return sorted(found)


def _exposure(profile: Profile) -> float:
    """People times hours in which entries could come."""
    return profile.returning * profile.hours


def _usual(before: Sequence[Profile], now: Profile, quantity: str) -> float:
    """Facts to be expected now."""
    rates = [one.new.get(quantity, 0) / _exposure(one) for one in before if _exposure(one) > 0]
    return median(rates) * _exposure(now) if len(rates) >= MIN_HISTORY.value - 1 else 0.0


def _volume(now: Profile, before: Sequence[Profile], is_stale: bool) -> Iterable[Alert]:
    from scipy.special import pdtr, pdtrc

    for quantity in sorted({*now.new, *(name for one in before for name in one.new)}):
        n, usual = now.new.get(quantity, 0), _usual(before, now, quantity)
        numbers = {"entries": n, "expected": round(usual, 1)}
        few = usual / VOLUME_FACTOR.value >= n and pdtr(n, usual) < CHANCE.value
        if few and not is_stale:
            yield Alert("too_few", now.source, quantity, numbers=numbers)
        many = usual > 0 and n >= VOLUME_FACTOR.value * usual
        if many and pdtrc(n - 1, usual) < CHANCE.value:
            yield Alert("too_many", now.source, quantity, numbers=numbers)


def _nulls(now: Profile, before: Sequence[Profile]) -> Iterable[Alert]:
    from scipy.special import bdtrc

    for quantity, n in sorted(now.nulls.items()):
        of = now.received[quantity]
        earlier = sum(one.received.get(quantity, 0) for one in before)
        usual = sum(one.nulls.get(quantity, 0) for one in before) / earlier if earlier else 0.0
        allowed = min(max(NULL_SHARE.value, NULL_FACTOR.value * usual), 0.99)
        if not earlier:  # wide tables have more empty cells than not
            allowed = FIRST_NULL_SHARE.value
        if bdtrc(n - 1, of, allowed) < CHANCE.value:
            numbers = {"entries": of, "without_value": n, "usual_share": round(usual, 3)}
            yield Alert("null_values", now.source, quantity, numbers=numbers)


def _stale(now: Profile, before: Sequence[Profile]) -> Iterable[Alert]:
    newest = max((one.newest for one in (*before, now) if one.newest), default=None)
    hours = (now.at - newest).total_seconds() / 3600 if newest else 0.0
    if hours > STALE_HOURS.value:
        yield Alert("stale", now.source, numbers={"hours": round(hours, 1)})


def _fields(now: Profile, before: Sequence[Profile]) -> Iterable[Alert]:
    new = {*now.unknown_fields} - {name for one in before for name in one.unknown_fields}
    n = sum(now.fields.values())
    for name in sorted({name for one in before for name in one.fields} - {*now.fields}):
        shares = [
            one.fields[name] / sum(one.fields.values()) for one in before if name in one.fields
        ]
        # Absent by chance from a sync in which little came is not gone.
        by_chance = (1 - median(shares) / VOLUME_FACTOR.value) ** n
        if len(shares) >= MIN_HISTORY.value and by_chance < CHANCE.value:
            code = "field_renamed" if new else "field_missing"
            numbers = {"expected": round(median(shares) * n, 1), "new_names": len(new)}
            yield Alert(code, now.source, "", name, numbers)


def _units(now: Profile, before: Sequence[Profile]) -> Iterable[Alert]:
    for quantity, units in sorted(now.units.items()):
        usual = {unit for one in before for unit in one.units.get(quantity, {})}
        changed = sum(n for unit, n in units.items() if usual and unit not in usual)
        if changed and "unknown" not in units:
            yield Alert("unit_changed", now.source, quantity, numbers={"entries": changed})


def _shifts(now: Profile, before: Sequence[Profile]) -> Iterable[Alert]:
    for quantity, (_, middle, _) in sorted(now.quantiles.items()):
        usual = [one.quantiles[quantity] for one in before if quantity in one.quantiles]
        if len(usual) < MIN_HISTORY.value:
            continue
        low, high = median(one[0] for one in usual), median(one[2] for one in usual)
        if not low <= middle <= high:
            yield Alert("values_shifted", now.source, quantity)
