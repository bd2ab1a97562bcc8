"""What changed at a source is named; what is usual is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hospital import BEGIN, DAY

from spira_services.hospitals.watch import ALERTS, REASONS, SLIPS, Alert, Profile, compare
from spira_services.hospitals.watch import value_quantiles as quantiles_of


def profile(day: int, **changed: Any) -> Profile:
    usual: dict[str, Any] = {
        "source": "hc:fhir",
        "at": BEGIN + day * DAY,
        "complete": True,
        "hours": 24.0,
        "asked": 10,
        "found": 10,
        "returning": 10,
        "received": {"spo2": 60, "temp": 60},
        "new": {"spo2": 60, "temp": 60},
        "nulls": {"temp": 3},
        "held": {"temp": {"no_value": 3}},
        "units": {"spo2": {"%": 60}},
        "fields": {"lo|spo2": 60, "lo|temp": 60},
        "unknown_fields": {"lo|other": 4},
        "newest": BEGIN + day * DAY,
        "quantiles": {"spo2": (88.0, 94.0, 99.0)},
    }
    return Profile(**usual | changed)


PAST = [profile(day) for day in range(5)]


def named(history: Any = PAST, day: int = 5, **changed: Any) -> list[Alert]:
    found = compare(profile(day, **changed), history)
    assert {alert.code for alert in found} <= {*ALERTS}
    return found


def codes(*of: Any, **changed: Any) -> set[tuple[str, str]]:
    return {(alert.code, alert.quantity or alert.name) for alert in named(*of, **changed)}


def test_a_usual_day_is_no_alert() -> None:
    assert codes() == set()


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"new": {"spo2": 6, "temp": 60}}, ("too_few", "spo2")),
        ({"new": {"spo2": 600, "temp": 60}}, ("too_many", "spo2")),
        ({"new": {"spo2": 60, "temp": 60, "fio2": 20}}, None),  # a quantity that is new
        ({"new": {"spo2": 21, "temp": 60}}, None),  # a quiet day
        ({"new": {"spo2": 2, "temp": 2}, "hours": 0.5}, None),  # a short time
        ({"new": {}, "returning": 0}, None),  # everybody is new
        ({"nulls": {"temp": 60}}, ("null_values", "temp")),
        ({"nulls": {"temp": 8}}, None),
        ({"fields": {"lo|temp": 60}}, ("field_missing", "lo|spo2")),
        (
            {"fields": {"lo|temp": 60}, "unknown_fields": {"hc|spo2": 60}},
            ("field_renamed", "lo|spo2"),
        ),
        ({"fields": {"lo|temp": 4}}, None),  # four entries can all be of one kind
        ({"units": {"spo2": {"1": 60}}}, ("unit_changed", "spo2")),
        ({"quantiles": {"spo2": (70.0, 80.0, 85.0)}}, ("values_shifted", "spo2")),
        ({"quantiles": {"spo2": (88.0, 92.0, 97.0)}}, None),
        ({"found": 0}, ("nobody_found", "")),
    ],
)
def test_each_change_has_its_own_alert(changed: Any, code: tuple[str, str] | None) -> None:
    assert codes(**changed) == ({code} if code else set())


def test_nothing_for_days_is_stale_and_not_also_few() -> None:
    silent: dict[str, Any] = {"new": {}, "received": {}, "nulls": {}, "fields": {}, "newest": None}
    assert codes(day=9, **silent | {"hours": 120.0}) == {("stale", "")}
    (alert,) = named(day=9, **silent)
    assert alert.numbers == {"hours": 120.0}


def test_what_was_not_read_to_the_end_is_not_missing() -> None:
    cut = {"complete": False, "new": {}, "fields": {}}
    assert codes(**cut) == set()
    history = [*PAST[:3], *(profile(day, **cut) for day in range(3, 9))]
    assert codes(history, 9, hours=168.0, new={"spo2": 420, "temp": 420}) == set()
    few = {"hours": 168.0, "new": {"spo2": 42, "temp": 420}}
    assert codes(history, 9, **few) == {("too_few", "spo2")}


def test_a_fault_that_lasts_does_not_become_usual() -> None:
    history = [*PAST]
    for day in range(5, 15):
        now = profile(day, fields={"lo|temp": 60})
        assert "field_missing" in {alert.code for alert in compare(now, history)}
        history.append(now)


@pytest.mark.parametrize("history", [[], PAST[:2]])
def test_of_a_source_that_is_hardly_known_only_what_is_plain_is_named(history: Any) -> None:
    assert codes(history, new={"spo2": 1}, fields={}) == set()
    assert ("null_values", "temp") in codes([], nulls={"temp": 60})


def test_chance_alone_raises_hardly_an_alert() -> None:
    rng = np.random.default_rng(5)

    def drawn(day: int) -> Profile:
        spo2, temp = (int(n) for n in rng.poisson(60, 2))
        nulls = int(rng.binomial(temp, 0.05))
        counts = {"spo2": spo2, "temp": temp}
        return profile(day, new=counts, received=counts, nulls={"temp": nulls} if nulls else {})

    days = [drawn(day) for day in range(200)]
    alerts = [alert for n in range(5, 200) for alert in compare(days[n], days[:n])]
    assert len(alerts) <= 2


def test_a_profile_is_the_same_after_json() -> None:
    assert Profile.model_validate_json(profile(1).model_dump_json()) == profile(1)


def test_quantiles_of_few_values_are_not_kept() -> None:
    assert quantiles_of([]) == {}


def test_every_reason_has_an_alert_that_is_explained() -> None:
    assert {*REASONS.values(), *SLIPS.values()} <= {*ALERTS}
