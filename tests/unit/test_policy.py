"""The policy of promotion is data that is read strictly, and its limits bind by intervals."""

from __future__ import annotations

from pathlib import Path

import pytest

from expectations import policy
from expectations.gates.bounds import at_least, at_most
from expectations.words.verdicts import gates
from spira_tasks.contract.verdict import Number
from spira_tasks.errors import ConfigError


def written(folder: Path, old: str, new: str) -> Path:
    text = policy.FILE.read_text()
    assert old in text
    path = folder / "policy.yaml"
    path.write_text(text.replace(old, new))
    return path


def test_an_unknown_key_of_the_policy_is_refused_by_its_name(tmp_path: Path) -> None:
    path = written(tmp_path, "  max_drop: 0.05", "  max_drop: 0.05\n  max_dorp: 0.5")
    with pytest.raises(ConfigError, match=r"ward_noise_counterfactual\.max_dorp"):
        policy.read(path)


def test_a_policy_that_lacks_a_limit_is_refused_by_its_name(tmp_path: Path) -> None:
    path = written(tmp_path, "  max_drop: 0.05", "  {}")
    with pytest.raises(ConfigError, match=r"ward_noise_counterfactual\.max_drop"):
        policy.read(path)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("  max_drop: 0.05", "  max_drop: 5.0", r"ward_noise_counterfactual\.max_drop"),
        ("  max_shift: 0.30", "  max_shift: .inf", r"ward_noise_shift\.max_shift"),
        ("  alpha: 0.05", "  alpha: .nan", r"test_budget\.alpha"),
        ("  max_reads: 20", "  max_reads: 0", r"test_budget\.max_reads"),
        ("  max_drop: 0.05", "  max_drop: 0.05\n  max_drop: 0.5", "max_drop is there twice"),
        ("probes:", "slice_gap:\n  max_gap: 0.9\nprobes:", "slice_gap is there twice"),
    ],
)
def test_a_limit_that_cannot_be_meant_and_a_second_one_are_refused(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        policy.read(written(tmp_path, old, new))


def test_what_the_policy_calls_firm_are_verdicts_that_there_are() -> None:
    assert set(policy.read().rules.firm) <= set(gates())


def test_another_limit_is_another_digest(tmp_path: Path) -> None:
    path = written(tmp_path, "  max_drop: 0.05", "  max_drop: 0.06")
    assert policy.read(path).digest != policy.read().digest


@pytest.mark.parametrize(
    ("low", "high", "loss", "merit"),
    [
        (0.01, 0.04, "pass", "block"),
        (0.01, 0.20, "insufficient", "insufficient"),
        (0.06, 0.20, "block", "pass"),
    ],
)
def test_only_a_whole_interval_on_one_side_of_a_limit_proves_anything(
    low: float, high: float, loss: str, merit: str
) -> None:
    number = Number((low + high) / 2, "rate", low, high)
    assert at_most(number, 0.05) == loss
    assert at_least(number, 0.05) == merit


def test_a_number_without_an_interval_proves_nothing() -> None:
    with pytest.raises(ValueError, match="without an interval"):
        at_most(Number(0.0, "rate"), 0.05)
