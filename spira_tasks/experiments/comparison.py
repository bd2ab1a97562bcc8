"""Compare arms on the same people: intervals, paired tests, costs, and the seed to ship.

Every arm answers about the same recordings, each by a model that was trained without their person.
Operating points differ from model to model, so scores are log-odds above the operating point of
their own model: they are positive where the model calls a patient.
"""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spira_tasks.artifacts import Store
from spira_tasks.contract import presets
from spira_tasks.contract.place import COMMAND
from spira_tasks.contract.run import Run, StepRecord
from spira_tasks.contract.verdict import MIN_CELL, is_small, shown_metrics
from spira_tasks.errors import ConfigError
from spira_tasks.evaluation import stability
from spira_tasks.evaluation.comparison import mcnemar
from spira_tasks.evaluation.stability import median_seed
from spira_tasks.governance import evidence
from spira_tasks.governance.inventory import read_columns, read_file
from spira_tasks.speech import metrics

if TYPE_CHECKING:
    from spira_tasks.experiments.trials import Runs
    from spira_tasks.speech.metrics import Array

N_RESAMPLES = 2000
SCORES = ("clean", "noise")
CONDITIONS = {
    "clean": "as recorded",
    "noise": "ward noise",
    "noise_controls": "ward noise on controls only",
}
COLUMNS = ("record_id", "subject_id", "split", "label", *SCORES)
KINDS: Mapping[str, evidence.Kind] = {"site": "unseen_sites", "cohort": "cross_cohort"}
MEASURES = ("auc", "balanced_accuracy", "accuracy", "f1", "sensitivity", "specificity")


@dataclass(frozen=True)
class Arm:
    """What is compared: a name, its settings, and its answers by seed.

    ``answers`` has a table a seed, with the columns of ``COLUMNS`` but ``split``, and margins in
    place of probabilities.
    """

    name: str
    settings: Mapping[str, Any]
    answers: Mapping[int, pd.DataFrame]
    n_trials: int = 1
    n_failed: int = 0
    costs: Mapping[str, float] = field(default_factory=dict)


def margins(store: Store, record: StepRecord) -> pd.DataFrame:
    """What a run answered about its test recordings, as log-odds above its operating point.

    Raises
    ------
    ConfigError
        When its predictions are past their retention.
    """
    digest = record.outputs["report"]
    found = read_columns(read_file(store, digest, "predictions.parquet"), COLUMNS)
    found = found[found["split"] == "test"].drop(columns="split")
    threshold = json.loads(read_file(store, digest, "evaluation.json"))["operating_point"]
    for condition in SCORES:
        scores = found[condition].astype(float)
        found[condition] = _log_odds(scores) - _log_odds(threshold)
    return found


def compare(arms: Sequence[Arm], metric: str = "auc") -> dict[str, Any]:
    """Measure the arms on the recordings that all of them answer about, and test the differences.

    The first arm is the reference that the others are tested against.

    Returns
    -------
    dict
        JSON without small counts: ``n_subjects``, ``n_patients``, ``n_controls``, ``arms`` and
        ``pairs``.  An arm without a seed that has answers on every fold is listed, and not
        measured.  Where a class has few people, nothing is measured.
    """
    measured = [arm for arm in arms if arm.answers]
    tables = [table for arm in measured for table in arm.answers.values()]
    shared = set.intersection(*(set(table["record_id"]) for table in tables)) if tables else set()
    first = _ordered(tables[0], shared) if tables else pd.DataFrame(columns=list(COLUMNS))
    people = first.drop_duplicates("subject_id")["label"]
    n_patients, n_controls = int((people == 1).sum()), int((people == 0).sum())
    found: dict[str, Any] = {
        "metric": metric,
        "n_recordings": _shown(len(first)),
        "n_subjects": _shown(len(people)),
        "n_patients": _shown(n_patients),
        "n_controls": _shown(n_controls),
        "arms": [_described(arm) for arm in arms],
        "pairs": [],
    }
    if min(n_patients, n_controls) < MIN_CELL:
        return found
    labels = first["label"].to_numpy(float)
    weights = metrics.subject_resamples(first["subject_id"].to_numpy(str), N_RESAMPLES, 0)
    samples: dict[str, dict[str, Array]] = {}
    for arm, described in zip(arms, found["arms"], strict=True):
        if not arm.answers:
            continue
        by_seed = {seed: _ordered(table, shared) for seed, table in arm.answers.items()}
        of_seeds = {s: _measure(labels, t["clean"], weights) for s, t in by_seed.items()}
        values = {seed: float(one[metric][0]) for seed, one in of_seeds.items()}
        samples[arm.name] = {
            name: np.mean([one[name] for one in of_seeds.values()], axis=0) for name in MEASURES
        }
        described["seeds"] = {str(seed): value for seed, value in values.items()}
        described["spread"] = stdev(values.values()) if len(values) > 1 else None
        described["median_seed"] = median_seed(values)
        described["conditions"] = {"clean": _estimates(samples[arm.name], n_patients, n_controls)}
        if any(table["noise"].isna().any() for table in by_seed.values()):
            continue
        on_controls = (t["noise"].where(labels == 0, t["clean"]) for t in by_seed.values())
        noisy = {"noise": (t["noise"] for t in by_seed.values()), "noise_controls": on_controls}
        for condition, scores in noisy.items():
            each = [_measure(labels, one, weights) for one in scores]
            means = {name: np.mean([one[name] for one in each], axis=0) for name in MEASURES}
            described["conditions"][condition] = _estimates(means, n_patients, n_controls)
    reference, *others = measured
    right = {
        arm.name: _right(_ordered(arm.answers[one["median_seed"]], shared))
        for arm, one in zip(arms, found["arms"], strict=True)
        if arm.answers
    }
    for other in others:
        n_only = [
            int((right[a.name] & ~right[b.name]).sum())
            for a, b in ((reference, other), (other, reference))
        ]
        found["pairs"].append(
            {
                "first": reference.name,
                "second": other.name,
                "differences": {
                    name: asdict(
                        metrics.estimate(samples[other.name][name] - samples[reference.name][name])
                    )
                    for name in MEASURES
                },
                **_tested(*n_only),
            }
        )
    # a hidden value counts as 1, so that no other one says what it is
    adjusted = holm([1.0 if pair["p"] is None else pair["p"] for pair in found["pairs"]])
    for pair, p in zip(found["pairs"], adjusted, strict=True):
        pair["p_holm"] = None if pair["p"] is None else p
    return found


def _tested(n_first: int, n_second: int) -> dict[str, float | None]:
    """McNemar's test of two counts of people; nothing of it where either count is small.

    A p-value gives a hidden count back, and so does the other count with the difference of the
    accuracies.
    """
    if is_small(n_first) or is_small(n_second):
        return dict.fromkeys(("n_only_first_right", "n_only_second_right", "p"))
    return {
        "n_only_first_right": n_first,
        "n_only_second_right": n_second,
        "p": mcnemar(n_first, n_second),
    }


def holm(values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm, Scandinavian Journal of Statistics 1979).

    Examples
    --------
    >>> holm([0.5, 0.25, 0.0625])
    [0.5, 0.5, 0.1875]
    """
    adjusted, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda one: values[one])):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = highest
    return adjusted


def of_experiment(runs: Runs) -> dict[str, Any]:
    """The comparison of an experiment of which no trial is missing."""
    from spira_tasks.experiments.trials import CHOSEN

    one, store = runs.experiment, runs.store
    arms, synthetic = [], False
    for name, group in itertools.groupby(runs.measured(), key=lambda trial: trial.arm):
        trials = list(group)
        done = [(trial, runs.record(trial)) for trial in trials]
        answers: dict[int, list[pd.DataFrame]] = {seed: [] for seed in one.seeds}
        for trial, record in done:
            if record is not None and record.state == "done":
                level = runs.levels[trial.fold or 0] if runs.levels else ""
                answers[trial.seed].append(margins(store, record).assign(level=level))
                synthetic = synthetic or _is_synthetic(store, record)
        n_measured = len(
            {trial.fold for trial, record in done if record and record.state == "done"}
        )
        # at a hospital with one class nothing can be measured, by any seed
        n_folds = n_measured if runs.levels else one.n_folds
        arms.append(
            Arm(
                name,
                runs.chosen(0) if one.search and name == CHOSEN else trials[0].settings,
                {
                    s: pd.concat(found)
                    for s, found in answers.items()
                    if found and len(found) == n_folds
                },
                n_trials=len(trials),
                n_failed=len(trials) - sum(map(len, answers.values())),
                costs=_costs(store, [runs.id_of(trial) for trial in trials]),
            )
        )
    found = compare(arms, one.metric)
    for arm in found["arms"]:
        if "median_seed" in arm:
            settings = {**one.fixed, **arm["settings"], "train.seed": arm["median_seed"]}
            arm["command"] = training_command(runs.data, settings)
        arm["published"] = published({**one.fixed, **arm["settings"]})
    names = {"name", "owner", "ends", "question", "n_folds", "folds"}
    about = one.model_dump(mode="json", include=names)
    _keep_evidence(runs, arms, synthetic=synthetic)
    searched = runs.searched()
    return {
        **about,
        "synthetic": synthetic,
        # whether the settings that a search chose are measured on what it chose them by
        "optimistic": one.search is not None and not one.search.nested,
        "n_points": len(searched) // one.search.n_inner_folds if one.search else 0,
        "search_costs": _costs(store, [runs.id_of(trial) for trial in searched]),
        "failures": _failures(runs),
        **found,
    }


def _failures(runs: Runs) -> list[dict[str, str]]:
    """The trials that failed: which, the run to look at, and why."""
    done = ((trial, runs.record(trial)) for trial in (*runs.searched(), *runs.measured()))
    return [
        {
            "trial": trial.where,
            "run": runs.id_of(trial),
            "step": record.step,
            "error": record.error or "blocked",
            "message": record.message,
        }
        for trial, record in done
        if record is not None and record.state != "done"
    ]


def _keep_evidence(runs: Runs, arms: Sequence[Arm], *, synthetic: bool) -> None:
    """Keep what an experiment says of each recipe, for a promotion to look up.

    A search has a recipe for each fold, so it says nothing of any.
    """
    one, store = runs.experiment, runs.store
    for arm in (arm for arm in arms if arm.answers and one.search is None):
        content: dict[str, Any] = {"experiment": one.name, "synthetic": synthetic}
        kind = KINDS.get(one.folds, "seed_stability")
        if kind != "seed_stability":
            found = stability.by_level([*arm.answers.values()], N_RESAMPLES, MIN_CELL)
            content["levels"] = {level: found.get(level, {}) for level in runs.levels}
        elif len(arm.answers) > 1:
            values = {seed: _value(table) for seed, table in arm.answers.items()}
            content |= stability.spread(values)
        else:
            continue
        trained = (
            store.runs.step(runs.id_of(trial), "train")
            for trial in runs.measured()
            if trial.arm == arm.name
        )
        models = {one.outputs["model"] for one in trained if one and "model" in one.outputs}
        for recipe in {evidence.recipe_of(store, model) for model in models}:
            if recipe is not None:
                evidence.publish(store, kind, recipe, content)


def _value(answers: pd.DataFrame) -> float:
    """The balanced accuracy of answers, which have margins above an operating point."""
    once = np.ones((1, len(answers)))
    labels = answers["label"].to_numpy(float)
    return float(_measure(labels, answers["clean"], once)["balanced_accuracy"][0])


def publish(runs: Runs) -> dict[str, Any]:
    """Compare; keep the comparison in the store, its plot beside it, and show both in MLflow."""
    from spira_tasks import scratch
    from spira_tasks.experiments import plots
    from spira_tasks.experiments.trials import FOLDER
    from spira_tasks.tracking import Tracker

    found = of_experiment(runs)
    name, store = runs.experiment.name, runs.store
    store.documents.write(f"{FOLDER}/{name}/comparison.json", found)
    with scratch.folder() as folder:
        files = plots.comparison(found, folder)
        tracker = Tracker(store.tracking_uri)
        parent = tracker.log_experiment(
            name,
            metrics={
                f"{arm['name']}: {measure}": one["value"]
                for arm in found["arms"]
                for measure, one in arm.get("conditions", {}).get("clean", {}).items()
            },
            tags={key: str(found[key]) for key in ("question", "owner", "ends", "synthetic")},
            files=files,
        )
        for trial in (*runs.searched(), *runs.measured()):
            run_id = runs.id_of(trial)
            train = store.runs.step(run_id, "train")
            record = runs.record(trial)
            if train is None or record is None or record.state != "done":
                continue
            measured = shown_metrics(record.metrics)
            tracker.log_trial(
                parent,
                train.key,
                f"{run_id}/train",
                metrics={k: v for k, v in measured.items() if v is not None},
                tags={"spira.trial": trial.where} | {k: str(v) for k, v in trial.settings.items()},
            )
        for file in files:
            place = store.folder / "reports" / runs.run_id / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
    return found


def of_runs(store: Store, run_ids: Sequence[str]) -> dict[str, Any]:
    """Compare runs of the training pipeline, or trials, on the recordings that all have tested.

    Raises
    ------
    ConfigError
        When a run has not measured a model.
    """
    arms = []
    runs = [store.runs.read(run_id) for run_id in run_ids]
    for run in runs:
        record = run.steps.get("evaluate")
        if record is None or "report" not in record.outputs:
            raise ConfigError(
                f"run {run.run_id} has measured no model: name runs that came to evaluate "
                f"(`{COMMAND} show {run.run_id}` says how far it came)"
            )
        seed = int(run.config("train").get("seed", 0))
        arms.append(
            Arm(run.run_id, {}, {seed: margins(store, record)}, costs=_costs(store, [run.run_id]))
        )
    found = compare(arms)
    if found["n_recordings"] == 0:
        raise ConfigError(
            f"no recording is in the test sets of all of {', '.join(run_ids)}: compare runs of the "
            "same data and split"
        )
    return {**found, "settings": differences(runs)}


def differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Settings in which runs differ: ``"<step>.<key>"`` to the value in each, None without one."""
    names = {f"{step}.{key}" for run in runs for step in run.steps for key in run.config(step)}
    values = {
        name: [run.config(step).get(key) for run in runs]
        for name in sorted(names)
        for step, _, key in [name.partition(".")]
    }
    return {name: each for name, each in values.items() if any(v != each[0] for v in each)}


def training_command(data: str, settings: Mapping[str, Any]) -> str:
    """The command that trains with the settings of a trial on the whole training set."""
    words = []
    for target, value in settings.items():
        text = value if isinstance(value, str) else json.dumps(value)
        words.append(f"--set {shlex.quote(f'{target}={text}')}")
    return f"{COMMAND} pipeline training --data {shlex.quote(data)} {' '.join(words)}"


def published(settings: Mapping[str, Any]) -> dict[str, float]:
    """Means of what was published, where the settings name a preset.

    A name with ``_noise_controls`` belongs to the condition of that name: the published test with
    noise put one ward noise on every control and none on patients.
    """
    name = settings.get(presets.SETTING)
    rates = presets.find(name).rates() if name else {}
    names = {
        "accuracy": ("test_clean_accuracy",),
        "balanced_accuracy": ("balanced_accuracy",),
        "f1": ("test_clean_f1", "f1"),
        "accuracy_noise_controls": ("test_noisy_accuracy",),
        "f1_noise_controls": ("test_noisy_f1",),
    }
    return {
        measure: mean(rates[one]) for measure, ones in names.items() for one in ones if one in rates
    }


def _costs(store: Store, run_ids: Sequence[str]) -> dict[str, float]:
    """What the results of some runs took when they were computed, each result once."""
    records = {
        record.key: record
        for run_id in run_ids
        for record in store.runs.read(run_id).steps.values()
        if record.key
    }
    names = ("seconds_computing", "cpu_seconds", "gpu_seconds")
    return {n: round(sum(getattr(one, n) for one in records.values()), 1) for n in names}


def _is_synthetic(store: Store, record: StepRecord) -> bool:
    report = read_file(store, record.outputs["report"], "evaluation.json")
    return bool(json.loads(report)["synthetic"])


def _described(arm: Arm) -> dict[str, Any]:
    names = ("name", "settings", "n_trials", "n_failed", "costs")
    return {name: getattr(arm, name) for name in names}


def _ordered(table: pd.DataFrame, shared: set[str]) -> pd.DataFrame:
    return table[table["record_id"].isin(shared)].sort_values("record_id", ignore_index=True)


def _measure(labels: Array, scores: pd.Series, weights: Array) -> dict[str, Array]:
    return metrics.measure(labels, scores.to_numpy(float), 0.0, weights)


def _estimates(samples: dict[str, Array], n_patients: int, n_controls: int) -> dict[str, Any]:
    found = metrics.estimates(samples, n_patients, n_controls)
    return {name: asdict(one) for name, one in found.items()}


def _right(table: pd.DataFrame) -> pd.Series:
    """Whether the mean answer about each person is right, by subject."""
    people = table.groupby("subject_id")[["clean", "label"]].mean()
    return (people["clean"] >= 0) == (people["label"] == 1)


def _shown(n: int) -> int | None:
    return None if is_small(n) else n


def _log_odds(probability: Any) -> Any:
    within = np.clip(probability, 1e-12, 1 - 1e-12)
    return np.log(within / (1 - within))
