"""Pseudonyms: the keyed names by which people are known inside the platform.

The key is the one secret that links them to hospital numbers.  It comes from the environment and
is kept apart from the data (LGPD art. 13 § 4); whoever has only the store cannot go back.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from typing import TYPE_CHECKING

from spira_tasks.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from spira_tasks.intake.record_contract import Faults

log = logging.getLogger(__name__)

VARIABLE = "SPIRA_PSEUDONYM_KEY"
DEMO_KEY = b"for demonstrations with invented people only"  # known to everybody, so no secret
MIN_KEY_BYTES = 16
SHORTEST_NUMBER = 4  # characters; shorter hospital numbers are found in any text


def key() -> bytes:
    """Return the key from the environment, or the demonstration key when there is none.

    Raises
    ------
    ConfigError
        When the variable is set to something too short to be a key.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return DEMO_KEY
    if len(text.encode()) < MIN_KEY_BYTES:
        raise ConfigError(
            f"{VARIABLE} is shorter than {MIN_KEY_BYTES} bytes: anybody could try all such keys; "
            "set it to a random text, for example from `openssl rand -hex 32`"
        )
    return text.encode()


def key_id() -> str:
    """Eight hex digits that change with the key and do not tell it.

    They are part of ingest's configuration, so that pseudonyms made with another key are another
    result.
    """
    return hashlib.sha256(b"spira.pseudonym-key/1\0" + key()).hexdigest()[:8]


def warn_of_demo_key() -> None:
    if key() == DEMO_KEY:
        log.warning(
            "%s is not set: pseudonyms are made with the demonstration key, which protects "
            "nobody; set it before real recordings come in",
            VARIABLE,
        )


def pseudonym(secret: bytes, *parts: str) -> str:
    """HMAC-SHA256 of the parts, 64 hex digits.

    Examples
    --------
    >>> pseudonym(DEMO_KEY, "site-a", "12")[:8] == pseudonym(DEMO_KEY, "site-a1", "2")[:8]
    False
    """
    return hmac.new(secret, "\x1f".join(parts).encode(), hashlib.sha256).hexdigest()


def subject_id(secret: bytes, hospital_id: str, number: str) -> str:
    """The pseudonym of a hospital's patient, 64 hex digits.

    The hospital is the salt: the same number in two hospitals makes two people, and a table of all
    numbers made for one is of no use at another.
    """
    return pseudonym(secret, hospital_id, number.upper())


def subject_ids(rows: pd.DataFrame, secret: bytes) -> pd.Series:
    """The pseudonym of every row's patient, NaN where nothing tells who it is.

    HMAC-SHA256 of hospital and hospital number; a ``patient_pid``, already a pseudonym, passes.
    Numbers are compared in capitals, because their check digit is typed in both cases.
    """
    import pandas as pd

    nothing = pd.Series(None, index=rows.index, dtype="str")
    known = rows.get("subject_id", nothing).fillna(rows.get("patient_pid", nothing))
    number, site = rows.get("patient_rgh", nothing), rows.get("hospital_id", nothing)
    keyed = pd.Series(
        {
            n: subject_id(secret, site[n], number[n])
            for n in rows.index[number.notna() & site.notna()]
        },
        index=rows.index,
        dtype="str",
    )
    return keyed.fillna(known)


def identifiers_in_text(rows: pd.DataFrame) -> Faults:
    """Rows that name their patient in a column that would be kept.

    The hospital number of the same row, in any column; and whatever looks like a Brazilian
    personal number, a telephone or an e-mail address.
    """
    from expectations.limits import PERSONAL_DATA_REGEX
    from spira_tasks.intake.record_contract import FREE_TEXT, is_extra

    faults: Faults = {}
    for name in [name for name in rows if name in FREE_TEXT or is_extra(name)]:
        cells = rows[name].dropna()
        for n in cells.index[cells.str.contains(PERSONAL_DATA_REGEX)]:
            faults[n] = ("personal_data_in_text", f"{name} holds a number or address of a person")
        if "patient_rgh" not in rows:
            continue
        for n, number in rows.loc[cells.index, "patient_rgh"].dropna().items():
            if len(number) >= SHORTEST_NUMBER and number.casefold() in cells[n].casefold():
                faults[n] = ("personal_data_in_text", f"{name} holds the hospital number")
    return faults
