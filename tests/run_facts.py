"""Facts of a run that nobody made: everything that a page can show, small and fixed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spira_tasks.reports.facts import (
    AuditAnchor,
    Change,
    Counts,
    Dataset,
    Drift,
    Evaluation,
    History,
    Intake,
    Interval,
    ModelFacts,
    Provenance,
    Quarantine,
    Release,
    RunFacts,
    RunSummary,
    SignalQuality,
    Since,
    StepFacts,
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


def verdict(name: str, word: str = "pass", **fields: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("statistic", "low", "high", "threshold", "n", "waiver"))
    return {
        **empty,
        "name": name,
        "verdict": word,
        "reason": "12 of 61 rows are unexpected",
        "severity": "",
        "suite": "",
        "step": "promote",
        **fields,
    }


def waived(name: str = "expect_no_level_of_one_class(device_model)") -> dict[str, Any]:
    """A check that would have blocked, and that a person set aside."""
    waiver = {"by": "cli:ana", "at": AT, "why": "one telephone yet"}
    place = {"suite": "training_set", "step": "check_training_set"}
    return verdict(name, "warn", severity="critical", waiver=waiver, **place)


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
            StepFacts("ingest", "ingest", "done", 4.9, False, "ab" * 32, AT, outputs={"r": DIGEST}),
            StepFacts("promote", "promote", "blocked", 0.1, True, "cd" * 32, AT),
        ),
        verdicts=(
            verdict("quarantine_share", statistic=0.03, threshold=0.05, n=61, step="ingest"),
            verdict(
                "expect_column_values_to_be_between(age, possible)",
                "warn",
                statistic=0.2,
                threshold=0.0,
                n=61,
                severity="warning",
                suite="metadata",
                step="check_recordings",
            ),
            verdict("auc_above_chance", "block", statistic=0.52, low=0.33, high=0.79,
                    threshold=0.6, n=17),
            verdict("not_degenerate", "block", statistic=0.29, threshold=0.5, n=17),
            verdict("sensitivity_floor", "warn", statistic=0.75, low=0.5, high=1.0,
                    threshold=0.8, n=8),
        ),
        provenance=Provenance("8ed9ac387f4c", "c8" * 32, "3.11.7", "", {"ingest": "23" * 32}),
        anchor=AuditAnchor(10, "2d" * 32),
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
        drift=(Drift("expect_x(snr_db)", "warn", 0.4, 0.2, 61, "moved"),),
        evaluation=Evaluation(
            17, 17, 8, 9, 0.52, 0.24, 0.24, BY_SITE,
            {name: dict.fromkeys(metrics, low) for name in conditions},
            {"noise_all": Interval(0.1, 0.0, 0.2)},
        ),
        decision_outcome="blocked",
        thresholds_owner="clinical lead (not yet signed)",
        model=ModelFacts("spira", "3", DIGEST, None, {}, "1/ab", {"epochs": 4}, {"n_mels": 40}),
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


def summary(run_id: str, **changes: Any) -> RunSummary:
    made = RunSummary(
        run_id, AT, "blocked", 162, 4, 3, 61, 61, 13, Interval(0.52, 0.33, 0.79), "3",
        {"metadata": (100, 1, 0), "audio": (50, 0, 0), "promote": (3, 2, 3)},
    )  # fmt: skip
    return replace(made, **changes)


def history(n_runs: int = 3) -> History:
    before = [summary(f"run-{number}") for number in range(n_runs - 1)]
    return History((*before, summary("first")))
