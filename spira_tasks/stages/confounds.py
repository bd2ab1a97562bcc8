"""Gate: can the label be told from what is not the illness?

Small classifiers listen to the noise alone and to the channel alone, and read who was recorded,
where and by which device.  Where such a classifier tells patients from controls, a network would
learn that in place of the illness.  Another is given permuted labels, of which nothing can be
learned.  The recordings are handed on unchanged.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spira_tasks.config import StageConfig, StageSpec
from spira_tasks.contract.record import Outcome
from spira_tasks.governance import applied

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from expectations.policy import Probes
    from spira_tasks.artifacts import Directory, Packs
    from spira_tasks.evaluation.probes import Heard
    from spira_tasks.work import PlatformWork, Record

SPEC = StageSpec(  # the policy is no input: what is remembered is judged anew when it changes
    outside=True, decisions=("waivers",), audit="gate"
)


@dataclass(frozen=True)
class Inputs:
    recordings: Directory  # recordings.parquet with the column ``split``
    features: Directory  # features.parquet: which recordings are learned from, and their features
    waivers: Directory


@dataclass(frozen=True)
class Outputs:
    recordings: Path  # the input itself
    report: Path  # confounds.json: what the probes heard, and the verdicts


class Config(StageConfig):
    """No run may set anything: the rules are the policy, ``expectations/policy.yaml``."""


def run(inputs: Inputs, config: Config, outputs: Outputs, work: PlatformWork) -> Outcome:
    from expectations import policy
    from expectations.gates import confounds

    rules = policy.read().rules
    first_time: list[bool] = []

    def make() -> Record:
        first_time.append(True)
        return measured(inputs, rules.probes, work.blobs)

    parts = {
        "recordings": inputs.recordings.digest,
        "features": inputs.features.digest,
        "probes": rules.probes.model_dump(),
    }
    found = work.remember(parts, make)
    waivers = applied.read(inputs.waivers)
    verdicts = tuple(applied.waive(one, waivers) for one in confounds.verdicts(found, rules))

    inputs.recordings.copy_to(outputs.recordings)
    content = found | {
        "policy": {"version": rules.version, "digest": policy.read().digest},
        "verdicts": [verdict.to_dict() for verdict in verdicts],
    }
    (outputs.report / "confounds.json").write_text(json.dumps(content, indent=1, sort_keys=True))
    n_by_status = Counter(verdict.status for verdict in verdicts)
    return Outcome(
        {
            "n_subjects": found["n_subjects"],
            "n_probes": len(found["probes"]),
            "n_insufficient": n_by_status["insufficient"],
            "n_blocked": sum(verdict.stops for verdict in verdicts),
        },
        verdicts,
        changed=bool(first_time),
    )


def measured(inputs: Inputs, rule: Probes, blobs: Packs) -> Record:
    """What each probe hears; plain JSON, no value of anybody in it."""
    import pandas as pd

    from spira_tasks.evaluation import metadata
    from spira_tasks.speech import background

    table = pd.read_parquet(inputs.recordings.path("recordings.parquet"))
    features = pd.read_parquet(inputs.features.path("features.parquet"))
    table = table[table["label"].notna()]
    learned = table.merge(features[["record_id", "features"]], on="record_id", validate="1:1")
    people = learned["subject_id"].drop_duplicates()
    if len(people) > rule.max_people:
        people = people.sample(rule.max_people, random_state=rule.seed)
        learned = learned[learned["subject_id"].isin(people)].reset_index(drop=True)
    ambient = table[(table["task"] == "AMBIENT") & table["subject_id"].isin(people)]
    edges = listened(learned, blobs, background.of_edges)
    measures = {
        "ambient": (listened(ambient, blobs, lambda pcm16: background.room([pcm16])), ambient),
        "edges": (edges[[*background.ROOM]], learned),
        "channel": (edges[[*background.CHANNEL]], learned),
        "metadata": (metadata.encoded(learned), learned),
    }
    views = {"metadata": metadata.views}
    found = {
        name: probed(values, rows, rule, views.get(name))
        for name, (values, rows) in measures.items()
    }
    return {
        "n_subjects": len(people),
        "probes": {name: asdict(one) for name, one in found.items() if one},
        "unheard": [name for name, (_, rows) in measures.items() if len(rows) and not found[name]],
        "permuted": permuted(learned, rule, blobs),
    }


def listened(
    rows: pd.DataFrame, blobs: Packs, listen: Callable[[NDArray[np.int16]], dict[str, float]]
) -> pd.DataFrame:
    """What is heard in each recording."""
    import pandas as pd

    from spira_tasks.progress import progress
    from spira_tasks.speech.audio import read_pcm16

    waveforms = progress(rows["waveform"], "listen for confounds", total=len(rows))
    heard = [listen(read_pcm16(blobs.read(digest))) for digest in waveforms]
    return pd.DataFrame(heard, index=rows.index)


def probed(
    values: pd.DataFrame,
    rows: pd.DataFrame,
    rule: Probes,
    views: Callable[[Sequence[str]], dict[str, list[int]]] | None = None,
) -> Heard | None:
    """What a probe hears; None where a class has fewer than two, or nothing was measured."""
    from spira_tasks.evaluation import probes

    measures, ill = probes.of_people(values, rows["label"], rows["subject_id"])
    if min(ill.sum(), (1 - ill).sum()) < 2 or measures.empty:  # who is held out leaves nobody
        return None
    return probes.hear(
        measures.to_numpy(float),
        ill,
        views=views and views(measures.columns),
        n_permutations=rule.n_permutations,
        n_resamples=rule.n_resamples,
        seed=rule.seed,
    )


def permuted(learned: pd.DataFrame, rule: Probes, blobs: Packs) -> Record | None:
    """What is learned of permuted labels with the split and the features of the model.

    None where a side has one class only.
    """
    import numpy as np

    from spira_tasks.corpus import load_features
    from spira_tasks.evaluation import probes

    tested = learned["split"].eq("test").to_numpy()
    sides = learned.groupby(tested)["label"].nunique()
    if len(sides) < 2 or sides.min() < 2:
        return None
    matrices = (load_features(digest, blobs).numpy() for digest in learned["features"])
    means = [np.concatenate([one.mean((0, 1)), one.std((0, 1))]) for one in matrices]
    estimate = probes.permuted(
        np.array(means, float),
        learned["label"],
        learned["subject_id"],
        tested,
        n_permutations=rule.n_permutations,
        seed=rule.seed,
    )
    people = learned[tested].groupby("subject_id")["label"].first()
    n_patients = int(people.sum())
    return {
        "auc": asdict(estimate),
        "n_patients": n_patients,
        "n_controls": len(people) - n_patients,
    }
