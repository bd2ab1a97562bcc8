"""How a model was made, by the records of its steps: which gates it missed, and how it was trained.

A step that is run by hand takes any artifact as its input, so a model may come from recordings that
no gate has checked.  It does not matter in which run a gate handed an artifact on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spira_tasks.artifacts import Store
from spira_tasks.contract.pipelines import HANDED_ON, TRAINING
from spira_tasks.contract.run import StepRecord
from spira_tasks.contract.step import Step
from spira_tasks.contract.verdict import Verdict

READERS = ("train", "evaluate")
Made = tuple[StepRecord, Mapping[str, str]]  # a record, and its inputs by digest
Link = tuple[Step, str]  # a gate, and the input of it that the gate before handed on


def made_by(store: Store) -> list[Made]:
    """Every step that was recorded, with its inputs by digest; over a network it takes a while."""
    return [(one, run.inputs(one.step)) for run in store.runs for one in run.steps.values()]


def missed_by(made: Sequence[Made], classifier: str) -> list[str]:
    """Names of the gates that a classifier, by its digest, is not known to have come through.

    That is a gate that did not hand on what the training or the evaluation read; and every gate
    where no record says what the model was made of.
    """
    evaluations = [inputs for one, inputs in made if one.outputs.get("classifier") == classifier]
    trainings = [inputs for _, inputs in _trainings(made, classifier)]
    inputs_of = [TRAINING.step(step).inputs for step in READERS]
    references = {name: reference for inputs in inputs_of for name, reference in inputs.items()}
    asked: set[str] = set()  # each gate of the first input that it stands behind: recordings
    missed: set[str] = set()
    for name, reference in references.items():
        chain = [link for link in TRAINING.gates_behind(reference) if link[0].name not in asked]
        every_gate = {gate.name for gate, _ in chain}
        asked |= every_gate
        for readers in (trainings, evaluations):
            missed_by_each = [_missed(made, chain, inputs.get(name, "")) for inputs in readers]
            missed |= every_gate.intersection(*missed_by_each)
    return [gate.name for gate in TRAINING.gates if gate.name in missed]


def left_open_behind(made: Sequence[Made], classifier: str) -> list[Verdict]:
    """The checks of the data behind a classifier, by its digest, that prove nothing.

    They were waived, or nobody could tell whether the data give the label away.  Of a gate that
    handed the same table on several times the last record counts.
    """
    read = [inputs for _, inputs in _trainings(made, classifier)]
    read += [inputs for one, inputs in made if one.outputs.get("classifier") == classifier]
    found: dict[tuple[str, str], Verdict] = {}
    for reader in READERS:
        for name, reference in TRAINING.step(reader).inputs.items():
            chain = TRAINING.gates_behind(reference)
            for digest in {inputs[name] for inputs in read if name in inputs}:
                for gate, readings in _readings(made, chain, digest):
                    is_asked = gate.stage == "confounds"  # drift may be undecided for good reasons
                    for one in sorted(readings, key=lambda one: one.finished_at)[-1:]:
                        found |= {
                            (v.suite, v.id): v
                            for v in one.verdicts
                            if v.waiver or (is_asked and v.status == "insufficient")
                        }
    return list(found.values())


def label_in_noise(made: Sequence[Made], classifier: str) -> tuple[bool, set[str]]:
    """Whether ward noise differed by label in a training of a classifier, by its digest.

    Returns
    -------
    bool, set of str
        The second holds the presets that such a training had.
    """
    configs = [one.config for one, _ in _trainings(made, classifier)]
    seen = [
        config
        for config in configs
        if config.get("patient_noises")
        not in (None, [config.get("min_noises"), config.get("max_noises")])
    ]
    return bool(seen), {config["preset"] for config in seen if config.get("preset")}


def settings_of(made: Sequence[Made], classifier: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Stage and configuration of every step that a classifier, by its digest, came from."""
    found: dict[int, tuple[str, Mapping[str, Any]]] = {}
    digests = {classifier}
    while True:
        new = {
            n
            for n, (one, _) in enumerate(made)
            if n not in found and not digests.isdisjoint(one.outputs.values())
        }
        if not new:
            return list(found.values())
        for n in new:
            one, inputs = made[n]
            found[n] = (one.stage, one.config)
            digests |= {digest for digest in inputs.values() if digest}


def _trainings(made: Sequence[Made], classifier: str) -> list[Made]:
    models = {
        inputs.get("model") for one, inputs in made if one.outputs.get("classifier") == classifier
    }
    return [
        (one, inputs) for one, inputs in made if one.outputs.get("model") in models - {None, ""}
    ]


def _missed(made: Sequence[Made], chain: Sequence[Link], digest: str) -> set[str]:
    """The gates of a chain, the last first, that did not hand on a table or what it came from."""
    return {gate.name for gate, readings in _readings(made, chain, digest) if not readings}


def _readings(
    made: Sequence[Made], chain: Sequence[Link], digest: str
) -> Iterator[tuple[Step, list[StepRecord]]]:
    """Each gate of a chain with its records that handed on a table, or what it came from."""
    digests = {digest}
    for gate, came_from in chain:
        readings = [
            (one, inputs)
            for one, inputs in made
            if (one.stage, one.state) == (gate.stage, "done")
            and one.config.get("gate") == gate.config.get("gate")
            and one.outputs.get(HANDED_ON[gate.stage]) in digests
        ]
        if readings:
            digests = {inputs.get(came_from, "") for _, inputs in readings}
        yield gate, [one for one, _ in readings]
