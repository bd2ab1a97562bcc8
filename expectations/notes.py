"""What every expectation carries besides its condition: why it is there, and who answers for it."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd

from expectations.limits import DATA, tolerated

Action = Literal["block", "quarantine", "annotate", ""]
QUARANTINE: Action = "quarantine"

# What failing leads to where ``action`` does not say; the two are otherwise independent.
DEFAULT_ACTION = {"critical": "block", "warning": "annotate", "info": "annotate"}


def note(
    rationale: str,
    owner: str = DATA,
    aspect: str = "",
    action: Action = "",
    firm: bool = False,
) -> dict[str, Any]:
    """The ``meta`` of an expectation.

    Parameters
    ----------
    rationale : str
        Shown to whoever has to act when it fails.
    owner : str
        Who may change the threshold.
    aspect : str
        Tells apart two expectations of one kind on one column.
    action : {"block", "quarantine", "annotate", ""}
        What its failing leads to: the run ends, the rows at fault are put aside, or it is told.
        Empty: as the severity has it (a critical one blocks, any other is told).
    firm : bool
        Whether nobody may set it aside: neither a waiver nor a release counts.
    """
    meta = {"rationale": rationale, "owner": owner, "aspect": aspect, "action": action}
    return meta | ({"firm": True} if firm else {})


def filled(frame: pd.DataFrame) -> set[str]:
    """Columns that hold at least one value: the published layout leaves the clinical ones empty."""
    return {str(column) for column in frame if frame[column].notna().any()}


def mostly(n: int, fraction: float) -> float:
    """The share that must be good among ``n`` where ``fraction`` may be bad in the long run."""
    return (n - tolerated(n, fraction)) / n if n else 1.0
