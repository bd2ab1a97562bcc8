"""Rules of a gate over a whole table: how much may be refused, and that no record is lost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from spira_tasks.config import StageConfig
from spira_tasks.contract.verdict import Number, Verdict

if TYPE_CHECKING:
    import pandas as pd


def shares(
    kept: pd.DataFrame,
    refused: pd.DataFrame,
    *,
    max_fraction: float,
    max_site_fraction: float,
    emptied: bool,
    suite: str = "",
) -> tuple[Verdict, ...]:
    """Whether what is left may be used: the share of refused rows, in all and by site.

    Parameters
    ----------
    kept, refused : DataFrame
        What is handed on, and the quarantine table.  Rows that count for neither are left out by
        the caller.
    max_fraction, max_site_fraction : float
        What is acceptable in the long run; how many are tolerated depends on the number of rows.
    emptied : bool
        Whether nothing is left to work with, which blocks however many are tolerated.
    """
    from expectations.limits import tolerated

    n, n_refused = len(kept) + len(refused), len(refused)
    n_tolerated = tolerated(n, max_fraction)
    in_all = Verdict(
        "quarantine_share",
        "block" if n_refused > n_tolerated or emptied else "pass",
        observed=Number(n_refused / n, "share") if n else None,
        threshold=max_fraction,
        n=n,
        numbers={
            "n_refused": Number(n_refused, "rows"),
            "n_tolerated": Number(n_tolerated, "items"),
            "n_left": Number(len(kept), "rows"),
        },
        names={"reasons": tuple(refused["reason"].value_counts().index)},
        suite=suite,
        severity="critical",
    )
    if "hospital_id" not in kept:
        return (in_all,)
    refused_at = refused["hospital_id"].value_counts()
    n_at = kept["hospital_id"].value_counts().add(refused_at, fill_value=0)
    n_bad = sum(
        int(k) > tolerated(int(n_at[site]), max_site_fraction) for site, k in refused_at.items()
    )
    by_site = Verdict(
        "quarantine_share_by_site",
        "block" if n_bad else "pass",
        observed=Number(n_bad, "sites"),
        threshold=max_site_fraction,
        n=len(n_at),
        n_unit="sites",
        suite=suite,
        severity="critical",
    )
    return in_all, by_site


def conserved(*, n_lost: int, n_new: int, n_leaked: int, n: int, suite: str) -> Verdict:
    """Whether every record of the source is here, once, and ends handed on or in quarantine."""
    parts = {"n_lost": n_lost, "n_new": n_new, "n_leaked": n_leaked}
    return Verdict(
        "rows_conserved",
        "block" if any(parts.values()) else "pass",
        observed=Number(sum(parts.values()), "rows"),
        threshold=0.0,
        n=n,
        numbers={name: Number(k, "rows") for name, k in parts.items()},
        suite=suite,
        severity="critical",
        firm=True,  # records that vanish are a bug of the platform, not a fault of the data
    )


def standard_limits(
    config: StageConfig,
    upper: Iterable[str],
    lower: Iterable[str] = (),
    others: Iterable[str] = (),
    suite: str = "",
) -> Verdict:
    """Whether nobody widened the limits of a gate for this run.

    Parameters
    ----------
    upper, lower : iterable of str
        Settings that let more through the higher, or the lower, they are.
    others : iterable of str
        Names of other settings that were changed so that more passes.
    """
    fields = type(config).model_fields
    widened = [
        name
        for names, sign in ((upper, 1), (lower, -1))
        for name in names
        if sign * (getattr(config, name) - fields[name].default) > 0
    ]
    names = (*widened, *others)
    return Verdict(
        "standard_limits",
        "warn" if names else "pass",
        observed=Number(len(names), "items"),
        threshold=0.0,
        numbers={name: Number(getattr(config, name)) for name in widened}
        | {f"{name}.standard": Number(fields[name].default) for name in widened},
        names={"limits": names},
        severity="warning",
        suite=suite,
    )
