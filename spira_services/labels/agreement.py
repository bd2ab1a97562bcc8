"""How far the clinicians of the store agree: their events as a table, and its statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from spira_services.labels import reliability
from spira_services.labels.reliability import MISSING, Agreement, DawidSkene, Ratings
from spira_services.labels.store import LABEL, LabelEvent

Item = tuple[str, str]  # kind and id


@dataclass(frozen=True)
class Table:
    """What each clinician said first, before seeing what a program says: a row an item."""

    items: tuple[Item, ...]
    annotators: tuple[str, ...]
    ratings: Ratings  # (item, annotator); "cannot tell" is MISSING
    versions: npt.NDArray[np.str_]  # (item, annotator): of the instruction

    @classmethod
    def of(cls, events: Iterable[LabelEvent]) -> Table:
        """The table of events in the order of recording, as ``events_as_of`` gives them."""
        first: dict[tuple[Item, str], LabelEvent] = {}
        for event in events:
            if event.source == "clinician" and event.quantity == LABEL:
                first.setdefault(((event.item_kind, event.item_id), event.annotator), event)
        items = sorted({item for item, _ in first})
        annotators = sorted({annotator for _, annotator in first})
        row, column = ({name: i for i, name in enumerate(names)} for names in (items, annotators))
        ratings = np.full((len(items), len(annotators)), MISSING)
        versions = np.full(ratings.shape, "", dtype=object)
        for (item, annotator), event in first.items():
            place = row[item], column[annotator]
            ratings[place] = MISSING if event.label is None else event.label
            versions[place] = event.instruction_version
        return cls(tuple(items), tuple(annotators), ratings, versions.astype(str))

    def dawid_skene(self) -> DawidSkene:
        return reliability.dawid_skene(reliability.one_hot(self.ratings, 2))


@dataclass(frozen=True)
class OfAnnotator:
    """One annotator, by pseudonym."""

    annotator: str
    n_items: int
    share_positive: float
    accuracy: float  # by Dawid and Skene: no truth is known
    sensitivity: float
    specificity: float
    n_gold: int  # items whose answer an adjudicator gave
    gold_accuracy: float


@dataclass(frozen=True)
class Pair:
    first: str
    second: str
    n_items: int  # that both labelled
    kappa: float


@dataclass(frozen=True)
class Report:
    """Agreement as of a time.  What nothing can be computed from is NaN."""

    overall: Agreement
    pairs: tuple[Pair, ...]
    annotators: tuple[OfAnnotator, ...]
    by_instruction: Mapping[str, Agreement]
    hardest: tuple[tuple[Item, float, float], ...]  # disagreement and difficulty, hardest first
    converged: bool


N_HARDEST = 20


def report(events: Iterable[LabelEvent]) -> Report:
    """The statistics of events in the order of recording."""
    events = list(events)
    table = Table.of(events)
    gold = np.full(len(table.items), MISSING)
    judged: dict[Item, int | None] = {
        (event.item_kind, event.item_id): event.label
        for event in events
        if event.source == "adjudication" and event.quantity == LABEL
    }
    for number, item in enumerate(table.items):
        label = judged.get(item)
        gold[number] = MISSING if label is None else label
    found = table.dawid_skene()
    disagreement = reliability.disagreement(table.ratings)
    order = sorted(
        np.flatnonzero(disagreement > 0),
        key=lambda n: (-disagreement[n], -found.difficulty[n], table.items[n]),
    )
    return Report(
        overall=reliability.agreement(table.ratings),
        pairs=tuple(pairs_of(table)),
        annotators=tuple(_annotators(table, found, gold)),
        by_instruction=reliability.agreement_by_version(table.ratings, table.versions),
        hardest=tuple(
            (table.items[n], float(disagreement[n]), float(found.difficulty[n]))
            for n in order[:N_HARDEST]
        ),
        converged=found.converged,
    )


def pairs_of(table: Table) -> Iterable[Pair]:
    for i, j in combinations(range(len(table.annotators)), 2):
        first, second = table.ratings[:, i], table.ratings[:, j]
        n_items = int(((first != MISSING) & (second != MISSING)).sum())
        if n_items:
            kappa = reliability.cohens_kappa(first, second)
            yield Pair(table.annotators[i], table.annotators[j], n_items, kappa)


def mean_kappa(pairs: Iterable[Pair]) -> float:
    """Cohen's kappa over all pairs, each weighted by the items that they share."""
    known = [pair for pair in pairs if not np.isnan(pair.kappa)]
    n = sum(pair.n_items for pair in known)
    return sum(pair.kappa * pair.n_items for pair in known) / n if n else float("nan")


def _annotators(table: Table, found: DawidSkene, gold: Ratings) -> Iterable[OfAnnotator]:
    for number, annotator in enumerate(table.annotators):
        theirs = table.ratings[:, number]
        given, compared = theirs != MISSING, (theirs != MISSING) & (gold != MISSING)
        yield OfAnnotator(
            annotator=annotator,
            n_items=int(given.sum()),
            share_positive=reliability.share_of(theirs[given] == 1),
            accuracy=float(found.accuracies[number]),
            sensitivity=float(found.confusions[number, 1, 1]),
            specificity=float(found.confusions[number, 0, 0]),
            n_gold=int(compared.sum()),
            gold_accuracy=reliability.share_of(theirs[compared] == gold[compared]),
        )
