"""Weak labels: rules of thumb as code, and a model of how far each can be trusted.

A labelling function looks at what is known of a session and says 1, 0, ``ABSTAIN`` (it looked and
does not say) or ``MISSING`` (what it looks at is not there).  Abstaining is an answer: a rule that
only ever says 1 tells by its silence too.  The label model is that of Dawid and Skene; where it is
not sure it gives no label.  Weak labels are to learn from: the split of a training leaves them out
where a model is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from spira_services.database import now
from spira_services.labels import store
from spira_services.labels.reliability import (
    MISSING,
    DawidSkene,
    Floats,
    Ratings,
    dawid_skene,
    one_hot,
    share_of,
)
from spira_services.labels.store import LABEL, LabelEvent

ABSTAIN = 2
MODEL = "label model 1"  # as annotator
Facts = Mapping[str, Any]  # of a session: columns of the row contract, and what programs measured


@dataclass(frozen=True)
class LabellingFunction:
    """A rule with what a table of rules has to say of it.  Another rule is another version."""

    name: str
    version: int
    owner: str
    rationale: str
    needs: tuple[str, ...]  # facts without which it cannot look
    rule: Callable[[Facts], int]  # 1, 0 or ABSTAIN

    def __call__(self, facts: Facts) -> int:
        return MISSING if any(facts.get(name) is None for name in self.needs) else self.rule(facts)


def _saturation(facts: Facts) -> int:
    if facts["spo2"] < 90 or (facts["on_oxygen"] and facts["spo2"] < 94):
        return 1
    return 0 if facts["spo2"] >= 97 and not facts["on_oxygen"] else ABSTAIN


def _breathing(facts: Facts) -> int:
    if facts["resp_rate"] >= 30:
        return 1
    return 0 if 10 <= facts["resp_rate"] <= 18 else ABSTAIN


def _diagnosis(facts: Facts) -> int:
    code = str(facts["cid10"]).upper().replace(".", "")
    return 1 if code.startswith(("J80", "J96")) else ABSTAIN


def _place(facts: Facts) -> int:
    return {"ICU": 1, "OUTPATIENT": 0, "HOME": 0}.get(facts["unit"], ABSTAIN)


def _pauses(facts: Facts) -> int:
    if facts["pause_rate"] >= 0.45:
        return 1
    return 0 if facts["pause_rate"] <= 0.15 else ABSTAIN


def _model(facts: Facts) -> int:
    if facts["model_probability"] >= 0.9:
        return 1
    return 0 if facts["model_probability"] <= 0.1 else ABSTAIN


CLINICAL = "clinical lead (not yet signed)"
FUNCTIONS = (
    LabellingFunction(
        "saturation",
        1,
        CLINICAL,
        "low, or kept up by oxygen; between 90 and 97 % a saturation alone says little",
        ("spo2", "on_oxygen"),
        _saturation,
    ),
    LabellingFunction(
        "breathing",
        1,
        CLINICAL,
        "adults at rest breathe 12 to 18 times",
        ("resp_rate",),
        _breathing,
    ),
    LabellingFunction(
        "diagnosis", 1, CLINICAL, "ICD-10 J96, respiratory failure, and J80", ("cid10",), _diagnosis
    ),
    LabellingFunction(
        "place", 1, CLINICAL, "where somebody lies; a confound of the room, too", ("unit",), _place
    ),
    LabellingFunction(
        "pauses", 1, "speech", "share of the sentence that is silent", ("pause_rate",), _pauses
    ),
    LabellingFunction(
        "model", 1, "ML engineering", "where it is sure", ("model_probability",), _model
    ),
)


def votes(functions: Sequence[LabellingFunction], sessions: Sequence[Facts]) -> Ratings:
    """What each function says of each session, of shape (session, function)."""
    said = [[function(facts) for function in functions] for facts in sessions]
    return np.array(said, dtype=int).reshape(len(sessions), len(functions))


@dataclass(frozen=True)
class LabelModel:
    """How far each function can be trusted, and what they say together."""

    probabilities: Floats  # (session,): of label 1
    found: DawidSkene
    n_said: npt.NDArray[np.int_]  # (session,): functions that did not abstain

    def labels(self, least: float = 0.8) -> Ratings:
        """1 or 0 where that is at least so probable and some function said something."""
        sure = np.maximum(self.probabilities, 1 - self.probabilities) >= least
        label = (self.probabilities >= 0.5).astype(int)
        return np.where(sure & (self.n_said > 0), label, ABSTAIN)


def label_model(said: Ratings) -> LabelModel:
    """Fit the model to votes of shape (session, function); no label is looked at."""
    found = dawid_skene(one_hot(said, 3), n_classes=2)
    n_said = ((said == 0) | (said == 1)).sum(axis=1)
    return LabelModel(found.posteriors[:, 1], found, n_said)


@dataclass(frozen=True)
class OfFunction:
    """A function in numbers.  A share of nothing is NaN."""

    name: str
    version: int
    owner: str
    n_sessions: int
    coverage: float  # share of the sessions of which it says 1 or 0
    overlaps: float  # share of which another one says something too
    conflicts: float  # share of which another one says the opposite
    n_gold: int  # sessions with a known label of which it says something
    gold_accuracy: float
    estimated_accuracy: float  # by the label model, without any label


def table(
    functions: Sequence[LabellingFunction], said: Ratings, model: LabelModel, gold: Ratings
) -> list[OfFunction]:
    """Coverage, conflicts and accuracy of each function.

    Parameters
    ----------
    gold : array of shape (session,)
        The label that people agreed on, MISSING where there is none.
    """
    rows = []
    for number, function in enumerate(functions):
        own, others = said[:, number], np.delete(said, number, axis=1)
        says = (own == 0) | (own == 1)
        known = says & (gold != MISSING)
        heard = ((others == 0) | (others == 1)).any(axis=1)
        against = (others == (1 - own)[:, None]).any(axis=1)
        rows.append(
            OfFunction(
                name=function.name,
                version=function.version,
                owner=function.owner,
                n_sessions=len(own),
                coverage=share_of(says),
                overlaps=share_of(says & heard),
                conflicts=share_of(says & against),
                n_gold=int(known.sum()),
                gold_accuracy=share_of(own[known] == gold[known]),
                estimated_accuracy=float(model.found.accuracies[number]),
            )
        )
    return rows


@dataclass(frozen=True)
class Renewed:
    """What the functions say now of all sessions, and what of it is new in the store."""

    n_sessions: int
    n_abstained: int  # the label model is not sure, or no function says anything
    n_new: int  # events
    functions: tuple[OfFunction, ...]


def renew(
    connection: Connection, sessions: Mapping[str, tuple[datetime, Facts]], gold: Mapping[str, int]
) -> Renewed:
    """Record what the functions say of sessions, where it is not what the store has already.

    An event has the probability, and each function that said something with its version.  Where the
    label model abstains, its label is None.  Of a session of which nothing was ever said there is
    no event.

    Parameters
    ----------
    sessions
        By session id, when it was recorded and what is known of it; all are items of the store.
    gold
        By session id, the label that people agreed on.
    """
    store.serialise(connection)  # two who fit at once would both record
    at = now()
    current = {
        event.item_id: (event.label, event.value)
        for event in store.labels_as_of(connection, at)
        if (event.source, event.annotator, event.quantity) == ("weak", MODEL, LABEL)
    }
    ids = sorted(sessions)
    said = votes(FUNCTIONS, [sessions[one][1] for one in ids])
    model = label_model(said)
    names = [f"{function.name} {function.version}" for function in FUNCTIONS]
    new = []
    for number, (session_id, label) in enumerate(zip(ids, model.labels(), strict=True)):
        probability = round(float(model.probabilities[number]), 6)
        answers = {
            name: int(one)
            for name, one in zip(names, said[number], strict=True)
            if one not in {MISSING, ABSTAIN}
        }
        value = {"probability": probability, "functions": answers}
        event = LabelEvent(
            item_kind="session",
            item_id=session_id,
            label=None if label == ABSTAIN else int(label),
            source="weak",
            annotator=MODEL,
            valid_from=sessions[session_id][0],
            recorded_at=at,
            unique_key=f"weak:{MODEL}:{session_id}:{at.isoformat()}",
            value=value,
            confidence=max(probability, round(1 - probability, 6)),
        )
        is_known = current.get(session_id) == (event.label, value)
        if not is_known and (answers or session_id in current):
            new.append(event)
    known = np.array([gold.get(one, MISSING) for one in ids], dtype=int)
    return Renewed(
        n_sessions=len(ids),
        n_abstained=int((model.labels() == ABSTAIN).sum()),
        n_new=store.record_all(connection, new),
        functions=tuple(table(FUNCTIONS, said, model, known)),
    )
