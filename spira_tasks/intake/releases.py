"""Refusals of rows that a person may lift, and what lifting them means."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

AS_IT_IS = "the recording is taken as it is"
WITHOUT_VALUE = "the recording is taken, and the value is left out"

# What release means, by the reason of the refusal.  After any other reason the data has to be
# mended: nobody may lift a missing consent, and a file that cannot be read stays unread.
RELEASABLE = {
    "too_short": AS_IT_IS,
    "checksum_mismatch": AS_IT_IS,
    "impossible_value": WITHOUT_VALUE,
    "decimal_comma": WITHOUT_VALUE,
    "bad_value": WITHOUT_VALUE,
}

Released = Callable[[Any, str], bool]  # row, reason: whether a person has lifted that refusal


def nothing_released(row: Any, reason: str) -> bool:
    return False


def released(records: pd.Series, pairs: Collection[tuple[str, str]]) -> Released:
    """The releases by row, from the ``record_id`` of each and (record, reason) of each release."""
    if not pairs:
        return nothing_released
    names = records.to_dict()
    lifted = {pair for pair in pairs if pair[1] in RELEASABLE}
    return lambda row, reason: (names.get(row), reason) in lifted
