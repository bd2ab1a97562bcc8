"""Weak labels on their way into a training: never where a model is measured."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from gating import MEASURED, few_expectations
from suites import Table, recordings

from spira_tasks.artifacts import Store
from spira_tasks.contract.record import Result
from spira_tasks.contract.step import Step
from spira_tasks.errors import GateRejected
from spira_tasks.runner import run_step

__all__ = ["few_expectations"]  # a fixture
pytestmark = pytest.mark.usefixtures("few_expectations")


def weak(every: int) -> Table:
    """Two recordings a person; the label of every so many-th person is weak."""
    table = recordings()
    is_weak = table.index // 2 % every == 0
    return table.assign(label_source=np.where(is_weak, "weak", "clinician"))


def kept(store: Store, folder: Path, table: Table, **texts: str) -> str:
    folder.mkdir()
    table.to_parquet(folder / "recordings.parquet", index=False)
    for name, text in texts.items():
        (folder / f"{name}.json").write_text(text)
    return store.put_directory(folder)


def divided(store: Store, recordings: str) -> Result:
    return run_step(Step("split", "split", {"recordings": recordings}), "r", store)


def checked(store: Store, table: str, source: str) -> Result:
    inputs = {"table": table, "source": source}
    return run_step(Step("check", "validate", inputs, {"gate": "training_set"}), "r", store)


def rows(store: Store, digest: str) -> Table:
    return pd.read_parquet(store.directory(digest).path("recordings.parquet"))


def test_the_split_leaves_weak_labels_out_where_a_model_is_measured(
    store: Store, tmp_path: Path
) -> None:
    source = kept(store, tmp_path / "source", weak(every=3))
    sound = kept(store, tmp_path / "sound", weak(every=10**6).assign(label_source="clinician"))
    found, all_of_them = (divided(store, one) for one in (source, sound))
    table, whole = (rows(store, one.outputs["recordings"]) for one in (found, all_of_them))

    sides = whole.set_index("record_id")["split"]
    assert (sides[table["record_id"]] == table["split"].to_numpy()).all()  # nobody moved
    gone = whole[~whole["record_id"].isin(table["record_id"])]
    n_weak = Counter(table.loc[table["label_source"] == "weak", "split"])
    assert (set(n_weak), set(gone["split"])) == ({"train"}, {"validation", "test"})
    assert n_weak["train"] + len(gone) == 80
    report = store.directory(found.outputs["report"]).read("split.json")
    assert json.loads(report)["n_recordings_weak_left_out"] == len(gone)
    assert found.metrics["n_excluded_weak"] == len(gone)
    assert store.directory(all_of_them.outputs["recordings"]).names == ("recordings.parquet",)

    assert checked(store, found.outputs["recordings"], source).metrics["n_blocked"] == 0


def test_the_gate_takes_no_weak_label_where_a_model_is_measured_whatever_brought_it(
    store: Store, tmp_path: Path
) -> None:
    table = weak(every=3).assign(split=["train"] * 200 + ["validation"] * 20 + ["test"] * 20)
    digest = kept(store, tmp_path / "table", table)
    with pytest.raises(GateRejected):
        checked(store, digest, digest)
    verdicts = {one.id: one.status for one in store.runs.read("r").steps["check"].verdicts}
    assert verdicts[MEASURED] == "block"


@pytest.mark.parametrize(("n_dropped", "n_named"), [(2, 0), (2, 1), (0, 2)])
def test_more_or_fewer_weak_labels_than_the_split_names_are_lost(
    store: Store, tmp_path: Path, n_dropped: int, n_named: int
) -> None:
    table = weak(every=3).assign(split="train")
    source = kept(store, tmp_path / "source", table)
    left = table.drop(index=table.index[table["label_source"] == "weak"][:n_dropped])
    named = json.dumps({"n_weak": n_named})
    with pytest.raises(GateRejected, match="rows_conserved"):
        checked(store, kept(store, tmp_path / "table", left, left_out=named), source)
