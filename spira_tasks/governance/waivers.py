"""Waivers: a person lets a run go on, or a version be approved, although a check blocks it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta

from spira_tasks.artifacts import Store
from spira_tasks.contract.verdict import Verdict
from spira_tasks.errors import ConfigError
from spira_tasks.governance import applied, decisions
from spira_tasks.governance.applied import Decision

DAYS, MAX_DAYS = 90, 366
N_RUNS = 10  # the newest, in which a check is looked for


def sign(
    store: Store,
    suite: str,
    name: str,
    why: str,
    *,
    run: str = "",
    limit: float | None = None,
    days: int = DAYS,
) -> tuple[Decision, bool]:
    """Waive a check that held a run back; say whether the waiver is new.

    Parameters
    ----------
    suite, name : str
        As the verdict has them; the gates of promotion are the suite ``promotion``.
    run : str
        The run that was blocked; empty for the newest that was.
    limit : float, optional
        The worst value that is excused, by default that of the run.
    days : int
        Today and so many days more.

    Raises
    ------
    ConfigError
        When no run was held back by it, nobody may waive it, a waiver would excuse everything or
        nothing, or the reason is refused.
    """
    from expectations import policy

    held_back = _held_back(store, [run] if run else store.runs.ids()[-N_RUNS:])
    verdict = held_back.get((suite, name))
    if verdict is None:
        others = ", ".join(sorted(f"{suite} {name!r}" for suite, name in held_back))
        which = f"not the run {run!r}" if run else "none of the newest runs"
        raise ConfigError(
            f"{name!r} of the suite {suite!r} held back {which}; what did: {others or 'nothing'}"
        )
    if verdict.firm or (suite == applied.PROMOTION and name in policy.read().rules.firm):
        raise ConfigError(
            f"{name!r} protects people or shows a fault of the platform or of the model: nobody "
            "may waive it; correct what it found"
        )
    if not 0 <= days <= MAX_DAYS:
        raise ConfigError(f"--days is 0 to {MAX_DAYS}: sign again for longer")
    until = date.fromisoformat(decisions.today()) + timedelta(days=days)
    about = applied.waiver_of(verdict, until.isoformat(), limit)
    if about is None:
        raise ConfigError(
            f"{name!r} measured {verdict.observed and verdict.observed.value} against "
            f"{verdict.threshold}: a waiver would excuse "
            + ("everything" if limit is None else "less than that with this --limit")
        )
    return decisions.decide(store, "waivers", about, why)


def _held_back(store: Store, runs: Iterable[str]) -> dict[tuple[str, str], Verdict]:
    """Return the last verdict of each check that blocked a run, or was waived in one."""
    found = {}
    for run_id in runs:
        for record in store.runs.read(run_id).steps.values():
            of_stage = applied.PROMOTION if record.stage == "promote" else ""
            for one in record.verdicts:
                if (suite := one.suite or of_stage) and (one.stops or one.waiver):
                    found[suite, one.id] = replace(one, suite=suite)
    return found
