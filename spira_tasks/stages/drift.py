"""Gate: say how the people who are new differ from those that the champion learned from.

Three things are compared: what is written of them and measured on their recordings, the features
that the champion is given, and its answers.  The recordings are handed on unchanged, and nothing is
ever blocked: another population is the reason to train again, and to look at the results by site
and age.  One person counts once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import NonNegativeInt, PositiveInt

from spira_tasks.config import Fraction, StageConfig, StageSpec
from spira_tasks.contract.record import Outcome
from spira_tasks.contract.typed import typed
from spira_tasks.contract.verdict import Number, Status, Verdict
from spira_tasks.errors import ArtifactCorrupt, ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from spira_tasks.artifacts import Directory
    from spira_tasks.work import PlatformWork, Record

SPEC = StageSpec(outside=True, audit="gate")  # the registry says which model is champion

NUMBERS = (
    *("age", "spo2", "heart_rate", "resp_rate", "temp", "duration_seconds", "level_dbfs", "peak"),
    *("snr_db", "bandwidth_hz", "speech_fraction", "syllabic_modulation_db"),
)
CATEGORIES = (
    *("label", "sex", "mask_type", "unit", "hospital_id", "on_oxygen", "ri_cause"),
    *("app", "app_version", "prompt_version", "device_model", "os"),
    *("capture_ns", "capture_agc", "capture_aec", "codec_original", "native_sample_rate_hz"),
)


@dataclass(frozen=True)
class Inputs:
    recordings: Directory  # recordings.parquet
    features: Directory  # features.parquet, features.json: what is learned from


@dataclass(frozen=True)
class Outputs:
    recordings: Path  # the input itself
    report: Path  # drift.parquet, one row a feature; drift.json, with the verdicts


class Config(StageConfig):
    """``min_people``: below, on either side, a feature is not compared.

    ``max_scored_recordings``: of more new ones the champion scores this many, drawn at random.
    """

    min_people: PositiveInt = 30
    max_scored_recordings: PositiveInt = 2000
    false_discovery_rate: Fraction = 0.05
    n_resamples: PositiveInt = 1000
    seed: NonNegativeInt = 0
    n_threads: PositiveInt = 2


def run(inputs: Inputs, config: Config, outputs: Outputs, work: PlatformWork) -> Outcome:
    from spira_tasks.tracking import Tracker

    tracker = Tracker(work.store.tracking_uri)
    champion = tracker.champion()
    made = tracker.artifacts_of(champion) if champion else {}
    reference = made.get("recordings", "")
    first_time: list[bool] = []

    def make() -> Record:
        first_time.append(True)
        found = compared(made, inputs, config, work) if champion else {"state": "no champion"}
        return found | verdicts_on(found)

    parts = {
        "recordings": inputs.recordings.digest,
        "features": inputs.features.digest,
        "reference": reference,
        "champion": made.get("classifier", ""),
        "config": config.model_dump(),
    }
    found = work.remember(parts, make)  # a pure function of two sets: never made twice
    table = table_of(found)
    verdicts = (enough(found, config), *typed(found["verdicts"], tuple[Verdict, ...], "verdicts"))

    inputs.recordings.copy_to(outputs.recordings)
    table.to_parquet(outputs.report / "drift.parquet", index=False)
    content = {
        "state": found["state"],
        "champion": champion.version if champion else None,
        "reference": reference,
        **found["suite"],
        "features": found.get("rows", []),
        "verdicts": [verdict.to_dict() for verdict in verdicts],
    }
    (outputs.report / "drift.json").write_text(json.dumps(content, indent=1, sort_keys=True))
    n_by_status = Counter(verdict.status for verdict in verdicts)
    return Outcome(
        {
            "n_features": len(table),
            "n_compared": int(table["compared"].sum()),
            "n_new_people": found.get("n_new", 0),
            "n_warnings": n_by_status["warn"],
            "n_blocked": n_by_status["block"],
        },
        verdicts,
        changed=bool(first_time),
    )


def enough(found: Mapping[str, Any], config: Config) -> Verdict:
    """Whether anything could be compared, and if not, why.

    Nothing is wrong where there is no champion, or where nobody or few people are new.  A
    reference that was lost has to be made again: train and promote.
    """
    status: dict[str, Status] = {"compared": "pass", "no champion": "pass", "few": "insufficient"}
    return Verdict(
        "drift_reference",
        status.get(found["state"], "warn"),
        observed=Number(found.get("n_new", 0), "people"),
        threshold=float(config.min_people),
        names={"state": (found["state"],)},
        severity="warning",
        suite="drift",
    )


def verdicts_on(found: Record) -> Record:
    """What the suite says of the comparison; it asks nothing where nothing was compared."""
    if found["state"] != "compared":
        return {"suite": {}, "verdicts": []}
    from expectations.suites import drift
    from spira_tasks import quality

    table = table_of(found)
    report = quality.check(table, drift.suite(table))
    return {
        "suite": {"suite": report.suite, "version": report.version, "digest": report.digest},
        "verdicts": [verdict.to_dict() for verdict in report.verdicts],
    }


def table_of(found: Record) -> pd.DataFrame:
    """One row a feature."""
    import pandas as pd

    from spira_tasks.drift_rows import COLUMNS

    return pd.DataFrame(found.get("rows", []), columns=[*COLUMNS]).astype(COLUMNS)


def compared(made: Mapping[str, str], inputs: Inputs, config: Config, work: PlatformWork) -> Record:
    """New people beside those of the champion's ``made``: plain JSON, no value of anybody in it."""
    import pandas as pd

    from spira_tasks import drift_rows
    from spira_tasks.governance import inventory

    try:
        old = inventory.read_table(work.store, made.get("recordings", ""), "recordings.parquet")
    except (ConfigError, ArtifactCorrupt):  # never stored here, or past its retention
        return {"state": "no reference"}
    recordings = pd.read_parquet(inputs.recordings.path("recordings.parquet"))
    features = pd.read_parquet(inputs.features.path("features.parquet"))
    tasks = recordings["task"][recordings["record_id"].isin(features["record_id"])].unique()
    new = recordings[~recordings["subject_id"].isin(old["subject_id"])]
    new, old = new[new["task"].isin(tasks)], old[old["task"].isin(tasks)]
    n = config.min_people
    rows = [drift_rows.number_row(new, old, name, n) for name in NUMBERS if has(name, new, old)]
    drift_rows.discover(rows, config.false_discovery_rate)
    rows += [
        drift_rows.category_row(new, old, name, n, n_resamples=config.n_resamples, seed=config.seed)
        for name in CATEGORIES
        if has(name, new, old)
    ]
    n_new = int(new["subject_id"].nunique())
    if n_new >= n:
        rows += model_rows(made, new.merge(features, on="record_id"), inputs, config, work)
    is_compared = any(row["compared"] for row in rows)
    return {"state": "compared" if is_compared else "few", "n_new": n_new, "rows": rows}


def has(name: str, new: pd.DataFrame, old: pd.DataFrame) -> bool:
    return name in new and name in old and bool(new[name].notna().any() or old[name].notna().any())


def model_rows(
    made: Mapping[str, str], new: pd.DataFrame, inputs: Inputs, config: Config, work: PlatformWork
) -> list[Record]:
    """What the champion is given of new people, and what it answers; none where it cannot be asked.

    It answered the test people of its own evaluation, whom it had not learned from either.
    """
    from spira_tasks import drift_rows
    from spira_tasks.governance import inventory
    from spira_tasks.speech import cpu
    from spira_tasks.speech.classifier import SPECIFICATION, WEIGHTS, Classifier
    from spira_tasks.speech.features import FeatureSpec

    try:
        stored = work.store.directory(made.get("classifier", ""))
        champion = Classifier.load(stored.path(WEIGHTS), stored.path(SPECIFICATION))
        answers = inventory.read_table(work.store, made.get("report", ""), "predictions.parquet")
    except (ConfigError, ArtifactCorrupt):  # never stored here, or past its retention
        return []
    spec = FeatureSpec.from_json(inputs.features.path("features.json").read_text())
    if champion.spec.features != spec:  # matrices of another kind, which it cannot be given
        return []
    new = new[new["task"] == champion.spec.task]
    if new["subject_id"].nunique() < config.min_people:
        return []
    if len(new) > config.max_scored_recordings:
        new = new.sample(config.max_scored_recordings, random_state=config.seed)
    cpu.prepare(config.n_threads)
    scored = drift_rows.score(champion, new, work.blobs)
    before = answers[answers["split"] == "test"].groupby("subject_id")["clean"].mean()
    n_positive = int((before >= champion.spec.operating_point).sum())
    return [
        drift_rows.coefficients_row(scored, config.min_people),
        drift_rows.positive_rate_row(scored, n_positive, len(before), config.min_people),
    ]
