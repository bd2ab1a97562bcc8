"""The kinds of gate: which suites apply, what they need beside the table, what must be conserved.

A new kind of gate is an entry of ``KINDS`` and of ``suites``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

    from spira_tasks.artifacts import Blobs, Directory
    from spira_tasks.quality import SuiteFor

Gate = Literal["recordings", "training_set", "features", "ward_noise"]


@dataclass(frozen=True)
class Given:
    """What a gate may look at beside its table."""

    table: Directory  # the artifact of the table,
    source: Directory  # and what the table was made from
    erased_tags: frozenset[str]  # tombstones of the people who had themselves erased
    blobs: Blobs
    n_parity_recordings: int  # how many recordings have their features computed again
    tasks: tuple[str, ...]  # what the model is trained on


Columns = dict[str, Any]  # name to a column that an expectation needs; it is not handed on


@dataclass(frozen=True)
class Kind:
    """What one kind of gate does."""

    # Columns that the expectations need and the table does not have.
    measure: Callable[[pd.DataFrame, Given], Columns]
    # How many records of the source are not in the table, and how many are new in it.
    lost_and_new: Callable[[pd.DataFrame, Given], tuple[int, int]]


def suites(gate: Gate) -> list[SuiteFor]:
    """The functions that make the suites for a table; importing them takes seconds."""
    from expectations.suites import audio, features, labels, metadata, training_set, ward_noise

    found: dict[Gate, list[SuiteFor]] = {
        "recordings": [metadata.suite, audio.suite],
        "training_set": [training_set.suite, labels.suite],
        "features": [features.suite],
        "ward_noise": [ward_noise.suite],
    }
    return found[gate]


def _nothing(frame: pd.DataFrame, given: Given) -> Columns:
    return {}


def _erased_and_trained(frame: pd.DataFrame, given: Given) -> Columns:
    from spira_tasks.intake.pseudonyms import tombstone_tag

    return {
        "erased": frame["subject_id"].map(tombstone_tag).isin(given.erased_tags),
        "trained": (frame["task"].isin(given.tasks) & frame["label"].notna()).astype(int),
    }


def _longest_recording(frame: pd.DataFrame, given: Given) -> Columns:
    import pandas as pd

    longest = _recordings(given.source)["duration_seconds"].max()
    return {"longest_recording_seconds": pd.Series(longest, frame.index, dtype="float64")}


def _computed_again(frame: pd.DataFrame, given: Given) -> Columns:
    """What the code that runs makes of the stored waveforms, beside what is in the table."""
    from spira_tasks.corpus import parity
    from spira_tasks.speech.features import FeatureSpec

    spec = FeatureSpec.from_json(given.table.path("features.json").read_text())
    waveforms = _recordings(given.source).set_index("record_id")["waveform"]
    return {
        "schema_of_code": spec.schema,
        "n_frames_of_code": spec.n_frames,
        "n_bins_of_code": spec.n_bins,
        "parity_difference": parity(
            frame["features"],
            frame["record_id"].map(waveforms),
            spec,
            given.blobs,
            given.n_parity_recordings,
        ),
    }


def _against_ingest(frame: pd.DataFrame, given: Given) -> tuple[int, int]:
    counts = json.loads(given.source.read("ingest.json"))
    n_before = counts["n_rows"] - counts["n_quarantined"] - counts["n_excluded"]
    return max(n_before - len(frame), 0), max(len(frame) - n_before, 0)


def _against_recordings(frame: pd.DataFrame, given: Given) -> tuple[int, int]:
    """The split says how many recordings with weak labels it left out: so many, and no others."""
    from spira_tasks.intake.record_contract import LEFT_OUT, WEAK_SOURCES

    before = _recordings(given.source)
    is_weak = before["label_source"].isin(WEAK_SOURCES)
    n_lost, n_new = _compare(before, frame)
    n_weak_lost, _ = _compare(before[is_weak], frame)
    named = json.loads(given.table.read(LEFT_OUT)) if LEFT_OUT in given.table.names else {}
    n_unnamed = abs(n_weak_lost - int(named.get("n_weak", 0)))
    return n_lost - n_weak_lost + n_unnamed, n_new


def _against_recordings_of_tasks(frame: pd.DataFrame, given: Given) -> tuple[int, int]:
    """Features are computed of some tasks only."""
    before = _recordings(given.source)
    tasks = before["task"][before["record_id"].isin(frame["record_id"])].unique()
    return _compare(before[before["task"].isin(tasks)], frame)


def _from_elsewhere(frame: pd.DataFrame, given: Given) -> tuple[int, int]:
    """The source of ward noise is there for the lengths of recordings."""
    return 0, 0


def _recordings(source: Directory) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(source.path("recordings.parquet"))


def _compare(before: pd.DataFrame, frame: pd.DataFrame) -> tuple[int, int]:
    n_lost = int((~before["record_id"].isin(frame["record_id"])).sum())
    return n_lost, len(frame) - (len(before) - n_lost)


KINDS: dict[Gate, Kind] = {
    "recordings": Kind(_nothing, _against_ingest),
    "training_set": Kind(_erased_and_trained, _against_recordings),
    "features": Kind(_computed_again, _against_recordings_of_tasks),
    "ward_noise": Kind(_longest_recording, _from_elsewhere),
}
