"""What every expectation carries besides its condition: why it is there, and who answers for it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from expectations.limits import DATA, tolerated


def note(rationale: str, owner: str = DATA, aspect: str = "") -> dict[str, Any]:
    """The ``meta`` of an expectation.

    Parameters
    ----------
    rationale : str
        Shown to whoever has to act when it fails.
    owner : str
        Who may change the threshold.
    aspect : str
        Tells apart two expectations of one kind on one column.
    """
    return {"rationale": rationale, "owner": owner, "aspect": aspect}


def filled(frame: pd.DataFrame) -> set[str]:
    """Columns that hold at least one value: the published layout leaves the clinical ones empty."""
    return {str(column) for column in frame if frame[column].notna().any()}


def mostly(n: int, fraction: float) -> float:
    """The share that must be good among ``n`` where ``fraction`` may be bad in the long run."""
    return (n - tolerated(n, fraction)) / n if n else 1.0
