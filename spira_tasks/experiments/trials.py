"""The trials of an experiment: which are missing, and how each comes to its result.

A trial is an ordinary run of the pipeline ``TRIAL`` whose id is a hash of its steps, of what they
read and of the code that they run.  So nobody keeps a list of trials: the same experiment asks for
the same ids, and what has a result is not run again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from statistics import mean
from typing import Any

from spira_tasks import provenance, scratch
from spira_tasks.artifacts import Store
from spira_tasks.contract.pipelines import BEFORE_FOLDS, TRIAL
from spira_tasks.contract.run import EXPERIMENT, StepRecord
from spira_tasks.contract.run import TRIAL as TRIAL_RUN
from spira_tasks.contract.step import Step
from spira_tasks.contract.verdict import shown_metrics
from spira_tasks.errors import ArtifactCorrupt, ConfigError, GateRejected, ServiceUnavailable
from spira_tasks.experiments import search
from spira_tasks.experiments.declaration import LEVELS, Experiment, Search, parse
from spira_tasks.experiments.search import Point
from spira_tasks.governance import decisions
from spira_tasks.governance.inventory import read_table
from spira_tasks.runner import check, load, run_step, spec_of

log = logging.getLogger(__name__)

FOLDER = "experiments"  # of documents in the store
LAST = "evaluate"
OWN_STEPS = tuple(step.name for step in TRIAL if step.name not in BEFORE_FOLDS)
# Of failed steps: these say nothing of the trial, and it is tried again;
PASSING = ("Stopped", ServiceUnavailable.__name__, ArtifactCorrupt.__name__)
# of these a person reads the message.  Any other error is a bug, of ours or of a package.
OUT_OF_MEMORY = "OutOfMemory"
FORESEEN = (GateRejected.__name__, ConfigError.__name__, OUT_OF_MEMORY)
ITSELF = "trial"  # the record of the trial as a whole, beside those of its steps
MOST_KILLS = 2  # by the kernel, for want of memory; then a trial has failed


@dataclass(frozen=True)
class Trial:
    """One run: what is varied, and where it is measured."""

    arm: str  # empty for a point of a search
    settings: Mapping[str, Any]
    seed: int
    fold: int | None  # of the outer folds; None: they do not matter
    inner_fold: int | None = None
    point: tuple[int, int] | None = None  # which search, and which of its points

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def where(self) -> str:
        """The trial in words."""
        inner = "" if self.inner_fold is None else f" inner fold {self.inner_fold + 1}"
        outer = "" if self.fold is None else f" fold {self.fold + 1}"
        point = f"search {self.point[0] + 1} point {self.point[1] + 1}" if self.point else self.arm
        return f"{point}, seed {self.seed}{outer}{inner}"


def trials_of(content: bytes) -> list[Trial]:
    """The trials of a ``plan.json``."""
    rows = json.loads(content)["trials"]
    return [Trial(**row | {"point": row["point"] and tuple(row["point"])}) for row in rows]


@dataclass(frozen=True)
class Round:
    """Trials that can run at the same time, and how many are to come at most."""

    trials: Sequence[Trial]
    n_later: int


class Runs:
    """The trials of one experiment in one store.

    Parameters
    ----------
    since : str
        UTC, ISO 8601: a trial that failed before is tried again.
    """

    def __init__(self, experiment: Experiment, data: str, store: Store, since: str = "") -> None:
        self.experiment, self.store, self.since = experiment, store, since
        self.data = experiment.data or data
        if not self.data:
            raise ConfigError(
                f"experiment {experiment.name} names no data: give it at the start, or add "
                'data = "…" to the file'
            )
        self.study: dict[int, list[Point]] = {}  # points by search, as far as they are known
        self._records: dict[str, StepRecord] = {}  # of finished trials, by id

    @property
    def run_id(self) -> str:
        """Of the steps that all trials share."""
        return f"{EXPERIMENT}{self.experiment.name}"

    @cached_property
    def shared(self) -> dict[str, str]:
        """Outputs of the steps before the folds, ``"<step>.<output>"`` to digest; made if need be.

        Raises ConfigError when a setting of an arm is wrong, before anything runs, and GateRejected
        when a gate refuses the recordings.
        """
        one = self.experiment
        for settings in one.samples():
            for step in TRIAL.configure(settings={**one.fixed, **settings}):
                check(step)
        pipeline = TRIAL.configure(data=self.data, settings=one.fixed)
        found: dict[str, str] = {}
        for step in pipeline:
            if step.name in BEFORE_FOLDS:
                result = run_step(step, self.run_id, self.store)
                found |= {f"{step.name}.{output}": d for output, d in result.outputs.items()}
        return found

    @classmethod
    def of_plan(cls, content: bytes, store: Store) -> Runs:
        """The trials of an experiment whose shared steps ran elsewhere, by ``plan.json``."""
        plan = json.loads(content)
        runs = cls(parse(plan["experiment"], "the plan"), plan["data"], store, plan["since"])
        runs.shared = plan["shared"]
        return runs

    def plan(self, text: str, trials: Sequence[Trial]) -> dict[str, Any]:
        """What ``of_plan`` and ``trials_of`` read; ``text`` is that of the experiment's file."""
        return {
            "experiment": text,
            "data": self.data,
            "since": self.since,
            "shared": self.shared,
            "trials": [trial.to_json() for trial in trials],
        }

    @cached_property
    def levels(self) -> list[str]:
        """What is measured one after the other in place of folds: hospitals, or studies.

        Those of the sealed people alone are none of them.  Empty for an experiment by folds.
        """
        column = LEVELS.get(self.experiment.folds)
        if column is None:
            return []
        table = read_table(self.store, self.shared["split.recordings"], "recordings.parquet")
        rows = table[(table["split"] != "test") & table["label"].notna()]
        return sorted(rows[column].dropna().astype("str").unique())

    @property
    def n_folds(self) -> int:
        """How many folds, or levels, are measured."""
        return self.experiment.n_folds if self.experiment.folds == "subject" else len(self.levels)

    def steps(self, trial: Trial) -> list[Step]:
        """The steps of a trial; what comes before the folds is named by its digest."""
        one = self.experiment
        settings = {
            **one.fixed,
            **trial.settings,
            "train.seed": trial.seed,
            "fold.n_folds": one.n_folds,
            "fold.fold": trial.fold,
        }
        if self.levels and trial.fold is not None:
            settings |= {
                "fold.fold": 0,
                "fold.column": LEVELS[one.folds],
                "fold.level": self.levels[trial.fold],
            }
        if trial.inner_fold is not None and one.search is not None:
            settings["fold.n_inner_folds"] = one.search.n_inner_folds
            settings["fold.inner_fold"] = trial.inner_fold
        pipeline = TRIAL.configure(settings=settings)
        return [
            replace(step, inputs={n: self.shared.get(r, r) for n, r in step.inputs.items()})
            for step in pipeline
            if step.name in OWN_STEPS
        ]

    def id_of(self, trial: Trial) -> str:
        parts = [
            [step.to_json(), *_what_runs(step.stage), *self._decisions(step.stage)]
            for step in self.steps(trial)
        ]
        return TRIAL_RUN + hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]

    def _decisions(self, stage: str) -> list[str]:
        return [self._in_force[kind] for kind in spec_of(stage).decisions]

    @cached_property
    def _in_force(self) -> dict[str, str]:
        kinds = {kind for step in TRIAL for kind in spec_of(step.stage).decisions}
        return {kind: decisions.in_force(self.store, kind).digest for kind in kinds}

    def record(self, trial: Trial) -> StepRecord | None:
        """The last step of a trial that is done and whole; or the step that failed last."""
        run_id = self.id_of(trial)
        if run_id in self._records:
            return self._records[run_id]
        found = self.store.runs.step(run_id, LAST)
        if found is None or found.state != "done":
            steps = self.store.runs.read(run_id).steps.values()
            failed = (one for one in steps if one.state != "done")
            found = max(failed, key=lambda one: one.finished_at, default=None)
        if found is not None and found.state != "done":
            is_outcome = found.error not in PASSING and found.finished_at >= self.since
            found = found if is_outcome else None
        elif found is not None and self.store.find_result(found.key) is None:
            found = None  # past its retention
        if found is not None:
            self._records[run_id] = found
        return found

    def value(self, trial: Trial) -> float | None:
        """What a finished trial came to; None where it failed."""
        record = self.record(trial)
        metric = self.experiment.metric
        return record.metrics[metric] if record and record.state == "done" else None

    def shown(self, trial: Trial) -> float | None:
        """As ``value``; None also where the fold has so few people that it tells of them."""
        record = self.record(trial)
        if record is None or record.state != "done":
            return None
        return shown_metrics(record.metrics)[self.experiment.metric]

    def run(self, trial: Trial) -> None:
        """Bring a trial to its result; one that fails leaves a record that says why.

        What another process of this machine runs meanwhile is waited for, and found.

        Raises
        ------
        ServiceUnavailable, ArtifactCorrupt
            What is no fault of the trial: started again, it goes on.
        """
        run_id = self.id_of(trial)
        with scratch.alone(f"trial {run_id}", self.store.url):
            self._records.pop(run_id, None)
            if self.record(trial) is None:
                self._run(trial, run_id)

    def _run(self, trial: Trial, run_id: str) -> None:
        if self._begin(trial, run_id) == MOST_KILLS:
            return
        try:
            for step in self.steps(trial):
                run_step(step, run_id, self.store)
        except (ServiceUnavailable, ArtifactCorrupt):
            raise
        except (GateRejected, ConfigError) as error:
            log.warning("%s failed: %s", trial.where, error)
        except Exception:  # the others go on; the record and the exit status say it
            log.exception("%s failed", trial.where)
        finally:
            self._note(run_id, state="done")

    def _begin(self, trial: Trial, run_id: str) -> int:
        """Leave a record that stays where the process is killed; count the kills for memory so far.

        The kernel kills a process that takes too much memory without a word.  It counts them, so
        where it has counted one since a try began that did not end, it is taken for that try.
        """
        before, (boot, n_kills) = self.store.runs.step(run_id, ITSELF), memory_kills()
        n = 0
        if before is not None and before.error == PASSING[0] and before.finished_at >= self.since:
            is_one = before.provenance["boot"] == boot and before.metrics["n_kills"] < n_kills
            n = int(before.metrics["n_out_of_memory"]) + is_one
            log.warning("%s began before and did not end", trial.where)
        error, message = PASSING[0], "it began and did not end"
        if n == MOST_KILLS:
            error = OUT_OF_MEMORY
            message = (
                f"the kernel killed it {n} times for want of memory: give it more (memory_mib of "
                "[steps.trial] in the site file), or set a smaller train.batch_size; then try the "
                "failed trials again"
            )
            log.warning("%s failed: %s", trial.where, message)
        self._note(
            run_id,
            state="failed",
            error=error,
            message=message,
            metrics={"n_out_of_memory": float(n), "n_kills": float(n_kills)},
            provenance={"boot": boot},
        )
        return n

    def _note(self, run_id: str, **fields: Any) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self.store.runs.write(
            run_id, StepRecord(ITSELF, ITSELF, finished_at=at, seconds=0, **fields)
        )

    @property
    def has_bugs(self) -> bool:
        """Whether a trial that was looked at ended with an error that nobody foresaw."""
        return any(one.error not in ("", *FORESEEN) for one in self._records.values())

    def next_round(self) -> Round:
        """The trials that can run now and have no result; none where the experiment is over."""
        if self.experiment.search is not None:
            missing, n_later = self._search(self.experiment.search)
            if missing:
                return Round(missing, n_later)
        trials = [trial for trial in self.measured() if self.record(trial) is None]
        return Round(trials, 0)

    def _search(self, wanted: Search) -> tuple[list[Trial], int]:
        """Go through every search as far as its results are known."""
        missing: list[Trial] = []
        n_later = 2 * self.experiment.n_folds * len(self.experiment.seeds)
        folds = range(self.experiment.n_folds) if wanted.nested else ()
        for number, fold in enumerate((None, *folds)):
            points = self.study.setdefault(number, [])  # of rounds that are over
            while proposed := search.propose(wanted, points, number):
                trials = [
                    self.of_point(number, fold, len(points) + n, settings)
                    for n, settings in enumerate(proposed)
                ]
                here = [t for of_one in trials for t in of_one if self.record(t) is None]
                if here:
                    missing += here
                    n_left = wanted.budget - len(points) - len(proposed)
                    n_later += n_left * wanted.n_inner_folds
                    break
                points += [
                    Point(settings, _mean([self.value(trial) for trial in of_one]))
                    for settings, of_one in zip(proposed, trials, strict=True)
                ]
        return missing, n_later

    def of_point(
        self, number: int, fold: int | None, place: int, settings: Mapping[str, Any]
    ) -> list[Trial]:
        """The trials of one point: every inner fold measures it."""
        assert self.experiment.search is not None  # noqa: S101
        seed = self.experiment.seeds[0]
        n_inner = self.experiment.search.n_inner_folds
        return [Trial("", settings, seed, fold, inner, (number, place)) for inner in range(n_inner)]

    def measured(self) -> Iterator[Trial]:
        """The trials that are compared.  Of a search, what it chose without the fold it is for.

        Raises GateRejected where all points of a search failed.
        """
        one = self.experiment
        arms: list[tuple[str, Sequence[Mapping[str, Any]]]]
        if one.search is None:
            arms = [(name_of(cell), [cell] * self.n_folds) for cell in one.cells()]
        else:
            numbers = [fold + 1 if one.search.nested else 0 for fold in range(one.n_folds)]
            chosen = [self.chosen(number) for number in numbers]
            arms = [(AS_THEY_STAND, [{}] * one.n_folds), (CHOSEN, chosen)]
        for arm, by_fold in arms:
            for seed in one.seeds:
                for fold, settings in enumerate(by_fold):
                    yield Trial(arm, settings, seed, fold)

    def searched(self) -> list[Trial]:
        """The trials of all known points of the searches."""
        return [
            trial
            for number, points in self.study.items()
            for place, point in enumerate(points)
            for trial in self.of_point(
                number, number - 1 if number else None, place, point.settings
            )
        ]

    def chosen(self, number: int) -> Mapping[str, Any]:
        """The best settings of a finished search; number 0 is the one over all folds."""
        found = search.best(self.study[number])
        if found is None:
            raise GateRejected(
                f"experiment {self.experiment.name}: every point of search {number + 1} failed; "
                "their runs say why"
            )
        return found.settings

    def write_study(self) -> None:
        """Keep the points of the searches where people find them; no program reads the file."""
        if self.experiment.search is None:
            return
        content = {
            str(number): [
                {
                    "settings": dict(point.settings),
                    "value": point.value,
                    "state": "failed" if point.value is None else "complete",
                }
                for point in points
            ]
            for number, points in self.study.items()
        }
        self.store.documents.write(f"{FOLDER}/{self.experiment.name}/study.json", content)


AS_THEY_STAND, CHOSEN = "as_they_stand", "chosen"  # arms of a search; their words are elsewhere


def name_of(settings: Mapping[str, Any]) -> str:
    """Name of an arm: its values, with their keys where these say more."""
    short = ("train.model", "materialize.feature", "train.preset")
    parts = [
        (str(value) or "default") if key in short else f"{key.partition('.')[2]}={value}"
        for key, value in settings.items()
    ]
    return ", ".join(parts)


def _mean(values: Sequence[float | None]) -> float | None:
    """None where one is missing."""
    found = [value for value in values if value is not None]
    return mean(found) if len(found) == len(values) else None


def memory_kills() -> tuple[str, int]:
    """Which start of which kernel this is, and how many processes it has killed for memory."""
    boot, counts = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/vmstat")
    if not (boot.is_file() and counts.is_file()):
        return "", 0  # not Linux
    found = dict(line.split() for line in counts.read_text().splitlines())
    return boot.read_text().strip(), int(found.get("oom_kill", 0))


@cache
def _what_runs(stage: str) -> tuple[str, str]:
    module = load(stage).__name__
    return provenance.code_digest(module), provenance.packages_digest(module)
