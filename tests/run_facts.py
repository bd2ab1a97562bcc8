"""Facts of a run that nobody made: everything that a page can show, small and fixed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spira_tasks.contract.run import Anchor
from spira_tasks.contract.verdict import Number, Status, Verdict, Waiver
from spira_tasks.reports.facts import (
    Change,
    Counts,
    Dataset,
    Evaluation,
    Intake,
    Interval,
    ModelFacts,
    Quarantine,
    Release,
    RunFacts,
    RunSummary,
    SignalQuality,
    Since,
    Slice,
    StepFacts,
    Tally,
)

AT = "2026-11-21T17:00:40+00:00"
DIGEST = "sha256:" + "5e" * 32
BY_SITE = Counts(
    ("site", "label"),
    "subjects",
    ("#1", "#2", "other"),
    ("patients", "controls"),
    ((20, 25), (None, None), (0, 9)),
    (45, 7, 9),
    (24, 37),
    61,
)
BY_REASON = Counts(
    ("reason",), "recordings", ("truncated", "too_short"), (), ((12,), (None,)), (), (), None
)
BY_LABEL = Counts(("label",), "subjects", ("patients", "controls"), (), ((24,), (37,)), (), (), 61)
SPLIT = Counts(
    ("split", "label"),
    "subjects",
    ("train", "validation", "test"),
    ("patients", "controls"),
    ((10, 20), (6, 8), (8, 9)),
    (30, 14, 17),
    (24, 37),
    61,
)


_ESTIMATE = {"value": 0.7, "low": 0.6, "high": 0.8}
_MEASURES = dict.fromkeys(("auc", "balanced_accuracy", "sensitivity", "specificity"), _ESTIMATE)
_COSTS = {"seconds_computing": 90.0, "cpu_seconds": 120.0, "gpu_seconds": 0.0}
EXPERIMENT: dict[str, Any] = {
    "name": "small",
    "question": "Does another dropout serve better?",
    "owner": "speech group",
    "ends": "2026-12-31",
    "synthetic": True,
    "optimistic": False,
    "metric": "auc",
    "n_subjects": 40,
    "n_patients": 20,
    "n_controls": 20,
    "arms": [
        {
            "name": name,
            "n_failed": 0,
            "costs": _COSTS,
            "published": {"accuracy": 0.9167, "f1": 0.912, "accuracy_noise_controls": 0.8704},
            "seeds": {"1": 0.71, "2": 0.69},
            "spread": 0.014,
            "median_seed": 2,
            "conditions": dict.fromkeys(("clean", "noise", "noise_controls"), _MEASURES),
        }
        for name in ("as_they_stand", "chosen")
    ],
    "pairs": [
        {
            "first": "as_they_stand",
            "second": "chosen",
            "differences": _MEASURES,
            "n_only_first_right": None,
            "n_only_second_right": None,
            "p": None,
            "p_holm": None,
        }
    ],
}


def verdict(id: str, status: Status = "pass", **fields: Any) -> Verdict:
    """A verdict; a number for ``observed`` is taken for a share."""
    observed = fields.pop("observed", None)
    number = Number(observed, "share") if isinstance(observed, float) else observed
    return Verdict(id, status, observed=number, **fields)


def rate(value: float, low: float | None = None, high: float | None = None) -> Number:
    return Number(value, "rate", low, high)


def rows(id: str, status: Status, n_unexpected: int, n: int, **fields: Any) -> Verdict:
    """An expectation that was looked at row by row."""
    numbers = {"n_unexpected": Number(n_unexpected, "rows")}
    return verdict(
        id, status, observed=n_unexpected / n, threshold=0.0, n=n, numbers=numbers, **fields
    )


def waived(id: str = "expect_no_level_of_one_class(device_model)", **fields: Any) -> Verdict:
    """A check that would have blocked, and that a person waived."""
    waiver = Waiver("cli:ana", AT, "one telephone yet", "2027-02-19")
    place = {"severity": "critical", "suite": "training_set"}
    return verdict(id, "warn", waiver=waiver, **place | fields)


def facts(**changes: Any) -> RunFacts:
    """A run whose model was refused at the last gate."""
    low = Interval(0.52, 0.33, 0.79)
    conditions = ("clean", "noise_all", "noise_controls", "noise_patients")
    metrics = ("auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1")
    made = RunFacts(
        run_id="first",
        outcome="blocked",
        started_at="2026-11-21T17:00:02+00:00",
        finished_at=AT,
        synthetic=True,
        triggered_by="airflow:maria",
        steps=(
            StepFacts(
                "ingest", "done", 4.9, False, "ab" * 32, AT, outputs={"r": DIGEST}, code="23" * 32
            ),
            StepFacts("promote", "blocked", 0.1, True, "cd" * 32, AT),
        ),
        verdicts={
            "ingest": (
                verdict(
                    "quarantine_share", observed=0.17, threshold=0.05, n=80, severity="critical",
                    numbers={"n_refused": Number(13, "rows"), "n_tolerated": Number(14, "items")},
                    names={"reasons": ("truncated", "too_short")},
                ),
            ),
            "check_recordings": (
                rows(
                    "expect_column_values_to_be_between(age, possible)", "warn", 12, 61,
                    severity="warning", suite="metadata",
                ),
            ),
            "promote": (
                verdict("auc_above_chance", "block", observed=Number(0.52, low=0.33, high=0.79),
                        threshold=0.6, n=8),
                verdict("not_degenerate", "block", observed=rate(0.29), threshold=0.5, n=8),
                verdict("sensitivity_floor", "insufficient", observed=rate(0.75, 0.5, 1.0),
                        threshold=0.8, n=8, severity="warning"),
            ),
            "check_drift": (
                verdict("expect_feature_to_be_as_before(snr_db)", "warn", observed=Number(0.4),
                        threshold=0.2, n=61, suite="drift",
                        kind="expect_feature_to_be_as_before", columns=("snr_db",)),
            ),
        },
        provenance={
            "git": "8ed9ac387f4c", "lock": "c8" * 32, "python": "3.11.7", "image": ""
        },
        anchor=Anchor(10, "2d" * 32),
        experiments=(EXPERIMENT,),
        releases=(Release("too_short", "heard it: usable", "cli:ana", AT),),
        n_erasures=None,
        intake=Intake(
            80, 61, 61, 3, 13, 0, 24, 0.6,
            Counts(("task",), "recordings", ("SENTENCE",), (), ((61,),), (), (), 61),
        ),
        quarantine=Quarantine({"ingest": 13}, BY_REASON, None, None),
        dataset=Dataset(DIGEST, 61, 61, SPLIT),
        composition=(BY_LABEL, BY_SITE),
        signal_quality=(
            SignalQuality("snr_db", "#1", 40, 44, 11.0, 16.0, 25.0),
            SignalQuality("snr_db", "other", None, None, None, None, None),
        ),
        evaluation=Evaluation(
            17, 17, 8, 9, 0.52, 0.24, 0.24, BY_SITE,
            {name: dict.fromkeys(metrics, low) for name in conditions},
            {"noise_all": Interval(0.1, 0.0, 0.2)},
        ),
        model=ModelFacts("spira", "3", DIGEST, None, "1/ab", {"epochs": 4}, {"n_mels": 40}),
        champion="2",
        since=Since(
            "run-1",
            (
                Change("recordings", "", "5e" * 6, "6f" * 6),
                Change("n_quarantined", "", None, None),
                Change("lock", "", "c8" * 6, "c8" * 6),
                Change("code", "train", "01" * 6, "02" * 6),
                Change("setting", "train.epochs", "6", "4"),
            ),
        ),
        missing=("registry",),
    )  # fmt: skip
    return replace(made, **changes)


_RATE = {"value": 0.1, "low": 0.05, "high": 0.2}
MEASURED: dict[str, Any] = {
    "slices": {
        "sex": {"M": {"n_patients": 60, "n_controls": 60, "auc": _ESTIMATE}, "F": {}},
        "tasks": {"SENTENCE": {"n_patients": 60, "n_controls": 90, "auc": _ESTIMATE}},
    },
    "calibration": {
        "slope": _ESTIMATE,
        "intercept": {"value": -0.1, "low": -0.4, "high": 0.2},
        "brier_score": _RATE,
        "reliability": [{"n": 30, "predicted": 0.23, "observed": _RATE}],
        "recalibration": {"applied": False, "shift": 0.0, "scale": 1.0, "gain": _RATE},
    },
    "predictive_values": {"0.1": {"ppv": _ESTIMATE, "npv": _ESTIMATE}},
    "net_benefit": {"0.1": [{"threshold": 0.2, "model": _RATE, "everybody": -0.125}]},
    "flips": {"noise_all": {"patients": _RATE, "controls": _RATE}},
    "behaviour": {"opus": {"flips": {"patients": _RATE, "controls": _RATE}, "shift": _RATE}},
    "explanations": {
        "recordings": [
            {
                "label": 1,
                "is_called": True,
                "probability": 0.8,
                "parts": {"speech": 31.0, "pauses": -2.0, "edges": 0.4},
                "bands": [1.0],
            }
        ],
        "randomised": {"all_layers": {"signed": 0.03, "absolute": 0.2}},
    },
}


def sound(**changes: Any) -> RunFacts:
    """A run whose model passed, tested on enough men and on too few women."""
    right = Interval(0.88, 0.81, 0.93)
    slices = (
        Slice("sex", "M", 60, 60, right, right),
        Slice("sex", "F", 7, 40, None, right),
        Slice("site", "#1", 60, 60, right, right),
        Slice("site", "#2", 7, 40, None, right),
        *(Slice("age", band, 20, 20, right, right) for band in ("45-59", "60-74")),
    )
    judged = (
        verdict("ward_noise_counterfactual", observed=rate(0.01, -0.02, 0.04), threshold=0.05,
                n=67, n_unit="people", names={"condition": ("noise_controls",)}),
        verdict("sensitivity_floor", observed=rate(0.9, 0.83, 0.95), threshold=0.8, n=67),
    )  # fmt: skip
    made = facts(outcome="promoted", verdicts={"promote": judged})
    assert made.evaluation is not None
    assert made.model is not None
    conditions = {
        name: {**measures, "sensitivity": right, "specificity": right}
        for name, measures in made.evaluation.conditions.items()
    }
    evaluation = replace(
        made.evaluation,
        n_patients=67,
        n_controls=100,
        slices=slices,
        conditions=conditions,
        measured=MEASURED,
    )
    model = replace(made.model, training={"task": "SENTENCE"})
    made = replace(made, evaluation=evaluation, model=model, champion="3")
    return replace(made, **changes)


def endings() -> dict[str, RunFacts]:
    """A run of each ending, with the longest sentences."""
    passed = sound().verdicts["promote"]
    noise = verdict(
        "ward_noise_counterfactual", "block", observed=rate(0.21, 0.12, 0.31), threshold=0.05, n=54,
        n_unit="people", names={"condition": ("noise_controls",)}, severity="critical",
    )  # fmt: skip
    better = verdict("better_than_champion", "warn", observed=Number(0.01, low=-0.02, high=0.04),
                     threshold=0.8, n=54, numbers={"confidence": rate(0.61)},
                     names={"champion": ("2",)})  # fmt: skip
    waits = (verdict("better_than_champion"), verdict("approved_by_a_person", "warn",
             names={"version": ("3",)}))  # fmt: skip
    few = tuple(
        verdict(id, "insufficient", observed=rate(0.1, 0.0, 0.4), threshold=0.05, n=20,
                n_unit="people", severity="warning")
        for id in ("ward_noise_flips", "slice_gap", "stratified_auc", "calibration_slope")
    )  # fmt: skip
    group = verdict(
        "stratified_auc", "block", observed=rate(0.55, 0.45, 0.65), threshold=0.6, n=54,
        numbers={"explained": rate(0.2, 0.1, 0.3), "tolerated": Number(0.05)},
        names={"by": ("app_version",)},
    )  # fmt: skip
    step = StepFacts("train", "failed", error="ServiceUnavailable", message="no answer")
    started: dict[str, Any] = {"evaluation": None, "model": None, "verdicts": {}}
    return {
        "promoted": sound(),
        "waived": sound(verdicts={"check_training_set": (waived(),), "promote": passed}),
        "waits": sound(outcome="kept", verdicts={"promote": (*passed, *waits)}),
        "open": sound(outcome="kept", verdicts={"promote": (*passed, *few, *waits)}),
        "group": sound(outcome="blocked", verdicts={"promote": (group, *passed)}),
        "kept": sound(outcome="kept", verdicts={"promote": (*passed, better)}),
        "blocked": facts(),
        "noise": sound(outcome="blocked", verdicts={"promote": (noise, *passed[1:])}),
        "failed": facts(outcome="failed", steps=(step,), **started),
        "running": facts(outcome="running", steps=(StepFacts("train", "waiting"),), **started),
    }


def summary(run_id: str, **changes: Any) -> RunSummary:
    made = RunSummary(
        run_id, AT, "blocked", 61, 61, 13, Interval(0.52, 0.33, 0.79), "3",
        {"metadata": Tally(100, 1, 0), "audio": Tally(50, 0, 0), "promote": Tally(3, 2, 3)},
        "2026-11-28T23:24:00+00:00", "airflow:admin",
    )  # fmt: skip
    return replace(made, **changes)


def history(n_runs: int = 3) -> list[RunSummary]:
    before = [summary(f"run-{number}") for number in range(n_runs - 1)]
    return [*before, summary("first")]
