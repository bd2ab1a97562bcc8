"""What a check found: a line for the table, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "FAIL"
PASSWORD_IN_URL = re.compile(r"(://[^\s:/@]*:)[^\s@]+@")


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    level: str
    what: str
    detail: str
    fix: str = ""


def ok(what: str, detail: str) -> Finding:
    return Finding(OK, what, detail)


def warn(what: str, detail: str, fix: str = "") -> Finding:
    return Finding(WARN, what, detail, fix)


def fail(what: str, detail: str, fix: str) -> Finding:
    return Finding(FAIL, what, detail, fix)


def shown(findings: Iterable[Finding], secrets: Iterable[str] = ()) -> str:
    """The table and the fixes, as text that holds none of ``secrets``."""
    findings = list(findings)
    width = max((len(one.what) for one in findings), default=0)
    lines = [f"{one.level:<4}  {one.what:<{width}}  {one.detail}" for one in findings]
    fixes: dict[str, list[Finding]] = {}  # one fix can answer several findings
    for one in findings:
        if one.fix:
            fixes.setdefault(one.fix, []).append(one)
    if fixes:
        lines += ["", "What to do:"]
    ordered = sorted(fixes.items(), key=lambda item: all(one.level != FAIL for one in item[1]))
    lines += [f"  {', '.join(one.what for one in about)}: {fix}" for fix, about in ordered]
    n_failed = sum(one.level == FAIL for one in findings)
    n_warned = sum(one.level == WARN for one in findings)
    lines += ["", f"{n_failed} wrong, {n_warned} to look at, {len(findings)} looked at"]
    return hidden("\n".join(lines), secrets)


def hidden(text: str, secrets: Iterable[str]) -> str:
    """``text`` without the secrets, and without the password of any URL."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return PASSWORD_IN_URL.sub(r"\1***@", text)


def status(findings: Iterable[Finding]) -> int:
    return int(any(one.level == FAIL for one in findings))


def last_line(text: str, n_characters: int = 160) -> str:
    """The last line that says something, cut to the width of a terminal or two."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:n_characters] if lines else ""
