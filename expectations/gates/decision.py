"""Whether a program may decide, or a person has to, and who that person may be."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from hashlib import sha256

from expectations.policy import Rules
from spira_tasks.contract.verdict import Verdict


def left_open(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The checks that no program may overlook: what was waived, and what nobody could tell."""
    return [one for one in verdicts if one.waiver or one.status == "insufficient"]


def needs_approval(verdicts: Sequence[Verdict], rules: Rules) -> bool:
    """Whether a person has to approve a model that no verdict stops.

    ``verdicts`` are those of promotion, and those of the data that were waived.
    """
    return rules.approval == "always" or bool(left_open(verdicts))


def asked_of(opened: Sequence[Verdict], *measured: str) -> str:
    """What a person who approves answers for: a digest of the checks that are open.

    Another check, or another waiver of it, is another question; so is another policy, classifier,
    report, or evidence of experiments, which ``measured`` are the digests of.
    """
    checks = {
        json.dumps([one.suite, one.id, dict(one.names), one.waiver.at if one.waiver else ""])
        for one in opened
    }
    return sha256(json.dumps([measured, sorted(checks)]).encode()).hexdigest()[:32]


def excluded(involved: Collection[str], rules: Rules, *, production: bool) -> tuple[str, ...]:
    """Names of the people who may not approve what they started, or signed waivers for.

    People are compared by their names alone: ``airflow:ana`` is ``cli:ana``.
    """
    if rules.second_person == "never" or (rules.second_person == "production" and not production):
        return ()
    return tuple(sorted({name_of(one) for one in involved}))


def name_of(actor: str) -> str:
    """The name of a person in the audit log, however they acted and wrote it."""
    return actor.rpartition(":")[2].lower()
