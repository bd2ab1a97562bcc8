"""Did people write what only people can say of the data and of the model?"""

from __future__ import annotations

from collections.abc import Sequence

from spira_tasks.contract.verdict import Number, Verdict


def documents_written(missing: Sequence[str], synthetic: bool) -> Verdict:
    """Are the sections of datasheet and model card that people have to write there?

    Parameters
    ----------
    missing : sequence of str
        ``"<document>/<section>"`` of those that no language has.
    synthetic : bool
        Whether every recording is of an invented person: nobody has to answer for a demonstration.
    """
    return Verdict(
        "documents_written",
        "block" if missing and not synthetic else "pass",
        observed=Number(len(missing), "items"),
        threshold=0.0,
        names={"sections": tuple(missing), "state": ("invented",) if missing else ()},
        severity="critical",
    )
