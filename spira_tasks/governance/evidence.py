"""What speaks for a model beside its own test: what its recipe came to elsewhere, and the ledger.

Experiments leave evidence about a recipe in documents, ``evidence/<kind>/<recipe>.json``.  The
ledger of reads of the sealed test people is in the audit log: an event ``test_read`` for each model
that was measured on them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal, get_args

from expectations import policy
from expectations.gates import evidence as gates
from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import canonical_json
from spira_tasks.contract.run import EXPERIMENT, TRIAL
from spira_tasks.contract.verdict import is_small
from spira_tasks.evaluation import budget
from spira_tasks.governance import audit, decisions
from spira_tasks.governance.inventory import find_file, read_columns

if TYPE_CHECKING:
    import pandas as pd

    from expectations.policy import Rules
    from spira_tasks.artifacts import Directory
    from spira_tasks.contract.verdict import Verdict
    from spira_tasks.tracking import Registered
    from spira_tasks.work import PlatformWork

Kind = Literal["unseen_sites", "cross_cohort", "seed_stability"]
FOLDER = "evidence"
READ = "test_read"  # action of an event
# Of a training: what changes from one seed or machine to the next, and no recipe.
NOT_RECIPE = {"seed", "device", "n_threads", "n_processes", "departures"}


@dataclass(frozen=True)
class Read:
    """One look at the sealed test people: the evaluation of one classifier on them."""

    run: str
    classifier: str  # digest
    recordings: str  # digest of the table that says who they are
    holds: bool  # whether its claim held at the part of alpha that one read may spend

    @property
    def identity(self) -> tuple[str, str]:
        """The same classifier on the same people is one read, however often it is run."""
        return self.classifier, self.recordings


def collect(
    challenger: Registered,
    evaluation: Mapping[str, Any],
    recordings: Directory,
    report: Directory,
    work: PlatformWork,
) -> dict[str, Any]:
    """All that ``expectations.gates.evidence`` judges.

    Parameters
    ----------
    evaluation : mapping
        Content of ``evaluation.json`` in ``report``.
    recordings, report : Directory
        What the model was tested on, and what it said of them.
    """
    import pandas as pd

    from spira_tasks.evaluation import labels
    from spira_tasks.tracking import Tracker

    store = work.store
    model = Tracker(store.tracking_uri).artifacts_of(challenger).get("model", "")
    settings = json.loads(find_file(store, model, "training.json") or b"{}") if model else {}
    recipe = recipe_of(store, model) if model else None
    table = pd.read_parquet(recordings.path("recordings.parquet"))
    predictions = pd.read_parquet(report.path("predictions.parquet"))
    own = (work.run_id, challenger.classifier, recordings.digest)
    found = {
        kind: find(store, kind, recipe, synthetic=evaluation["synthetic"])
        for kind in get_args(Kind)
    }
    if at_sites := found["unseen_sites"]:
        at_sites["levels"] = unnamed(at_sites["levels"], table["hospital_id"])
    return {
        "is_checked": challenger.tags.get("spira.servable") == "true",
        "test_budget": of_test_set(store, policy.read().rules, evaluation, own),
        "label_quality": {**labels.quality(table, predictions), **_said(store, work.run_id)},
        "missingness": labels.missingness(table),
        "seed": settings.get("seed"),
        **found,
    }


def unnamed(levels: Mapping[str, Any], hospitals: pd.Series) -> dict[str, Any]:
    """Levels by the numbers of their hospitals, which the pages of the run have too.

    A hospital with too few of the rows of ``hospitals`` has no number there, and the next one here.
    """
    import pandas as pd

    from spira_tasks.evaluation.slices import numbered

    names = pd.Series([*levels])
    numbers = numbered(names, hospitals)
    n_numbered = numbered(hospitals, hospitals).nunique()
    after = numbers.isna().cumsum() + n_numbered
    keys = numbers.fillna("#" + after.astype(str))
    return dict(zip(keys, levels.values(), strict=True))


def verdicts(
    challenger: Registered,
    evaluation: Mapping[str, Any],
    recordings: Directory,
    report: Directory,
    work: PlatformWork,
) -> list[Verdict]:
    """What speaks for a version beside its own test; takes what ``collect`` takes."""
    found = collect(challenger, evaluation, recordings, report, work)
    return gates.verdicts(found, policy.read().rules)


def recipe_of(store: Store, model: str) -> str | None:
    """A name for how a model, by its digest, was trained, whatever the seed and the people.

    None where the store has no such model any more.
    """
    parts = []
    for name, keys in (
        ("training.json", None),
        ("classifier.json", ("features", "implementation")),
    ):
        content = find_file(store, model, name)
        if content is None:
            return None
        found = json.loads(content)
        parts.append(
            {k: v for k, v in found.items() if k in (keys or found) and k not in NOT_RECIPE}
        )
    return sha256(b"spira.recipe/1\0" + canonical_json({"parts": parts})).hexdigest()[:32]


def _said(store: Store, run_id: str) -> dict[str, Any]:
    """What the sheet of the snapshot said of the labels; None where the data were no snapshot."""
    ingest = store.runs.step(run_id, "ingest")
    said = {one.id: one for one in ingest.verdicts} if ingest else {}
    agreement, second = said.get("label_agreement"), said.get("second_opinion")
    alone = second.observed.value if second and second.observed else None
    if second and alone is not None and is_small(round(alone * (second.n or 0))):
        alone = None  # with the number of sessions the share gives the count back
    return {
        "is_doubted": any(one and one.status != "pass" for one in (agreement, second)),
        "agreement": agreement.observed.value if agreement and agreement.observed else None,
        "alone": alone,
    }


def publish(store: Store, kind: Kind, recipe: str, content: Mapping[str, Any]) -> None:
    """Keep what an experiment found about a recipe; the newest counts."""
    store.documents.write_sealed(f"{FOLDER}/{kind}/{recipe}.json", {**content, "at": audit.now()})


def find(store: Store, kind: Kind, recipe: str | None, *, synthetic: bool) -> dict[str, Any] | None:
    """The newest evidence of a kind about a recipe; None where there is none, or it was changed.

    What invented people show counts only for a model that is ``synthetic`` too.  ``digest`` is that
    of what was found, whenever that was.
    """
    found = store.documents.read_sealed(f"{FOLDER}/{kind}/{recipe}.json") if recipe else None
    if found is None or (found["synthetic"] and not synthetic):
        return None
    return found | {"digest": decisions.digest({**found, "at": ""})}


def of_test_set(
    store: Store, rules: Rules, evaluation: Mapping[str, Any], own: tuple[str, str, str]
) -> dict[str, Any]:
    """Enter every read of the test people in the ledger, and say what it leaves for one of them.

    Parameters
    ----------
    evaluation : mapping
        Content of ``evaluation.json`` of the model that is judged.
    own : tuple of str
        Its run, its classifier, and the table of recordings that it was measured on.

    Returns
    -------
    dict
        ``n_reads``, of the same people or of some of them, this one with them; ``n_left``, how many
        more may fail, this one with them; ``alpha``, the part of one read; ``holds``, whether the
        claim of this one held at that; and ``hypothesis``.
    """
    rule, limit = rules.test_budget, rules.auc_above_chance.min_auc
    alpha = rule.alpha / rule.max_reads

    def holds(auc: float | None, n_patients: float, n_controls: float) -> bool:
        if auc is None or not (n_patients and n_controls):
            return False
        return budget.p_value(auc, int(n_patients), int(n_controls), limit) <= alpha

    auc = evaluation["conditions"]["clean"]["auc"]["value"]
    mine = Read(*own, holds(auc, evaluation["n_patients"], evaluation["n_controls"]))
    known = ledger(store)
    names = ("n_patients", "n_controls")
    for run_id in store.runs.ids():
        record = None
        if not run_id.startswith((TRIAL, EXPERIMENT)):  # these read folds
            record = store.runs.step(run_id, "evaluate")
        if record is None or record.state != "done":
            continue
        recordings = store.runs.read(run_id).inputs("evaluate").get("recordings", "")
        measured = record.metrics
        held = holds(measured.get("auc"), *(measured.get(name, 0) for name in names))
        read = Read(run_id, record.outputs.get("classifier", ""), recordings, held)
        _enter(store, known, read, alpha, limit)
    _enter(store, known, mine, alpha, limit)
    before = []
    for read in known.values():
        if read.identity == mine.identity:
            break
        before.append(read)
    today = _people(store, mine.recordings)
    shares = [_share(today, _people(store, read.recordings)) for read in before]
    spent = budget.spent(((r.holds, s) for r, s in zip(before, shares, strict=True)), alpha)
    return {
        "hypothesis": hypothesis(limit),
        "alpha": alpha,
        "holds": known[mine.identity].holds,
        "n_reads": sum(share > 0 for share in shares) + 1,
        "n_left": round((rule.alpha - spent) / alpha, 6),
    }


def n_measured_since(store: Store, champion: str, challenger: str, recordings: str) -> float:
    """How many other models the ledger has between the champion and a challenger.

    Both are digests of classifiers; ``recordings``, that of the table with the people of today.  A
    model counts by the share of these people that it was measured on.  A challenger that was
    measured before the champion comes after all others, and so does what the ledger lacks.
    """
    reads = [*ledger(store).values()]
    own = next((n for n, one in enumerate(reads) if one.classifier == champion), -1)
    since = list(takewhile(lambda one: one.classifier != challenger, reads[own + 1 :]))
    today = _people(store, recordings)
    tables = {one.recordings for one in since}
    shares = {table: _share(today, _people(store, table)) for table in tables}
    return sum(shares[one.recordings] for one in since if one.classifier != champion)


def hypothesis(limit: float) -> str:
    """The claim of every read, as the ledger names it."""
    return f"auc > {limit}"


def ledger(store: Store) -> dict[tuple[str, str], Read]:
    """All reads that the audit log has, the first one first."""
    found: dict[tuple[str, str], Read] = {}
    for event in audit.events(store):
        if event.action == READ:
            names = ("run", "classifier", "recordings", "holds")
            read = Read(*(event.details[name] for name in names))
            found.setdefault(read.identity, read)
    return found


def _enter(
    store: Store, known: dict[tuple[str, str], Read], read: Read, alpha: float, limit: float
) -> None:
    if read.identity in known:
        return
    spends = 0.0 if read.holds else alpha
    details = {**vars(read), "hypothesis": hypothesis(limit), "alpha_spent": spends}
    audit.record(store, READ, details)
    known[read.identity] = read


def _people(store: Store, recordings: str) -> set[str] | None:
    """The test people of a table; None where it is gone."""
    content = find_file(store, recordings, "recordings.parquet") if recordings else None
    if content is None:
        return None
    table = read_columns(content, ("subject_id", "split"))
    return set(table.loc[table["split"] == "test", "subject_id"])


def _share(today: set[str] | None, then: set[str] | None) -> float:
    """Of the people of today, the share that an earlier read saw; all, where nobody knows."""
    if not today or then is None:
        return 1.0
    return len(today & then) / len(today)
