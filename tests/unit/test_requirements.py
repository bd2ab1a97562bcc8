"""What a model may cost where it is served: each requirement stops a model that is over it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
import yaml

from expectations import requirements
from expectations.words import Language, texts, verdicts, words_of
from spira_tasks.costs import Costs
from spira_tasks.provenance import ROOT

REQUIRED = requirements.read()
CHEAP = Costs(cpu_seconds=0.01, n=10, resident_mib=400.0, package_mib=4.0)
DEAR: dict[str, dict[str, Any]] = {
    "serving_latency": {"cpu_seconds": 0.2},
    "serving_memory": {"resident_mib": 5000.0},
    "serving_size": {"package_mib": 700.0},
}


def blocking(costs: Costs) -> list[str]:
    return [one.id for one in requirements.verdicts(costs, REQUIRED) if one.status == "block"]


@pytest.mark.parametrize("gate", requirements.GATES)
def test_a_model_that_is_over_one_requirement_is_blocked_for_that_alone(gate: str) -> None:
    assert blocking(CHEAP) == []
    assert blocking(replace(CHEAP, **DEAR[gate])) == [gate]


def test_a_limit_itself_is_accepted_and_any_more_is_not() -> None:
    at = Costs(REQUIRED["cpu_seconds"].limit, 10, REQUIRED["resident"].limit, 4.0)
    assert blocking(at) == []
    assert blocking(replace(at, resident_mib=at.resident_mib + 0.1)) == ["serving_memory"]


def test_a_worker_in_production_has_room_for_four_models_that_are_at_the_limit() -> None:
    worker = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]["worker"]
    (files,) = worker["tmpfs"]  # which count as memory
    own = 400  # MiB; 290 were measured
    needed = 4 * REQUIRED["resident"].limit + int(files.rpartition("=")[2].removesuffix("m")) + own
    assert needed <= 1024 * int(worker["mem_limit"].removesuffix("g"))


def test_a_model_that_answers_nothing_is_not_taken_for_a_fast_one() -> None:
    assert blocking(replace(CHEAP, cpu_seconds=None, n=0)) == ["serving_latency"]


@pytest.mark.parametrize("language", get_args(Language))
@pytest.mark.parametrize("gate", requirements.GATES)
def test_a_requirement_reads_alike_in_its_file_and_in_the_words(
    gate: str, language: Language
) -> None:
    required = REQUIRED[requirements.GATES[gate]]
    words = words_of(language)
    assert words.digits(required.limit) in words(f"gate.{gate}.expected")
    assert texts()[f"gate.{gate}.rationale"]["en"] == required.rationale
    assert texts()[f"gate.{gate}.owner"]["en"] == required.owner


@pytest.mark.parametrize("language", get_args(Language))
def test_a_sentence_has_what_was_measured_and_the_limit(language: Language) -> None:
    dear = Costs(0.2, 10, 5000.0, 700.0)
    for costs in (CHEAP, dear):
        for one in requirements.verdicts(costs, REQUIRED):
            said = verdicts.sentence(one, language)
            assert verdicts.observed(one, language) in said
            assert verdicts.limit(one, language) in said
    nothing = requirements.verdicts(replace(CHEAP, cpu_seconds=None, n=0), REQUIRED)[0]
    assert "{" not in verdicts.sentence(nothing, language)
    assert verdicts.sentence(nothing, language) == words_of(language)(
        "gate.serving_latency.block.unmeasured"
    )
