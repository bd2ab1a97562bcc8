"""Numbers and addresses that lead to a person, found in text.  Standard library only."""

from __future__ import annotations

import re

# A number written with the marks of its kind is one whatever its check digits: people mistype.
MARKED = (
    r"\d{3}\.\d{3}\.\d{3}-\d{2}",  # CPF
    r"\d{3} \d{4} \d{4} \d{4}",  # CNS, as printed on the card
    r"(?:\+55 ?)\(?\d{2}\)? ?9?\d{4}-?\d{4}",  # telephone with the country's code,
    r"\(?\d{2}\)? ?9?\d{4}-\d{4}",  # or with a dash
    r"\d{7,8}[A-K]",  # hospital number
    r"[\w.+-]+@[\w-]+\.[\w.]+",  # e-mail
)
BARE = r"\d{11}(?:\d{4})?|\d{9}-\d{2}|\d{3}\.\d{3}\.\d{3}\d{2}"
# Not inside a longer word or number: digests and times of day are full of digits.
MARKED_REGEX = re.compile(rf"(?<![\w.])(?:{'|'.join(MARKED)})(?!\w)")
BARE_REGEX = re.compile(rf"(?<![\w.])(?:{BARE})(?!\w)")


def holds_personal_data(text: str) -> bool:
    """Whether the text holds a CPF, a CNS, a telephone, an e-mail address or a hospital number.

    Examples
    --------
    >>> holds_personal_data("CPF 52998224725"), holds_personal_data("number 52998224726")
    (True, False)
    """
    if MARKED_REGEX.search(text):
        return True
    numbers = (re.sub(r"\D", "", found) for found in BARE_REGEX.findall(text))
    return any(is_cpf(number) or is_cns(number) for number in numbers)


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
