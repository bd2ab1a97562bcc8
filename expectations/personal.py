"""Numbers and addresses that lead to a person, found in text.  Standard library only.

Ingest, the gate and the reasons that people write ask this module, so none lets pass what another
refuses.
"""

from __future__ import annotations

import re

# Columns whose values are made by machines and are full of dates and counters.  Free text is
# refused rather once too often; here that would refuse whole deliveries.
IDENTIFIERS = ("record_id", "session_id")

# Not inside a longer word or number: digests and times of day are full of digits.  Overlapping,
# so that a number just before does not hide one.
START, END = r"(?<![A-Za-z0-9.])", r"(?![A-Za-z0-9])"
# What it is may be written right before it: CPF52998224725.  Letters that are all hexadecimal
# digits are no such word, but part of a digest.
WORD = r"(?:(?=[^\W\d_]*[^\W\d_a-fA-F])[^\W\d_]{{1,20}})?"
WHOLE = START + WORD + r"(?=({})" + END + ")"
CPF = re.compile(WHOLE.format(r"\d{3}[ .]?\d{3}[ .]?\d{3}[ ./-]?\d{2}"))
CNS = re.compile(WHOLE.format(r"\d{3}[ .]?\d{4}[ .]?\d{4}[ .]?\d{4}"))
ADDRESS = re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+")  # of e-mail
# The letter at the end of a hospital number is its check digit.  Nobody else can check it, so
# serial numbers would be taken for one if any word might stand before; and digests for lack of one.
HOSPITAL_NUMBER = re.compile(
    START
    + r"(?P<word>RGHC?|PRONT(?:U[AÁ]RIO)?|PACIENTE|REGISTRO|MATR[IÍ]CULA)?"
    + r"(?P<number>\d{7,8})(?P<gap>[-\u2013/]?)(?P<letter>[A-K])"
    + END
    + r"(?!-[0-9A-F]{4}-[0-9A-F]{4}-)",  # so goes on a UUID, which begins with eight such digits
    re.IGNORECASE,
)
DAY = re.compile(r"20\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")

# A number with the marks of its kind counts whatever its check digits are: people mistype.
MARKED = re.compile(WHOLE.format(r"\d{3}\.\d{3}\.\d{3}-\d{2}|\d{3} \d{4} \d{4} \d{4}"))
# Area codes that are in use: only they distinguish a telephone's eleven digits from a counter's.
AREA = r"0?(?:1[1-9]|2[12478]|3[1-578]|4[1-9]|5[1345]|6[1-9]|7[134579]|8[1-9]|9[1-9])"
GAP = r"[\s.\u2013-]{0,3}"  # blank, dot, dash, or nothing
TELEPHONES = (
    rf"(?:\+?55{GAP})?\(?{AREA}\)?{GAP}9 ?\d{{4}}{GAP}\d{{4}}",  # mobile, however it is written
    rf"\+55{GAP}\(?{AREA}\)?{GAP}\d{{4}}{GAP}\d{{4}}",  # others with the country's code,
    rf"\({AREA}\){GAP}\d{{4}}{GAP}\d{{4}}",  # with brackets
    rf"{AREA} ?\d{{4}}-\d{{4}}",  # or with a dash
)
TELEPHONE = re.compile(rf"(?:{START}{WORD.format()}|(?=[+(]))(?:{'|'.join(TELEPHONES)}){END}")


def holds_personal_data(text: str, is_identifier: bool = False) -> bool:
    """Whether the text holds a CPF, a CNS, a telephone, an e-mail address or a hospital number.

    Parameters
    ----------
    text : str
    is_identifier : bool
        Whether it is a value of one of ``IDENTIFIERS``.  Then only numbers with check digits count,
        and e-mail addresses: no telephone, nothing mistyped, and no number that begins with a day.
        Nor does a hospital number that could be a short digest or a counter with the letter of a
        take count, which is one in small letters or with a dash, unless it says what it is.

    Examples
    --------
    >>> holds_personal_data("CPF 52998224725"), holds_personal_data("number 52998224726")
    (True, False)
    >>> holds_personal_data("11 91234 5678"), holds_personal_data("rec-11912345678", True)
    (True, False)
    """
    if ADDRESS.search(text):
        return True
    if not is_identifier and (MARKED.search(text) or TELEPHONE.search(text)):
        return True
    if any(_is_hospital_number(found, is_identifier) for found in HOSPITAL_NUMBER.finditer(text)):
        return True
    numbers = [found for found in CPF.findall(text) if is_cpf(re.sub(r"\D", "", found))]
    numbers += [found for found in CNS.findall(text) if is_cns(re.sub(r"\D", "", found))]
    # A day and a counter of three digits have the check digits of a CPF once in a hundred times;
    # a CPF begins with a day once in some thousands.
    return any(not (is_identifier and DAY.match(number)) for number in numbers)


def _is_hospital_number(found: re.Match[str], is_identifier: bool) -> bool:
    if found["word"]:
        return True
    if DAY.match(found["number"]):
        return False
    return not is_identifier or not (found["gap"] or found["letter"] in "abcdef")


def is_cpf(digits: str) -> bool:
    """Whether eleven digits are a taxpayer's number: the last two follow from the others."""
    if len(digits) != 11 or len(set(digits)) == 1:
        return False
    for place in (9, 10):
        total = sum(int(d) * (place + 1 - i) for i, d in enumerate(digits[:place]))
        if int(digits[place]) != total * 10 % 11 % 10:
            return False
    return True


def is_cns(digits: str) -> bool:
    """Whether fifteen digits are a health card's number: weighted 15 to 1 they divide by 11."""
    if len(digits) != 15 or digits[0] not in "12789":
        return False
    return sum(int(d) * (15 - i) for i, d in enumerate(digits)) % 11 == 0
