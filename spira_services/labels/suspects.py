"""Labels that look wrong: by what a model makes of them, or by vital signs.

A suspect is no error.  An adjudicator says again what holds, and is not told why they were asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from sqlalchemy import Connection

from expectations.signs import contradicted
from spira_services.labels import assignment
from spira_services.labels.assignment import Reason
from spira_services.labels.weak import Facts
from spira_tasks.evaluation.labels import confident


def by_model(held: Mapping[str, int], probabilities: Mapping[str, float]) -> set[str]:
    """Sessions whose label a model is confident to be another; both are by session id."""
    ids = sorted(set(held) & set(probabilities))
    labels = np.array([held[one] for one in ids], dtype=int)
    found = confident(labels, np.array([probabilities[one] for one in ids], dtype=float))
    return {one for one, is_suspect in zip(ids, found, strict=True) if is_suspect}


def by_signs(held: Mapping[str, int], facts: Mapping[str, Facts]) -> set[str]:
    """Sessions whose vital signs speak against their label."""
    ids = sorted(set(held) & set(facts))
    columns = {
        name: pd.Series([facts[one].get(name) for one in ids], ids, dtype="object")
        for name in ("spo2", "on_oxygen", "resp_rate")
    }
    found = contradicted(pd.Series([held[one] for one in ids], ids, dtype="object"), **columns)
    return {str(one) for one in found.index[found]}


def ask_again(
    connection: Connection, sessions: Iterable[str], held: Mapping[str, int], reason: Reason
) -> int:
    """Put sessions before an adjudicator; return of how many that is new."""
    return sum(
        assignment.ask_again(connection, "session", one, reason, held[one])
        for one in sorted(sessions)
    )
