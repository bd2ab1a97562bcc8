"""Counts of so few people that they are not told outside the team: in words instead.

Standard library only: Airflow's page uses it too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MIN_CELL = 5

# "3 of 80 rows", "2 patients": what a verdict says of so few people is said without the number
FEW = re.compile(
    r"(?<![\d.,-])[1-4](?: of \d+)?(?= (?:rows|patients|controls|subjects|people|recordings)\b)"
    r"|(?<![\d.,-])[1-4] of \d+"
)
PEOPLE_OBSERVED = re.compile(r"(?<![\d.,-])[1-4](?= observed\b)")
LIST_OF_FAULTS = re.compile(r"(faulty, \d+ would be tolerated): [^;]*")


def without_few(reason: str) -> str:
    """What a verdict says, with small counts in words and without the list of faults by kind.

    Examples
    --------
    >>> without_few("2 patients and 12 controls to test on")
    'fewer than 5 patients and 12 controls to test on'
    """
    return FEW.sub(f"fewer than {MIN_CELL}", LIST_OF_FAULTS.sub(r"\1", reason))


def reason_of(verdict: Mapping[str, Any], reason: str | None = None) -> str:
    """The reason of a verdict without small counts; one that counts people says so in its name."""
    told = without_few(str(verdict["reason"]) if reason is None else reason)
    name = str(verdict["name"])
    if "unique_value_count" in name and "(subject_id" in name:
        told = PEOPLE_OBSERVED.sub(f"fewer than {MIN_CELL}", told)
    return told
