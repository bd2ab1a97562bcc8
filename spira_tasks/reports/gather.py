"""From the store to what the pages say of a run, and of all runs.

A run may have been stopped anywhere, be older than a part of the platform, or have lost tables to
an erasure: what is not there is named in ``RunFacts.missing``, and nothing else is held up by it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import in_threads
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.contract.verdict import MIN_CELL
from spira_tasks.errors import ConfigError, ServiceUnavailable
from spira_tasks.governance import audit, decisions
from spira_tasks.reports import judged, tables
from spira_tasks.reports.facts import (
    AuditAnchor,
    Evaluation,
    History,
    Intake,
    Interval,
    ModelFacts,
    Provenance,
    Release,
    RunFacts,
    RunOutcome,
    RunSummary,
    StepFacts,
)
from spira_tasks.reports.reading import Reader
from spira_tasks.reports.suppression import count, two_way

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

ORDER = {step.name: number for number, step in enumerate(TRAINING)}
MAX_RUNS = 100  # in the pages that look over runs
TABLES = (  # the furthest that a run came, first
    "check_training_set.table",
    "split.recordings",
    "check_recordings.table",
    "ingest.recordings",
)
Record = Mapping[str, Any]


def gather(store: Store, run_id: str, tracking_uri: str) -> RunFacts:
    """Read what is known of a run.

    Raises
    ------
    ConfigError
        When the store has no such run.
    ServiceUnavailable
        When the store does not answer.
    """
    records = run_records(store, run_id)
    if not records:
        raise ConfigError(f"store {store.url} has no record of a training run {run_id!r}")
    reader = Reader(store, records)
    table = reader.table(TABLES, tables.COLUMNS)
    quarantine = reader.quarantine()
    sites = tables.site_names(table, quarantine, _config(records, "ingest").get("sites", ()))
    if table is not None:
        table = tables.with_categories(table, sites)
    anchor = audit.head(store.documents)
    evaluation = _evaluation(reader, table)
    verdicts = tuple(verdict for record in records.values() for verdict in judged.verdicts(record))
    promotion = reader.json("promote.decision", "decision.json") or {}
    return RunFacts(
        run_id=run_id,
        outcome=outcome_of(records),
        started_at=min(filter(None, map(_started, records.values())), default=""),
        finished_at=_finished(records),
        synthetic=tables.is_synthetic(table),
        triggered_by=_triggered_by(store, records),
        steps=_steps(records),
        verdicts=verdicts,
        provenance=_provenance(records),
        anchor=AuditAnchor(anchor.number, anchor.hash),
        releases=_releases(store),
        n_erasures=count(len(decisions.known(store, "erasures"))),
        intake=_intake(reader, records),
        quarantine=tables.quarantine(quarantine, sites),
        dataset=tables.dataset(table, reader.digest("check_training_set.table")),
        composition=tables.composition(table),
        signal_quality=tables.signal_quality(table),
        drift=judged.drift(verdicts),
        evaluation=evaluation,
        decision_outcome=str(promotion.get("outcome", "")),
        thresholds_owner=str(promotion.get("owner_of_thresholds", "")),
        model=_model(reader, records, tracking_uri),
        missing=tuple(sorted(reader.missing)),
    )


def history(store: Store) -> History:
    """The newest MAX_RUNS training runs, the oldest first."""
    summaries = in_threads(lambda run_id: _summary(store, run_id), store.run_ids()[-MAX_RUNS:])
    known = [summary for summary in summaries if summary is not None]
    return History(tuple(sorted(known, key=lambda run: (run.finished_at, run.run_id))))


def latest_run(store: Store) -> str:
    """The training run that last wrote a record.

    Raises
    ------
    ConfigError
        When there is none.
    """
    for run_id in reversed(store.run_ids()):
        if set(store.record_names(run_id)) & set(ORDER):
            return run_id
    raise ConfigError(f"store {store.url} has no training run yet; there is nothing to report on")


def run_records(store: Store, run_id: str) -> dict[str, Record]:
    """The records of the training's steps in a run, in the order of the pipeline."""
    names = sorted(set(store.record_names(run_id)) & set(ORDER), key=ORDER.__getitem__)
    read = {name: store.read_record(run_id, name) for name in names}
    return {name: record for name, record in read.items() if record is not None}


def outcome_of(records: Mapping[str, Record]) -> RunOutcome:
    states = {record["state"] for record in records.values()}
    if "blocked" in states:
        return "blocked"
    if "failed" in states:
        return "failed"
    if "promote" not in records:
        return "running"
    return "promoted" if records["promote"]["metrics"]["promoted"] else "kept"


def _summary(store: Store, run_id: str) -> RunSummary | None:
    records = run_records(store, run_id)
    if not records:
        return None
    verdicts = [verdict for record in records.values() for verdict in judged.verdicts(record)]
    by_suite = {
        suite: _words([v for v in verdicts if (v["suite"] or v["step"]) == suite])
        for suite in dict.fromkeys(v["suite"] or v["step"] for v in verdicts)
    }
    n_passed, n_warned, n_blocked = _words(verdicts)
    ingest = _metrics(records, "ingest")
    evaluation = _metrics(records, "evaluate")
    auc = [evaluation.get(name) for name in ("auc", "auc_low", "auc_high")]
    return RunSummary(
        run_id=run_id,
        finished_at=_finished(records),
        outcome=outcome_of(records),
        n_passed=n_passed,
        n_warned=n_warned,
        n_blocked=n_blocked,
        n_recordings=count(int(ingest.get("n_recordings", 0))),
        n_subjects=count(int(ingest.get("n_subjects", 0))),
        n_quarantined=count(
            sum(int(_metrics(records, step).get("n_quarantined", 0)) for step in records)
        ),
        auc=None if auc[0] is None else Interval(*auc),
        version=str(int(_metrics(records, "register").get("version", 0)) or ""),
        verdicts_by_suite=by_suite,
    )


def _words(verdicts: list[dict[str, Any]]) -> tuple[int, int, int]:
    words = [verdict["verdict"] for verdict in verdicts]
    return words.count("pass"), words.count("warn"), words.count("block")


def _metrics(records: Mapping[str, Record], step: str) -> Mapping[str, float]:
    return records.get(step, {}).get("metrics") or {}


def _config(records: Mapping[str, Record], step: str) -> Mapping[str, Any]:
    return records.get(step, {}).get("config") or {}


def _steps(records: Mapping[str, Record]) -> tuple[StepFacts, ...]:
    """The steps that ran and, of a run that did not come to its end, those that did not."""
    ended = "promote" in records
    steps = []
    for step in TRAINING:
        record = records.get(step.name)
        if record is None:
            steps += [] if ended else [StepFacts(step.name, step.stage, "waiting")]
            continue
        steps.append(
            StepFacts(
                name=step.name,
                stage=record["stage"],
                state=record["state"],
                seconds=record["seconds"],
                found=record.get("found", False),
                key=record.get("key", ""),
                finished_at=record["finished_at"],
                error=record.get("error", ""),
                message=record.get("message", ""),
                outputs=record.get("outputs", {}),
            )
        )
    return tuple(steps)


def _started(record: Record) -> str:
    finished = datetime.fromisoformat(record["finished_at"])
    return (finished - timedelta(seconds=record["seconds"])).isoformat(timespec="seconds")


def _finished(records: Mapping[str, Record]) -> str:
    return max(str(record["finished_at"]) for record in records.values())


def _triggered_by(store: Store, records: Mapping[str, Record]) -> str:
    """Who the audit log names for the first audited step."""
    for record in records.values():
        if "audit" in record:
            name = f"{audit.FOLDER}/{record['audit']['number']:012d}.json"
            return str((store.documents.read(name) or {}).get("actor", ""))
    return ""


def _provenance(records: Mapping[str, Record]) -> Provenance:
    """Of the newest step; code by step."""
    parts = {step: record.get("provenance") or {} for step, record in records.items()}
    newest = max(parts.values(), key=lambda part: part.get("at", ""))
    return Provenance(
        git=newest.get("git", ""),
        lock=newest.get("lock", ""),
        python=newest.get("python", ""),
        image=newest.get("image", ""),
        code={step: part["code"] for step, part in parts.items() if part.get("code")},
    )


def _releases(store: Store) -> tuple[Release, ...]:
    """Those in force now: what a run heeded is not in its records one by one."""
    return tuple(
        Release(one.about.get("reason", ""), one.why, one.by, one.at)
        for one in decisions.known(store, "releases")
    )


def _intake(reader: Reader, records: Mapping[str, Record]) -> Intake | None:
    numbers = _metrics(records, "ingest")
    if not numbers:
        return None
    report = reader.json("ingest.report", "ingest.json") or {}
    left_out = [count(int(numbers[name])) for name in ("n_quarantined", "n_excluded")]
    return Intake(
        # what came in less what was taken is what was not
        n_rows=count(int(numbers["n_rows"])) if None not in left_out else None,
        n_recordings=count(int(numbers["n_recordings"])),
        n_subjects=count(int(numbers["n_subjects"])),
        n_sites=len(report.get("n_by_site", {})),
        n_quarantined=count(int(numbers["n_quarantined"])),
        n_excluded=count(int(numbers["n_excluded"])),
        n_ward_noises=int(numbers["n_ward_noises"]),
        hours_of_audio=round(numbers["n_seconds_of_audio"] / 3600, 1),
        by_task=tables.by_task(report.get("n_by_task", {})),
    )


def _evaluation(reader: Reader, table: pd.DataFrame | None) -> Evaluation | None:
    report = reader.json("evaluate.report", "evaluation.json")
    if report is None:
        return None
    sizes = ("n_recordings", "n_subjects", "n_patients", "n_controls")
    found = Evaluation(
        *(count(report[name]) for name in sizes),
        slices=tables.slices(table, reader.predictions(), report["operating_point"]),
    )
    if min(report["n_patients"], report["n_controls"]) < MIN_CELL:
        return found
    cells = {
        ("patients", "positive"): "true_positives",
        ("patients", "negative"): "false_negatives",
        ("controls", "positive"): "false_positives",
        ("controls", "negative"): "true_negatives",
    }
    confusion = {place: int(report["confusion"][name]) for place, name in cells.items()}
    return replace(
        found,
        operating_point=report["operating_point"],
        expected_calibration_error=report["expected_calibration_error"],
        brier_score=report["brier_score"],
        confusion=two_way(("label", "call"), "recordings", confusion, in_full=True),
        conditions={
            condition: {name: Interval(**one) for name, one in estimates.items()}
            for condition, estimates in report["conditions"].items()
        },
        drops={
            condition: Interval(**one)
            for condition, one in report["drop_in_balanced_accuracy"].items()
        },
    )


def _model(reader: Reader, records: Mapping[str, Record], tracking_uri: str) -> ModelFacts | None:
    registration = reader.json("register.registration", "registration.json")
    if registration is None:
        return None
    from spira_tasks.tracking import Tracker

    version = None
    try:
        version = Tracker(tracking_uri).find_version(registration["classifier"])
    except ServiceUnavailable as error:  # a report is made all the same, and says so
        log.warning("report: the registry did not answer, so aliases are missing: %s", error)
    if version is None:
        reader.missing.add("registry")
    tags = {} if version is None else version.tags
    return ModelFacts(
        name=registration["name"],
        version=str(registration["version"]),
        classifier=registration["classifier"],
        aliases=None if version is None else version.aliases,
        tags={name: value for name, value in tags.items() if name.startswith("spira.")},
        mlflow_run=(records["register"].get("provenance") or {}).get("mlflow_run", ""),
        training=_config(records, "train"),
        feature=_config(records, "materialize"),
    )
