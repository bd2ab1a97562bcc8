"""What every expectation carries besides its condition: why it is there, and who answers for it."""

from __future__ import annotations

from typing import Any, Literal

from expectations.limits import DATA

Action = Literal["block", "quarantine", "annotate", ""]
QUARANTINE: Action = "quarantine"

# What a failure leads to where ``action`` does not say; the two are otherwise independent.
DEFAULT_ACTION = {"critical": "block", "warning": "annotate", "info": "annotate"}


def note(
    rationale: str, owner: str = DATA, aspect: str = "", action: Action = "", firm: bool = False
) -> dict[str, Any]:
    """The ``meta`` of an expectation.

    Parameters
    ----------
    rationale : str
        Shown to the person who has to act when it fails.
    owner : str
        Who may change the threshold.
    aspect : str
        Tells apart two expectations of one kind on one column.
    action : {"block", "quarantine", "annotate", ""}
        What a failure leads to: the run ends, the faulty rows are put aside, or it is reported.
        Empty: by severity (a critical expectation blocks, any other is reported).
    firm : bool
        Whether nobody may set it aside: neither a waiver nor a release counts.
    """
    meta = {"rationale": rationale, "owner": owner, "aspect": aspect, "action": action}
    return meta | ({"firm": True} if firm else {})
