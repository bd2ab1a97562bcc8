"""From a folder of recordings to one checked table, pseudonymised, and one waveform for each.

Every row ends in one of three places: among the recordings, in quarantine with a reason, or
excluded (a trial of the app, ``sample_type`` TEST).  One bad file never stops a cohort; too many
do, by a verdict that blocks.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from spira_tasks.config import Fraction, Seconds, StageConfig, StageSpec
from spira_tasks.contract.record import Outcome
from spira_tasks.contract.typed import typed
from spira_tasks.contract.verdict import Number, Verdict, few_or
from spira_tasks.errors import ConfigError
from spira_tasks.gating import quarantine, rules
from spira_tasks.gating.quarantine import Refusal
from spira_tasks.intake import pseudonyms
from spira_tasks.intake.pseudonyms import pseudonym
from spira_tasks.speech.compressed import decoder

if TYPE_CHECKING:
    import pandas as pd

    from spira_tasks.artifacts import Directory
    from spira_tasks.contract.step import Shard
    from spira_tasks.intake.audio_reader import AudioReader
    from spira_tasks.intake.layouts import Incoming
    from spira_tasks.intake.record_contract import Faults
    from spira_tasks.intake.releases import Released
    from spira_tasks.work import Work

log = logging.getLogger(__name__)

SPEC = StageSpec(decisions=("releases", "erasures"), audit="ingest")

# Not faults of the data: rows that nobody may use.  They do not count against a cohort.
NOT_PERMITTED = ("consent_withdrawn", "consent_pending", "retention_expired", "erased")
# Only the number of these rows is recorded: their record or site may name a person.
UNNAMED = ("personal_data_in_text", "erased")


@dataclass(frozen=True)
class Inputs:
    data: Directory  # either layout of spira_tasks.intake.layouts
    releases: Directory  # refusals that a person has lifted
    erasures: Directory  # people who are not to come back


@dataclass(frozen=True)
class Outputs:
    recordings: Path  # recordings.parquet
    quarantine: Path  # quarantine.parquet, ward_noise.parquet
    ward_noise: Path  # ward_noise.parquet
    report: Path  # ingest.json: counts by reason, site, task, class


def _today() -> date:
    return datetime.now(UTC).date()


class Config(StageConfig):
    """What is taken in.

    ``as_of``: the day by which retention and dates in the future are checked, by default today; so
    a new day is a new result, and the same table when nothing expired.
    ``sites``: hospitals that are set up; recordings of another are kept and warned of.  Without
    any, nothing is known of sites, and nobody is warned.
    ``pseudonym_key_id``: names the key in the environment; there is no reason to set it.
    ``decoder``: version of the optional decoder, with which more files are read; nor this.
    """

    max_quarantine_fraction: Fraction = 0.05
    max_site_quarantine_fraction: Fraction = 0.20
    min_duration_seconds: Seconds = 1.0
    max_duration_seconds: Seconds = 300.0
    evaluation_noise_fraction: Fraction = 0.3
    sites: tuple[str, ...] = ()
    as_of: date = Field(default_factory=_today)
    pseudonym_key_id: str = Field(default_factory=pseudonyms.key_id)
    decoder: str = Field(default_factory=decoder)


@dataclass(frozen=True)
class Read:
    """What the table that came says, before any recording is listened to."""

    incoming: Incoming
    rows: pd.DataFrame  # as they came, without trials of the app
    table: pd.DataFrame  # typed, of the rows without a fault
    subjects: pd.Series  # pseudonym by row
    faults: Faults
    reader: AudioReader
    is_released: Released
    secret: bytes


def read(inputs: Inputs, config: Config, work: Work) -> Read:
    """Read the table, and find the rows that are refused by what it says alone."""
    from spira_tasks.governance import applied
    from spira_tasks.intake import audio_reader, layouts, record_contract
    from spira_tasks.intake.releases import released

    check_surroundings(config)
    pseudonyms.warn_of_demo_key()
    secret = pseudonyms.key()
    incoming = layouts.read(inputs.data, secret)
    rows = incoming.rows[incoming.rows["sample_type"] != "TEST"]
    pairs = {(one.about["record"], one.about["reason"]) for one in applied.read(inputs.releases)}
    is_released = released(rows["record_id"], pairs)
    erased = {one.about["tag"] for one in applied.read(inputs.erasures)}
    faults: Faults = {}
    refuse = partial(put_aside, faults)
    reader = audio_reader.AudioReader(
        inputs.data, work, config.min_duration_seconds, config.max_duration_seconds, is_released
    )
    # first: no other fault of an erased person is recorded
    refuse(of_erased(incoming, rows, reader, erased, secret))
    rows = pseudonyms.with_one_name_of_each_site(rows, config.sites)
    refuse({row: fault for row, fault in incoming.faults.items() if row in rows.index})
    refuse(pseudonyms.numbers_of_nobody(rows) | pseudonyms.identifiers_in_text(rows))
    table, wrong = record_contract.typed(rows, incoming.required, is_released, incoming.called)
    refuse(wrong)
    table["subject_id"] = subjects = pseudonyms.subject_ids(rows, secret)
    if incoming.layout == "canonical":
        refuse(without_subject(table))
    refuse(not_permitted(table, config.as_of))
    table = table.drop(index=list(faults))
    return Read(incoming, rows, table, subjects, faults, reader, is_released, secret)


def run_shard(inputs: Inputs, config: Config, work: Work, shard: Shard) -> Outcome:
    """Listen to the recordings of a shard; they are in packs, and remembered, from then on."""
    listed = read(inputs, config, work)
    n = listed.reader.work_ahead(listed.table["audio_uri"], shard, "ingest")
    return Outcome({"n_recordings": n})


def run(inputs: Inputs, config: Config, outputs: Outputs, work: Work) -> Outcome:
    from spira_tasks.intake import audio_reader

    listed = read(inputs, config, work)
    incoming, rows, table, reader = listed.incoming, listed.rows, listed.table, listed.reader
    faults, is_released = listed.faults, listed.is_released
    refuse = partial(put_aside, faults)

    measured, wrong = reader.read_audio(table["audio_uri"], "ingest")
    refuse(wrong)
    table = table.join(measured, how="inner")
    if incoming.layout == "published":  # one file, one subject, unless its name said otherwise
        voices = table["audio_sha256"].map(lambda one: pseudonym(listed.secret, "audio", one))
        table["subject_id"] = table["subject_id"].fillna(voices)
    for wrong in (other_bytes(table), contradictions(table)):
        refuse({row: fault for row, fault in wrong.items() if not is_released(row, fault[0])})
    refuse(duplicates(table.drop(index=table.index.intersection(list(faults)))))
    table = finished(table.drop(index=table.index.intersection(list(faults))))
    refusals = {row: refusal(*faults[row]) for row in sorted(faults)}
    about = rows.loc[list(refusals)].assign(subject_id=listed.subjects.loc[list(refusals)])
    about["hospital_id"] = names_of_sites(about, {*config.sites, *table["hospital_id"].dropna()})
    refused = quarantine.table(about, refusals)
    bank, refused_noises = audio_reader.ward_noises(
        incoming.ward_noise, incoming.ward_noise_faults, reader, config.evaluation_noise_fraction
    )

    table.to_parquet(outputs.recordings / "recordings.parquet", index=False)
    refused.to_parquet(outputs.quarantine / quarantine.FILE, index=False)
    refused_noises.to_parquet(outputs.quarantine / "ward_noise.parquet", index=False)
    bank.to_parquet(outputs.ward_noise / "ward_noise.parquet", index=False)
    metrics = {
        "n_rows": len(incoming.rows),
        "n_recordings": len(table),
        "n_subjects": int(table["subject_id"].nunique()),
        "n_quarantined": len(refused),
        "n_excluded": len(incoming.rows) - len(rows),
        "n_ward_noises": len(bank),
        "n_ward_noises_quarantined": len(refused_noises),
        "n_seconds_of_audio": round(float(table["duration_seconds"].sum()), 3),
    }
    report = {"layout": incoming.layout} | metrics | counts(table, refused)
    (outputs.report / "ingest.json").write_text(json.dumps(report, indent=1, sort_keys=True))
    for reason, n in report["n_by_reason"].items():
        log.warning("ingest: %s recordings in quarantine: %s", few_or(n), reason)
    of_rows = verdicts(table, refused, refused_noises, config)
    return Outcome(metrics, (*of_rows, *of_labels(inputs.data)))


def put_aside(faults: Faults, wrong: Faults) -> None:
    """Put rows into quarantine; the first fault of a row counts."""
    for row, fault in wrong.items():
        faults.setdefault(row, fault)


def check_surroundings(config: Config) -> None:
    """ConfigError where the step was made for another key or decoder than there are here."""
    if config.pseudonym_key_id != pseudonyms.key_id():
        raise ConfigError(
            f"the key in {pseudonyms.VARIABLE} is not the one of this step "
            f"({config.pseudonym_key_id}); set that key, or leave pseudonym_key_id out"
        )
    if config.decoder != decoder():
        raise ConfigError(
            f"the optional decoder here is {decoder() or 'not installed'}, and the step was made "
            f"for {config.decoder or 'none'}; install that one, or leave decoder out"
        )


def refusal(reason: str, detail: str) -> Refusal:
    return Refusal(reason, detail, unnamed=reason in UNNAMED, forgotten=reason == "erased")


def names_of_sites(rows: pd.DataFrame, known: Collection[str]) -> pd.Series:
    """The sites that are known or have the form of a name: people write anything into the cell."""
    from spira_tasks.intake.audio_reader import SITE_NAME

    sites = rows.reindex(columns=["hospital_id"])["hospital_id"].astype("str")
    has_form = sites.str.fullmatch(SITE_NAME).fillna(False).astype(bool)
    return sites.where(has_form | sites.isin(known))


def without_subject(table: pd.DataFrame) -> Faults:
    """Rows that do not tell whose voice it is."""
    fault = ("missing_value", "patient_pid, or patient_rgh with hospital_id, is required")
    return dict.fromkeys(table.index[table["subject_id"].isna()], fault)


def of_erased(
    incoming: Incoming, rows: pd.DataFrame, reader: AudioReader, erased: set[str], secret: bytes
) -> Faults:
    """Rows of people who had themselves erased: nothing of them is kept, nor converted."""
    from spira_tasks.intake.pseudonyms import tombstone_tag

    if not erased:
        return {}
    subjects = pseudonyms.subject_ids(rows, secret)
    if incoming.layout == "published":
        voices = reader.sha256(rows["audio_uri"][subjects.isna()])
        subjects = subjects.fillna(voices.map(lambda sha256: pseudonym(secret, "audio", sha256)))
    fault = ("erased", "this person had all recordings erased")
    is_erased = subjects.dropna().map(tombstone_tag).isin(erased)
    return dict.fromkeys(is_erased.index[is_erased], fault)


def not_permitted(table: pd.DataFrame, as_of: date) -> Faults:
    """Rows without consent, past their retention, or from the future."""
    import pandas as pd

    end_of_day = pd.Timestamp(as_of, tz="UTC") + pd.Timedelta(days=1)
    consent, retention = table["consent_status"], table["retention_until"]
    faults: Faults = {}
    for holds, reason, detail in (
        (consent == "withdrawn", "consent_withdrawn", "consent_status is withdrawn"),
        (consent == "pending", "consent_pending", "consent_status is pending"),
        (retention < as_of.isoformat(), "retention_expired", "retention_until is over"),
        *(
            (table[column] > end_of_day, "bad_timestamp", f"{column} is in the future")
            for column in ("collected_at", "ingested_at", "spo2_at")
        ),
    ):
        for row in table.index[holds.fillna(False)]:
            faults.setdefault(row, (reason, detail))
    return faults


def other_bytes(table: pd.DataFrame) -> Faults:
    """Files that are not the ones that were sent."""
    differs = table["sha256"].notna() & (table["sha256"] != table["audio_sha256"])
    fault = ("checksum_mismatch", "the file does not have the sha256 that the row gives")
    return dict.fromkeys(table.index[differs], fault)


def contradictions(table: pd.DataFrame) -> Faults:
    """All rows of a label that two sources give differently: nobody can tell which one holds."""
    label, sample = table["ri_clinical"], table["sample_type"]
    faults: Faults = {}
    for column, shared in (("audio_sha256", "with the same audio"), ("session_id", "of a session")):
        of_one = ["subject_id", column]  # of two people is another fault
        several = table[table.groupby(of_one)["ri_clinical"].transform("nunique") > 1]
        for _, rows in several.groupby(of_one):
            sides = [rows[rows["ri_clinical"] == value].iloc[0] for value in (0, 1)]
            named = " and ".join(_source(side) for side in sides)
            detail = f"ri_clinical differs between the rows {shared}, such as {named}"
            faults = dict.fromkeys(rows.index, ("contradicting_labels", detail)) | faults
    opposite = ((sample == "PATIENT") & (label == 0)) | ((sample == "CONTROL") & (label == 1))
    detail = "sample_type and ri_clinical say opposite things"
    alone = dict.fromkeys(table.index[opposite.fillna(False)], ("contradicting_labels", detail))
    return alone | faults


def _source(row: pd.Series) -> str:
    """Where a label comes from: the number of the row, its task and, where given, its source."""
    about = [str(row[name]) for name in ("task", "label_source") if isinstance(row[name], str)]
    return f"row {row.name} ({', '.join(about)})"


def duplicates(table: pd.DataFrame) -> Faults:
    """What came twice: the first stays, unless two people are said to be heard in one file."""
    faults: Faults = {}
    voices = table.groupby("audio_sha256")["subject_id"].transform("nunique")
    for row in table.index[voices > 1]:
        faults[row] = ("audio_of_two_subjects", "the same audio came for another subject")
    for columns, reason in (
        (["record_id"], "duplicate_record_id"),
        (["audio_sha256"], "duplicate_audio"),
        (["session_id", "task"], "duplicate_session_task"),
    ):
        rest = table.drop(index=list(faults)).dropna(subset=columns)
        for row in rest.index[rest.duplicated(columns)]:
            faults[row] = (reason, f"an earlier row has the same {' and '.join(columns)}")
    return faults


def finished(table: pd.DataFrame) -> pd.DataFrame:
    """The columns in their order, without raw identifiers and file names, sorted by record."""
    from spira_tasks.intake.audio_reader import AUDIO_COLUMNS
    from spira_tasks.intake.record_contract import COLUMNS, RAW_IDENTIFIERS, is_extra

    table = table.assign(label=table["ri_clinical"].astype("Int8"))
    if "split_given" not in table:
        table["split_given"] = None
    table["split_given"] = table["split_given"].astype("str")
    first = ["record_id", "subject_id", "session_id", "hospital_id", "task"]
    dropped = {*first, *RAW_IDENTIFIERS, "audio_uri"}
    contract = [name for name in COLUMNS if name not in dropped]
    extra = sorted(name for name in table if is_extra(name))
    columns = [*first, *contract, *extra, "label", "split_given", *AUDIO_COLUMNS]
    return table[columns].sort_values("record_id", ignore_index=True)


def counts(table: pd.DataFrame, refused: pd.DataFrame) -> dict[str, Any]:
    """Numbers of recordings by what they are, and of refused ones by reason and source."""

    def by(column: pd.Series) -> dict[str, int]:
        return {str(value): int(n) for value, n in column.value_counts().sort_index().items()}

    return {
        "n_by_reason": by(refused["reason"]),
        "n_quarantined_by_site": by(refused["hospital_id"]),
        "n_by_site": by(table["hospital_id"]),
        "n_by_task": by(table["task"]),
        "n_by_label": by(table["label"]),
        "n_without_label": int(table["label"].isna().sum()),
        "n_by_split_given": by(table["split_given"]),
    }


def of_labels(data: Directory) -> Iterator[Verdict]:
    """What the sheet of a snapshot says of its labels, which no table of recordings says."""
    from spira_tasks.intake.record_contract import SHEET

    if SHEET not in data.names:
        return
    try:
        checks = json.loads(data.read(SHEET)).get("checks", ())
        known = typed(checks, tuple[Verdict, ...], "checks")
    except (ValueError, AttributeError):
        raise ConfigError(
            f"{SHEET} in the data is no sheet of a snapshot; write it again"
        ) from None
    yield from (one for one in known if one.suite == "labels" and not one.stops)


def verdicts(
    table: pd.DataFrame, refused: pd.DataFrame, refused_noises: pd.DataFrame, config: Config
) -> tuple[Verdict, ...]:
    """Whether what is left may be used: the share of faulty rows, in all and by site.

    Rows that may not be used (consent, retention) are no fault of the data and do not count.
    """
    faulty = refused[~refused["reason"].isin(NOT_PERMITTED)]
    n_sites = int(table["hospital_id"].nunique())
    unseen = set(table["hospital_id"].dropna()) - set(config.sites) if config.sites else set()
    return (
        *rules.shares(
            table,
            faulty,
            max_fraction=config.max_quarantine_fraction,
            max_site_fraction=config.max_site_quarantine_fraction,
            emptied=table.empty,
        ),
        Verdict(
            "known_sites",
            "warn" if unseen else "pass",
            observed=Number(len(unseen), "sites") if config.sites else None,
            n=n_sites,
            n_unit="sites",
        ),
        rules.standard_limits(
            config,
            ("max_quarantine_fraction", "max_site_quarantine_fraction", "max_duration_seconds"),
            ("min_duration_seconds",),
            ["as_of"] if config.as_of < _today() else [],
        ),
        Verdict(
            "ward_noise_files",
            "warn" if len(refused_noises) else "pass",
            observed=Number(len(refused_noises), "items"),
        ),
    )
