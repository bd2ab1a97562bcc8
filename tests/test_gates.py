"""The reason for this platform: models that learned nothing, or the wrong thing, are refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from spira_tasks import show
from spira_tasks.artifacts import Store
from spira_tasks.cohort import write_cohort
from spira_tasks.errors import GateRejected
from spira_tasks.pipelines import TRAINING, configure
from spira_tasks.runner import run_step

pytestmark = pytest.mark.slow


def description_of_a_run(
    folder: Path, *, seed: int, signal: float, confounds: Sequence[str], **settings: object
) -> dict[str, object]:
    """Make a cohort of 80 people, run the pipeline on it, say what came out."""
    write_cohort(
        folder / "c", subjects=80, seed=seed, signal=signal, confounds=confounds, progress=False
    )
    store = Store(str(folder / "store"))
    changed = {f"train.{name}": value for name, value in settings.items()}
    try:
        for step in configure(TRAINING, data=str(folder / "c"), settings=changed):
            run_step(step, "r", store)
    except GateRejected:
        pass  # told by the description
    return show.describe("r", store)


def verdicts(description: dict[str, object]) -> dict[str, str]:
    steps = {step["name"]: step for step in description["steps"]}  # type: ignore[attr-defined]
    return {verdict["name"]: verdict["verdict"] for verdict in steps["promote"]["verdicts"]}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_without_a_signal_nothing_is_learned_and_nothing_is_promoted(
    seed: int, tmp_path: Path
) -> None:
    description = description_of_a_run(tmp_path, seed=seed, signal=0, confounds=(), epochs=4)
    evaluate = {s["name"]: s for s in description["steps"]}["evaluate"]["metrics"]  # type: ignore[attr-defined]
    assert evaluate["auc_low"] < 0.5  # not above chance
    assert verdicts(description)["auc_above_chance"] == "block"
    assert description["outcome"] == "blocked"
    assert description["model"]["aliases"] == ["challenger"]  # type: ignore[index]


def test_a_model_that_hears_the_ward_is_refused_however_right_it_is(tmp_path: Path) -> None:
    """SPIRA's own history: no illness in the voices, patients in wards, controls at home."""
    description = description_of_a_run(
        tmp_path, seed=1, signal=0, confounds=["ward_noise"], epochs=8, max_noises=0
    )
    evaluate = {s["name"]: s for s in description["steps"]}["evaluate"]["metrics"]  # type: ignore[attr-defined]
    assert evaluate["auc"] > 0.9  # whoever looks at this number only would promote it
    assert evaluate["specificity_noise_controls"] < 0.6
    assert verdicts(description)["ward_noise_counterfactual"] == "block"
    assert description["outcome"] == "blocked"
