"""Read from the store what the pages show of one run and of all runs.

A run may have been stopped anywhere, be older than a part of the platform, or have lost tables to
an erasure.  ``RunFacts.missing`` names what is not there; everything else is shown.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import in_threads
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.contract.run import EXPERIMENT, TRIAL, Run
from spira_tasks.contract.verdict import MIN_CELL, suppress
from spira_tasks.errors import ArtifactCorrupt, ConfigError, ServiceUnavailable
from spira_tasks.governance import audit, decisions, signatures
from spira_tasks.governance.inventory import read_columns, read_file
from spira_tasks.reports import tables
from spira_tasks.reports.facts import (
    Change,
    Evaluation,
    Intake,
    Interval,
    ModelFacts,
    Release,
    RunFacts,
    RunSummary,
    Signature,
    Since,
    StepFacts,
    Tally,
    by_suite,
    setting,
)
from spira_tasks.reports.tables import count, one_way, two_way

if TYPE_CHECKING:
    import pandas as pd

    from spira_tasks.tracking import Registered

log = logging.getLogger(__name__)

MAX_RUNS = 100  # in the pages that look over runs
TABLES = (  # the furthest that a run came, first
    "check_training_set.table",
    "split.recordings",
    "check_recordings.table",
    "ingest.recordings",
)
QUARANTINE = ("reason", "hospital_id")
PREDICTIONS = ("subject_id", "split", "label", "clean")
MEASURES = ("operating_point", "expected_calibration_error", "brier_score")
# Parts of evaluation.json that are shown as they are; they hold no count of people that is shown.
MEASURED = (
    *("slices", "calibration", "predictive_values", "net_benefit", "behaviour", "flips"),
    "explanations",
)
PROVENANCE = ("git", "lock", "python", "image")
COMPARED = ("n_recordings", "n_subjects", "n_quarantined")


class Reader:
    """Reads outputs of a run by ``"<step>.<output>"``; None where one is not there."""

    def __init__(self, store: Store, run: Run) -> None:
        self.store = store
        self.run = run
        self.missing: set[str] = set()  # outputs that the run made and nobody can read any more

    def read(self, reference: str, name: str) -> bytes | None:
        """The content of one file of an output."""
        digest = self.run.digest(reference)
        try:
            if digest and name in self.store.directory(digest).names:
                return read_file(self.store, digest, name)
        except (ConfigError, ArtifactCorrupt):  # past its retention, or damaged
            self.missing.add(reference)
        return None

    def json(self, reference: str, name: str) -> dict[str, Any] | None:
        content = self.read(reference, name)
        return None if content is None else dict(json.loads(content))

    def table(self, reference: str, name: str, columns: Sequence[str]) -> pd.DataFrame | None:
        """Some columns of a table; those that it lacks are empty."""
        content = self.read(reference, name)
        if content is None:
            return None
        return read_columns(content, columns).reindex(columns=list(columns))


def gather(store: Store, run_id: str) -> RunFacts:
    """Read what is known of a run.

    Raises
    ------
    ConfigError
        When the store has no such run.
    ServiceUnavailable
        When the store does not answer.
    """
    run = store.runs.read(run_id).training
    if not run.steps:
        raise ConfigError(f"store {store.url} has no record of a training run {run_id!r}")
    reader = Reader(store, run)
    found = (reader.table(name, "recordings.parquet", tables.COLUMNS) for name in TABLES)
    table = next((one for one in found if one is not None), None)
    quarantine = {
        step: refused
        for step in run.steps
        if (refused := reader.table(f"{step}.quarantine", "quarantine.parquet", QUARANTINE))
        is not None
    }
    sites = tables.site_names(table, quarantine, run.config("ingest").get("sites", ()))
    if table is not None:
        table = tables.with_categories(table, sites)
    promotion = reader.json("promote.decision", "decision.json") or {}
    made = _newest_provenance(run)
    versions = _registry(reader)
    champion = next((one.version for one in versions or () if "champion" in one.aliases), "")
    return RunFacts(
        run_id=run_id,
        outcome=run.outcome,
        started_at=_started(run),
        finished_at=run.finished_at,
        synthetic=None if table is None else bool(table["is_synthetic"].any()),
        triggered_by=_triggered_by(store, run),
        steps=tuple(_steps(run)),
        verdicts={name: tuple(map(suppress, one.verdicts)) for name, one in run.steps.items()},
        provenance={name: made.get(name, "") for name in PROVENANCE},
        anchor=audit.head(store.documents),
        releases=tuple(
            Release(one.about.get("reason", ""), one.why, one.by, one.at)
            for one in decisions.known(store, "releases")
        ),
        n_erasures=count(len(decisions.known(store, "erasures"))),
        intake=_intake(reader),
        quarantine=tables.quarantine(quarantine, sites),
        dataset=tables.dataset(table, run.digest("check_training_set.table")),
        composition=tables.composition(table),
        signal_quality=tuple(tables.signal_quality(table)),
        evaluation=_evaluation(reader, table),
        signatures=_signatures(reader, promotion.get("policy", {}).get("digest", "")),
        model=_model(reader, versions),
        champion=None if versions is None else champion,
        experiments=tuple(_experiments(store)),
        missing=tuple(sorted(reader.missing)),
    )


def _signatures(reader: Reader, policy: str) -> dict[str, Signature]:
    """The signatures on the policy of the run, and on the other files as they stand here."""
    digests = {part: signatures.digest(part) for part in signatures.FILES}
    if policy:
        digests["policy"] = policy
    try:
        found = signatures.signatures(reader.store, digests)
    except ConfigError as error:  # a report is made all the same, and calls nothing signed
        log.warning("report: who signed the limits is not known: %s", error)
        reader.missing.add("signatures")
        return {}
    return {part: Signature(one.by, one.at) for part, one in found.items()}


def _experiments(store: Store) -> Iterator[Mapping[str, Any]]:
    """The comparisons of experiments, by name; small counts were never stored."""
    for name in store.documents.names("experiments"):
        if name.endswith("/comparison.json") and (found := store.documents.read(name)):
            yield found


def history(store: Store) -> list[RunSummary]:
    """The newest MAX_RUNS training runs, the oldest first."""
    ids = [one for one in store.runs.ids() if not one.startswith((EXPERIMENT, TRIAL))]
    runs = in_threads(lambda run_id: store.runs.read(run_id).training, ids[-MAX_RUNS:])
    summaries = in_threads(partial(_summary, store), [run for run in runs if run.steps])
    return sorted(summaries, key=lambda run: (run.finished_at, run.run_id))


def compare(store: Store, run_id: str, runs: Sequence[RunSummary]) -> Since | None:
    """Compare a run with the one that ended before it; None where no such run is known."""
    pair = next((pair for pair in pairwise(runs) if pair[1].run_id == run_id), None)
    if pair is None:
        return None
    before, now = (store.runs.read(one.run_id).training for one in pair)
    return Since(pair[0].run_id, tuple(_changes(before, now, *pair)))


def latest_run(store: Store) -> str:
    """The training run that last wrote a record; ConfigError when there is none."""
    for run_id in reversed(store.runs.ids()):
        if not run_id.startswith((EXPERIMENT, TRIAL)) and store.runs.read(run_id).training.steps:
            return run_id
    raise ConfigError(f"store {store.url} has no training run yet; there is nothing to report on")


def _summary(store: Store, run: Run) -> RunSummary:
    verdicts = by_suite({step: record.verdicts for step, record in run.steps.items()})
    ingest, evaluation = run.metrics("ingest"), run.metrics("evaluate")
    auc = [evaluation.get(name) for name in ("auc", "auc_low", "auc_high")]
    n_quarantined = sum(int(run.metrics(step).get("n_quarantined", 0)) for step in run.steps)
    return RunSummary(
        run_id=run.run_id,
        finished_at=run.finished_at,
        outcome=run.outcome,
        n_recordings=count(int(ingest.get("n_recordings", 0))),
        n_subjects=count(int(ingest.get("n_subjects", 0))),
        n_quarantined=count(n_quarantined),
        auc=None if auc[0] is None or not _is_published(evaluation) else Interval(*auc),
        version=str(int(run.metrics("register").get("version", 0)) or ""),
        by_suite={suite: Tally.of(found) for suite, found in verdicts.items()},
        started_at=_started(run),
        triggered_by=_triggered_by(store, run),
        n_open=sum(
            one.status == "insufficient" for step in run.steps.values() for one in step.verdicts
        ),
    )


def _is_published(sizes: Mapping[str, float]) -> bool:
    """Whether measures of the test subjects are shown: both classes have enough people."""
    return min(sizes.get("n_patients", 0), sizes.get("n_controls", 0)) >= MIN_CELL


def _steps(run: Run) -> Iterator[StepFacts]:
    """The steps that ran and, of a run that did not come to its end, those that did not."""
    for step in TRAINING:
        if one := run.steps.get(step.name):
            what = (one.step, one.state, one.seconds, one.found, one.key, one.finished_at)
            code = one.provenance.get("code", "")
            yield StepFacts(*what, one.error, one.message, one.outputs, code)
        elif failed := [one for one in run.failed if one.step.partition(".")[0] == step.name]:
            shard = failed[0]
            message = f"{shard.step}: {shard.message}"
            yield StepFacts(
                step.name,
                "failed",
                shard.seconds,
                finished_at=shard.finished_at,
                error=shard.error,
                message=message,
            )
        elif "promote" not in run.steps:
            yield StepFacts(step.name, "waiting")


def _started(run: Run) -> str:
    starts = (
        datetime.fromisoformat(record.finished_at) - timedelta(seconds=record.seconds)
        for record in run.steps.values()
    )
    return min(starts).isoformat(timespec="seconds")


def _triggered_by(store: Store, run: Run) -> str:
    """Who the audit log names for the first audited step."""
    anchor = next((record.audit for record in run.steps.values() if record.audit), None)
    event = store.documents.read(audit.name_of(anchor.number)) if anchor else None
    return str((event or {}).get("actor", ""))


def _newest_provenance(run: Run) -> Mapping[str, str]:
    parts = [record.provenance for record in run.steps.values()]
    return max(parts, key=lambda part: part.get("at", ""), default={})


def _changes(before: Run, now: Run, earlier: RunSummary, this: RunSummary) -> Iterator[Change]:
    """Data, counts and versions; the code and the settings of a step only where they differ."""
    data = [run.digest("ingest.recordings").removeprefix("sha256:") for run in (before, now)]
    yield Change("recordings", "", *map(_short, data))
    for name in COMPARED:
        yield Change(name, "", getattr(earlier, name), getattr(this, name))
    for name in ("git", "lock"):
        versions = [_newest_provenance(run).get(name, "") for run in (before, now)]
        yield Change(name, "", *map(_short, versions))
    for step in now.steps:
        if step not in before.steps:  # of a step that only one run reached, nothing can be compared
            continue
        steps = before.steps[step], now.steps[step]
        code = [_short(one.provenance.get("code", "")) for one in steps]
        if code[0] != code[1]:
            yield Change("code", step, *code)
        for name in sorted({*steps[0].config, *steps[1].config}):
            if steps[0].config.get(name) != steps[1].config.get(name):
                values = (setting(one.config.get(name, "")) for one in steps)
                yield Change("setting", f"{step}.{name}", *values)


def _short(digest: str) -> str:
    return digest[:13]  # a revision of Git, with its mark of changes, or enough of a digest


def _intake(reader: Reader) -> Intake | None:
    numbers = reader.run.metrics("ingest")
    if not numbers:
        return None
    report = reader.json("ingest.report", "ingest.json") or {}
    left_out = [count(int(numbers[name])) for name in ("n_quarantined", "n_excluded")]
    return Intake(
        # the number of rows less what was taken gives away what was left out
        n_rows=count(int(numbers["n_rows"])) if None not in left_out else None,
        n_recordings=count(int(numbers["n_recordings"])),
        n_subjects=count(int(numbers["n_subjects"])),
        n_sites=len(report.get("n_by_site", {})),
        n_quarantined=left_out[0],
        n_excluded=left_out[1],
        n_ward_noises=int(numbers["n_ward_noises"]),
        hours_of_audio=round(numbers["n_seconds_of_audio"] / 3600, 1),
        by_task=tables.by_task(report.get("n_by_task", {})),
    )


def _evaluation(reader: Reader, table: pd.DataFrame | None) -> Evaluation | None:
    report = reader.json("evaluate.report", "evaluation.json")
    if report is None:
        return None
    classes = {name: report[f"n_{name}"] for name in ("patients", "controls")}
    people = one_way("label", "subjects", classes)  # all less one class is the other
    (patients,), (controls,) = people.cells
    found = Evaluation(count(report["n_recordings"]), people.total, patients, controls)
    if not _is_published(report):
        return found
    predictions = reader.table("evaluate.report", "predictions.parquet", PREDICTIONS)
    numbers = report["confusion"]
    confusion = {
        ("patients", "positive"): numbers["true_positives"],
        ("patients", "negative"): numbers["false_negatives"],
        ("controls", "positive"): numbers["false_positives"],
        ("controls", "negative"): numbers["true_negatives"],
    }
    return replace(
        found,
        **{name: report[name] for name in MEASURES},
        confusion=two_way(("label", "call"), "recordings", confusion, in_full=True),
        conditions={
            condition: {name: Interval(**one) for name, one in estimates.items()}
            for condition, estimates in report["conditions"].items()
        },
        drops={name: Interval(**one) for name, one in report["drop_in_balanced_accuracy"].items()},
        slices=tuple(tables.slices(table, predictions, report["operating_point"])),
        measured={name: report[name] for name in MEASURED if report.get(name)},
        explained_png=reader.read("evaluate.report", "explanations.png") or b"",
    )


def _registry(reader: Reader) -> list[Registered] | None:
    """The versions of the model; None where the registry did not answer."""
    from spira_tasks import tracking

    try:
        return [version for version, _ in tracking.versions(reader.store.tracking_uri)]
    except (ConfigError, ServiceUnavailable) as error:  # a report is made all the same, and says so
        log.warning("report: the registry did not answer, so aliases are missing: %s", error)
        reader.missing.add("registry")
        return None


def _model(reader: Reader, versions: Sequence[Registered] | None) -> ModelFacts | None:
    registration = reader.json("register.registration", "registration.json")
    if registration is None:
        return None
    classifier = registration["classifier"]
    version = next((one for one in versions or () if one.classifier == classifier), None)
    if version is None:
        reader.missing.add("registry")
    return ModelFacts(
        name=registration["name"],
        version=str(registration["version"]),
        classifier=classifier,
        aliases=None if version is None else version.aliases,
        mlflow_run=reader.run.steps["register"].provenance.get("mlflow_run", ""),
        training=reader.run.config("train"),
        feature=reader.run.config("materialize"),
    )
