"""The features that a store holds: what they are, who answers for them, and who reads them.

Features are the same where everything that determines them is: the ``schema`` of their
specification names them.  Readers are read from the pipelines, from the records of runs and from
the registry of models; programs outside declare themselves in ``features.toml``.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import in_threads
from spira_tasks.contract.pipelines import HANDED_ON, PIPELINES
from spira_tasks.contract.run import Run, StepRecord
from spira_tasks.errors import ArtifactCorrupt, ConfigError
from spira_tasks.governance import retention
from spira_tasks.governance.inventory import Holding, digest_of_entry, read_file, read_table
from spira_tasks.governance.retention import Plan, Policy

if TYPE_CHECKING:
    import pandas as pd

DECLARED = Path(__file__).with_name("features.toml")
TABLE, SPECIFICATION = "features.parquet", "features.json"
NOBODY = "nobody yet"


@dataclass
class Features:
    """What a store has of one specification."""

    schema: str
    specification: dict[str, Any]
    owner: str
    declared: tuple[str, ...]  # steps of the pipelines, and programs outside
    tables: dict[str, StepRecord] = field(default_factory=dict)  # artifact: how it came to be
    recordings: dict[str, str] = field(default_factory=dict)  # artifact to that of its recordings
    runs: set[str] = field(default_factory=set)
    readers: set[str] = field(default_factory=set)  # steps that have read them
    models: set[str] = field(default_factory=set)  # versions that learned from them
    matrices: set[str] = field(default_factory=set)  # digests
    n_bytes: int = 0

    @property
    def name(self) -> str:
        return str(self.specification["name"])

    @property
    def newest(self) -> str:
        """The artifact that was made last."""
        return max(self.tables, key=lambda digest: self.tables[digest].finished_at)

    @property
    def undeclared(self) -> set[str]:
        """Steps that have read them, and are of no pipeline."""
        return {step for step in self.readers if step not in self.declared}


def catalogue(store: Store) -> list[Features]:
    """Everything that runs have materialized and that is still there, the newest first."""
    runs = list(store.runs)
    found: dict[str, Features] = {}  # by schema
    of_artifact: dict[str, Features] = {}
    for run in runs:
        for step, record in run.steps.items():
            if record.stage == "materialize" and (digest := record.outputs.get("features")):
                made_from = run.inputs(step).get("recordings", "")
                if known := _add(store, found, digest, made_from):
                    known.tables[digest] = record
                    known.runs.add(run.run_id)
                    of_artifact[digest] = known
    classifiers = _versions(store)
    for run in runs:
        version = classifiers.get(run.digest("evaluate.classifier"))
        for known in _read_in(run, of_artifact):
            if version:
                known.models.add(version)
    for known in found.values():
        sizes = in_threads(store.blobs.size, sorted(known.matrices))
        known.n_bytes = sum(size or 0 for size in sizes)
    return sorted(found.values(), key=lambda one: one.tables[one.newest].finished_at, reverse=True)


def _add(store: Store, found: dict[str, Features], digest: str, made_from: str) -> Features | None:
    """Take a table of features into account; None where it went by a rule of retention."""
    try:
        specification = json.loads(read_file(store, digest, SPECIFICATION))
        table = read_table(store, digest, TABLE)
    except (ArtifactCorrupt, ConfigError):
        return None
    schema, about = schema_of(specification), declared().get(str(specification["name"]), {})
    readers = (*steps_that_read(), *about.get("readers", ()))
    owner = str(about.get("owner", NOBODY))
    known = found.setdefault(schema, Features(schema, specification, owner, readers))
    known.recordings[digest] = made_from
    known.matrices |= set(table["features"])
    return known


def _read_in(run: Run, of_artifact: Mapping[str, Features]) -> list[Features]:
    """The features that steps of a run have read, behind a gate too; notes who did."""
    handed_on: dict[str, Features] = {}
    read = []
    for step, record in run.steps.items():
        for digest in run.inputs(step).values():
            known = of_artifact.get(digest) or handed_on.get(digest)
            if known is None:
                continue
            known.readers.add(step)
            read.append(known)
            if record.stage == "validate" and "table" in record.outputs:
                handed_on[record.outputs["table"]] = known  # without what it refused
    return read


def find(store: Store, name: str) -> Features:
    """The features whose schema begins so, or the newest of a name.

    Raises
    ------
    ConfigError
        When there are none, or several.
    """
    known = catalogue(store)
    of_name = [one for one in known if one.name == name][:1]
    chosen = of_name or [one for one in known if name and one.schema.startswith(name)]
    if len(chosen) == 1:
        return chosen[0]
    listed = ", ".join(f"{one.name} ({one.schema})" for one in known) or "none yet"
    problem = "names several" if chosen else "names none"
    raise ConfigError(f"{name!r} {problem} of the features in {store.url}: {listed}")


def statistics(store: Store, features: Features) -> pd.DataFrame:
    """Quantiles over the recordings of the newest table: one row a measure; no one recording's."""
    table = read_table(store, features.newest, TABLE)
    measures = ["n_windows", "mean", "std", "min", "max"]
    quantiles = table[measures].quantile([0.05, 0.25, 0.5, 0.75, 0.95]).transpose()
    quantiles.columns = ["p5", "p25", "median", "p75", "p95"]
    return quantiles


def pairs(store: Store, features: Features) -> tuple[pd.Series, pd.Series]:
    """Digests of the newest matrices, and of the waveform of each; NaN where it is gone."""
    table = read_table(store, features.newest, TABLE).set_index("record_id")["features"]
    recordings = read_table(store, features.recordings[features.newest], "recordings.parquet")
    return table, recordings.set_index("record_id")["waveform"].reindex(table.index)


def unneeded(store: Store, policy: Policy) -> Plan:
    """What retention would remove now, of features alone.

    It is kept while a run used it within the days of its class, while a registered model came from
    it or a legal hold covers it, and while it is young.
    """
    whole = retention.plan(store, policy)
    matrices = set(store.blobs.mentioned_as("features"))
    going = {item.name for item in whole.items}
    trees = {
        entry.name: digest_of_entry(entry.name)
        for entry in store.entries("trees")
        if entry.name in going and SPECIFICATION in store.files(digest_of_entry(entry.name))
    }
    files = {digest for tree in trees.values() for digest in store.files(tree).values()}
    digests = set(trees.values())

    def is_of_features(name: str) -> bool:
        folder = name.partition("/")[0]
        if folder == "blobs":
            return digest_of_entry(name) in matrices | files
        if folder == "results":
            outputs = (store.documents.read(name) or {}).get("outputs", {}).values()
            return not digests.isdisjoint(outputs)
        return name in trees

    return Plan([item for item in whole.items if is_of_features(item.name)], Holding())


def declared() -> dict[str, dict[str, Any]]:
    """Owner and outside readers by name of a feature."""
    return dict(tomllib.loads(DECLARED.read_text()))


def steps_that_read() -> list[str]:
    """The steps of all pipelines that read what materialize puts out, behind its gate too."""
    names = []
    for pipeline in PIPELINES.values():
        made = {step.name for step in pipeline.all_steps if step.stage == "materialize"}
        for step in pipeline:  # makers come first
            if made.isdisjoint(step.upstream):
                continue
            names.append(step.name)
            if step in pipeline.gates and not made.isdisjoint(
                [step.inputs[HANDED_ON[step.stage]].partition(".")[0]]
            ):
                made.add(step.name)
    return list(dict.fromkeys(names))


def schema_of(specification: dict[str, Any]) -> str:
    from spira_tasks.speech.strategies import FeatureSpec

    return FeatureSpec(**specification).schema


def _versions(store: Store) -> dict[str, str]:
    """Digest of a registered classifier to the number of its version."""
    from spira_tasks import tracking

    return {one.classifier: one.version for one, _ in tracking.versions(store.tracking_uri)}
