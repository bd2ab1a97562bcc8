"""Which gates stand behind a model, told by what the steps that made it recorded.

A step that is run by hand takes any artifact as its input, so that a model may come to the
promotion from recordings that no gate has seen.  An artifact is its content: one that a gate handed
on in any run was handed on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spira_tasks.artifacts import Store


@dataclass(frozen=True)
class Gate:
    """A use of a stage that lets a table through, or not.

    ``suite`` is empty where it has none.  ``before``: another gate, which took what this one handed
    on as its ``source``, so that every row of its own table is from there.
    """

    name: str
    stage: str
    suite: str
    output: str
    before: Gate | None = None


TRAINING_SET = Gate("check_training_set", "validate", "training_set", "table")
# What a training and an evaluation read, by the name of the input, and the gates in front of it.
GATES: Mapping[str, tuple[Gate, ...]] = {
    "recordings": (
        Gate("check_recordings", "validate", "recordings", "table", before=TRAINING_SET),
        TRAINING_SET,
        Gate("check_drift", "drift", "", "recordings"),
    ),
    "features": (Gate("check_features", "validate", "features", "table"),),
    "ward_noise": (Gate("check_ward_noise", "validate", "ward_noise", "table"),),
}
Record = Mapping[str, Any]
Made = tuple[Record, Mapping[str, str]]  # a record, and its inputs by digest


def missed_by(store: Store, classifier: str) -> list[str]:
    """Names of the gates that a classifier is not known to have come through.

    Parameters
    ----------
    classifier : str
        Digest of the artifact.

    Returns
    -------
    list of str
        A gate is among them where the training or the evaluation read something that it did not
        hand on, or that it blocked; all are where no record says what the model was made of.
    """
    steps = list(_steps(store))
    evaluations = [made for made in steps if made[0]["outputs"].get("classifier") == classifier]
    models = {inputs.get("model") for _, inputs in evaluations} - {None}
    trainings = [made for made in steps if made[0]["outputs"].get("model") in models]
    return [
        gate.name
        for name, gates in GATES.items()
        for gate in gates
        if not all(
            any(_handed_on(steps, gate, inputs.get(name, "")) for _, inputs in readers)
            for readers in (trainings, evaluations)
        )
    ]


def _handed_on(steps: Sequence[Made], gate: Gate, digest: str) -> bool:
    if gate.before is None:
        return bool(_readings(steps, gate, digest))
    sources = [inputs.get("source", "") for inputs in _readings(steps, gate.before, digest)]
    return any(_readings(steps, gate, source) for source in sources)


def _readings(steps: Sequence[Made], gate: Gate, digest: str) -> list[Mapping[str, str]]:
    """What the gate read each time that it handed a table on."""
    return [
        inputs
        for record, inputs in steps
        if record["stage"] == gate.stage
        and record["state"] == "done"
        and (not gate.suite or (record.get("config") or {}).get("gate") == gate.suite)
        and record["outputs"].get(gate.output) == digest
    ]


def _steps(store: Store) -> Iterable[Made]:
    """Every step of every run that made something, with the digests that it read."""
    for run_id in store.run_ids():
        records = {
            name: record
            for name in store.record_names(run_id)
            if (record := store.read_record(run_id, name)) and record.get("outputs")
        }
        for record in records.values():
            inputs = {}
            for name, reference in record.get("inputs", {}).items():
                step, _, output = reference.partition(".")
                made = records.get(step, {}).get("outputs", {})
                inputs[name] = reference if ":" in reference else made.get(output, "")
            yield record, inputs
