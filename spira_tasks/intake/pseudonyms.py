"""Pseudonyms: the keyed names by which people are known inside the platform.

The key is the one secret that links them to hospital numbers.  It comes from the environment and
is kept apart from the data (LGPD art. 13 § 4); with the store alone nobody can go back.

When the key is replaced, a re-key map says who had which pseudonym before: people who are known
keep the one they first had, so nobody changes sides between training and test, and a tombstone
holds (docs/adr/0015-key-rotation.md).  The map is a file beside the key, never in the store.

A number and a site have one form before they are hashed, so that one person in two writings stays
one person (docs/adr/0024-one-form-of-a-hospital-number.md).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from spira_tasks.contract.place import COMMAND
from spira_tasks.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from spira_tasks.intake.record_contract import Faults

log = logging.getLogger(__name__)

VARIABLE = "SPIRA_PSEUDONYM_KEY"
OLD_VARIABLE = "SPIRA_PSEUDONYM_KEY_OLD"  # read by `pseudonyms rotate` alone
MAP_VARIABLE = "SPIRA_PSEUDONYM_MAP"
MAP_FORMAT = "spira.rekey/3"
LIST_COLUMNS = ("hospital_id", "patient_rgh")
DEMO_KEY = b"for demonstrations with invented people only"  # known to everybody, so no secret
MIN_KEY_BYTES = 16
SHORTEST_NUMBER = 4  # characters; shorter hospital numbers are found in any text
SHORTEST_STEM = 6  # digits without their check letter; fewer are found in any date

WORD_BEFORE = re.compile(r"(?:RGHC?|PRONT(?:UARIO)?|PACIENTE|REGISTRO|MATRICULA)(?=\d)")
WHOLE_FLOAT = re.compile(r"(\d+)[.,]0{1,2}")  # three zeros are a thousand
# Digits are lost in it: people would share what is left.
SCIENTIFIC = re.compile(r"[+-]?(?:\d+[.,]\d+E[+-]?\d+|\d+E[+-]\d+)")
ONE_CHARACTER = re.compile(r"(.)\1{3,}")  # 9999


def key(variable: str = VARIABLE) -> bytes:
    """Return the key from the environment, or the demonstration key when there is none.

    Raises
    ------
    ConfigError
        When the variable is set to something too short to be a key.
    """
    text = os.environ.get(variable, "")
    if not text:
        return DEMO_KEY
    if len(text.encode()) < MIN_KEY_BYTES:
        raise ConfigError(
            f"{variable} is shorter than {MIN_KEY_BYTES} bytes: anybody could try all such keys; "
            "set it to a random text, for example from `openssl rand -hex 32`"
        )
    return text.encode()


def key_id() -> str:
    """Eight hex digits that change with the key and the re-key map, and do not reveal them.

    They are part of ingest's configuration, so that pseudonyms made otherwise are another result.
    """
    if not os.environ.get(MAP_VARIABLE):
        return id_of(key())
    content = json.dumps(rekey_map(), sort_keys=True).encode()
    return hashlib.sha256(id_of(key()).encode() + content).hexdigest()[:8]


def id_of(secret: bytes) -> str:
    """Names a key without revealing it."""
    return hashlib.sha256(b"spira.pseudonym-key/1\0" + secret).hexdigest()[:8]


def rekey_map(made_for: bytes | None = None) -> dict[str, str]:
    """Pseudonym by the key of today to the first that its person had; empty without a map.

    Parameters
    ----------
    made_for : bytes, optional
        The key that the map has to belong to, by default the one of today.

    Raises
    ------
    ConfigError
        When the file of SPIRA_PSEUDONYM_MAP is not there, is open to everybody, is no map, or was
        made for another key.
    """
    place = os.environ.get(MAP_VARIABLE, "")
    if not place:
        return {}
    try:
        if Path(place).stat().st_mode & stat.S_IRWXO:
            raise ConfigError(
                f"the file of {MAP_VARIABLE} is open to everybody on this machine; chmod 600 it"
            )
        content = json.loads(Path(place).read_text())
        people = {str(now): str(first) for now, first in content["people"].items()}
        new_key, form = content["new_key"], content["format"]
    except OSError as error:
        raise ConfigError(
            f"the file of {MAP_VARIABLE} cannot be read ({error.strerror}); without it everybody "
            "who is known would be a stranger, and might change sides between training and test"
        ) from None
    except (ValueError, KeyError, AttributeError, TypeError):
        form, new_key, people = "", "", {}
    if form != MAP_FORMAT:
        raise ConfigError(
            f"the file of {MAP_VARIABLE} is not a re-key map; one is made by "
            f"`{COMMAND} pseudonyms rotate`"
        )
    wanted = id_of(key() if made_for is None else made_for)
    if new_key != wanted:
        raise ConfigError(
            f"the map of {MAP_VARIABLE} was made for the key {new_key}, and the key is {wanted}; "
            "set the two that belong together"
        )
    return people


def check_place(file: Path, folders: Iterable[str]) -> None:
    """Refuse a place for the map that exists, or that is in one of some folders: others read them.

    Addresses with ``://`` are no folders, and are passed over.
    """
    for folder in (Path(place).resolve() for place in folders if "://" not in place):
        if file.resolve().is_relative_to(folder):
            raise ConfigError(
                f"{file} is inside {folder}: the map links old and new pseudonyms, so it is kept "
                "beside the key, apart from the store and the data"
            )
    if file.exists():
        raise ConfigError(f"{file} is there already; name a new file")


def read_list(file: str) -> pd.DataFrame:
    """Read hospitals and numbers from a CSV file."""
    import pandas as pd

    try:
        rows = pd.read_csv(file, dtype="str", encoding="utf-8-sig", skipinitialspace=True)
    except (OSError, ValueError) as error:  # the message of pandas may quote a line
        raise ConfigError(f"{file} cannot be read as CSV ({type(error).__name__})") from None
    if not set(LIST_COLUMNS) <= set(rows):
        raise ConfigError(f"{file} lacks the columns {' and '.join(LIST_COLUMNS)}")
    return rows[[*LIST_COLUMNS]].apply(lambda column: column.str.strip())


def write_map(file: Path, old: bytes, new: bytes, people: Mapping[str, str]) -> None:
    """Write a re-key map that only this user may read, where there is no file yet."""
    content = {"format": MAP_FORMAT, "old_key": id_of(old), "new_key": id_of(new)}
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(f"the map cannot be written to {file} ({error.strerror})") from None
    with os.fdopen(descriptor, "w") as opened:
        json.dump(content | {"people": dict(people)}, opened, indent=1, sort_keys=True)


def first_pseudonyms(
    tables: Iterable[tuple[pd.DataFrame, pd.DataFrame]],
    old: bytes,
    new: bytes,
    earlier: Mapping[str, str],
) -> dict[str, str]:
    """Pseudonym by the new key to the first that the person had.

    Parameters
    ----------
    tables : iterable of (DataFrame, DataFrame)
        The same rows, read with the old key and with the new one.
    earlier : mapping of str to str
        The map that went with the old key, so that a second rotation leads to the first pseudonym.
    """
    found = {}
    for by_old, by_new in tables:
        after = own_ids(by_new, new).dropna()
        for n, before in own_ids(by_old, old).loc[after.index].items():
            found[after[n]] = earlier.get(before, before)
    return found


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


def canonical_number(number: str) -> str:
    """The one form of a hospital number, empty where the text is none.

    Capitals and digits without marks, leading zeros, a word before and the fraction of a float.
    Placeholders (``S/N``, ``0``, ``9999``) and scientific notation name nobody.

    Examples
    --------
    >>> canonical_number("0012.345-a"), canonical_number("12345.0"), canonical_number("N/A")
    ('12345A', '12345', '')
    """
    text = unicodedata.normalize("NFKD", number).upper().strip()
    if SCIENTIFIC.fullmatch(text):
        return ""
    if whole := WHOLE_FLOAT.fullmatch(text):
        text = whole[1]
    text = WORD_BEFORE.sub("", re.sub(r"[\W_]", "", text), count=1).lstrip("0")
    has_digit = any(character.isdigit() for character in text)
    return text if has_digit and not ONE_CHARACTER.fullmatch(text) else ""


def canonical_site(hospital_id: str) -> str:
    """The one form of a site's name: small letters, single blanks."""
    return " ".join(unicodedata.normalize("NFKC", hospital_id).casefold().split())


def with_one_name_of_each_site(rows: pd.DataFrame, set_up: Iterable[str]) -> pd.DataFrame:
    """Rows with every site in one writing: that of a site that is set up, where it is one."""
    if "hospital_id" not in rows:
        return rows
    names = rows["hospital_id"]
    shown = {canonical_site(name): name for name in [*sorted(names.dropna().unique()), *set_up]}
    named = names.map(lambda name: shown[canonical_site(name)], na_action="ignore")
    return rows.assign(hospital_id=named.astype("str"))


def subject_id(secret: bytes, hospital_id: str, number: str) -> str:
    """The pseudonym of a hospital's patient, 64 hex digits.

    The hospital is the salt: the same number in two hospitals makes two people, and a table of all
    numbers made for one is of no use at another.
    """
    return pseudonym(secret, canonical_site(hospital_id), canonical_number(number))


def own_ids(rows: pd.DataFrame, secret: bytes) -> pd.Series:
    """The pseudonym of every row's patient by this key, NaN where nothing shows who it is.

    By hospital and hospital number; a ``patient_pid``, already a pseudonym, passes, and so does
    what the file names of the published layout show.
    """
    import pandas as pd

    nothing = pd.Series(None, index=rows.index, dtype="str")
    number, site = rows.get("patient_rgh", nothing), rows.get("hospital_id", nothing)
    is_number = number.map(lambda text: bool(canonical_number(text)), na_action="ignore").eq(True)
    numbered = rows.index[is_number & site.notna()]
    by_key = {n: subject_id(secret, site[n], number[n]) for n in numbered}
    pid = rows.get("patient_pid", nothing).str.lower()
    known = rows.get("subject_id", nothing).fillna(pid)
    return pd.Series(by_key, index=rows.index, dtype="str").fillna(known)


def known_as(secret: bytes, hospital_id: str, number: str) -> str:
    """The pseudonym of a person; who had another before the key was replaced keeps it."""
    now = subject_id(secret, hospital_id, number)
    return rekey_map().get(now, now)


def subject_ids(rows: pd.DataFrame, secret: bytes) -> pd.Series:
    """As ``own_ids``, but who had another pseudonym before the key was replaced keeps it."""
    had = rekey_map()
    found = own_ids(rows, secret)
    return found.map(lambda now: had.get(now, now), na_action="ignore").astype("str")


def numbers_of_nobody(rows: pd.DataFrame) -> Faults:
    """Rows whose hospital number is none, and that nothing else leads to a person."""
    if "patient_rgh" not in rows:
        return {}
    unusable = rows["patient_rgh"].map(canonical_number, na_action="ignore").eq("")
    if "patient_pid" in rows:
        unusable &= rows["patient_pid"].isna()
    detail = "patient_rgh is a placeholder, or lost digits to scientific notation"
    return dict.fromkeys(rows.index[unusable], ("no_hospital_number", detail))


@cache
def _written_anyhow(number: str) -> re.Pattern[str]:
    """Find a hospital number in text in capitals, with or without marks, zeros, check letter."""
    canonical = canonical_number(number)
    stem = canonical.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    shown = stem if len(stem) >= SHORTEST_STEM else canonical
    exact = unicodedata.normalize("NFKD", number).upper()
    ways = [re.escape(exact)] if len(exact) >= SHORTEST_NUMBER else []
    if len(shown) >= SHORTEST_NUMBER:
        marks = r"[\W_]?"  # one at most, so that two numbers are not read as one
        ways.append(r"(?<!\d)0*" + marks + marks.join(shown) + r"(?!\d)")
    return re.compile("|".join(ways) or r"(?!)")


def names_number(text: str, number: str) -> bool:
    """Whether a text holds a hospital number, in whatever writing."""
    written = unicodedata.normalize("NFKD", text).upper()
    return bool(canonical_number(number) and _written_anyhow(number).search(written))


def identifiers_in_text(rows: pd.DataFrame) -> Faults:
    """Rows that name their patient in a column that would be kept.

    The hospital number of the same row, in any column and any writing; and anything that looks
    like a Brazilian personal number, a telephone or an e-mail address.
    """
    from expectations.personal import IDENTIFIERS, holds_personal_data
    from spira_tasks.intake.record_contract import FREE_TEXT, is_extra

    faults: Faults = {}
    for name in [name for name in rows if name in FREE_TEXT or is_extra(name)]:
        cells = rows[name].dropna()
        texts = [t for t in cells.unique() if holds_personal_data(t, name in IDENTIFIERS)]
        for n in cells.index[cells.isin(texts)]:
            faults[n] = ("personal_data_in_text", f"{name} holds a number or address of a person")
        if "patient_rgh" not in rows:
            continue
        numbers = rows.loc[cells.index, "patient_rgh"].dropna()
        for n, number, text in zip(numbers.index, numbers, cells[numbers.index], strict=True):
            if names_number(text, number):
                faults[n] = ("personal_data_in_text", f"{name} holds the hospital number")
    return faults


def tombstone_tag(subject_id: str) -> str:
    """What stands for an erased subject: 32 hex digits, a one-way hash of the pseudonym.

    It shows whether a subject that comes again was erased, and reveals nothing else.
    """
    return hashlib.sha256(b"spira.erased/1\0" + subject_id.encode()).hexdigest()[:32]
