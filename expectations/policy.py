"""The policy of promotion, as ``policy.yaml`` beside this module has it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from expectations import strict

FILE = Path(__file__).with_suffix(".yaml")
OWNER = "clinical lead"

Rate = Annotated[float, Field(ge=0, le=1)]
Difference = Annotated[float, Field(ge=-1, le=1)]  # of two rates
Positive = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class EnoughTestSubjects(strict.Part):
    min_per_class: Count


class AucAboveChance(strict.Part):
    min_auc: Rate


class WardNoise(strict.Part):
    max_drop: Difference


class WardNoiseFlips(strict.Part):
    max_flips: Rate


class WardNoiseShift(strict.Part):
    max_shift: Positive


class NotDegenerate(strict.Part):
    min_positive: Rate
    max_positive: Rate
    min_found: Rate


class Floor(strict.Part):
    min_rate: Rate
    min_people: Count


class StratifiedAuc(strict.Part):
    min_auc: Rate
    max_explained: Rate


class SliceFloor(strict.Part):
    min_auc: Rate


class SliceGap(strict.Part):
    max_gap: Rate


class Calibration(strict.Part):
    scale: Positive
    margin: Rate


class CalibrationSlope(strict.Part):
    min_slope: Positive
    max_slope: Positive


class Behaviour(strict.Part):
    max_flips: Rate


class BetterThanChampion(strict.Part):
    min_confidence: Rate
    max_sensitivity_loss: Rate
    max_specificity_loss: Rate
    max_slice_loss: Rate
    min_cell: Count
    n_resamples: Count
    seed: int


class Probes(strict.Part):
    n_permutations: Count
    n_resamples: Count
    max_people: Count
    seed: int


class Probe(strict.Part):
    max_low: Rate
    max_auc: Rate
    max_by_chance: Rate
    min_per_class: Count


class PermutedLabel(strict.Part):
    max_deviation: Rate


class MetadataBaseline(strict.Part):
    min_gain: Rate


class Experiments(strict.Part):
    required: list[Literal["unseen_sites", "cross_cohort", "seed_stability"]]


class Elsewhere(strict.Part):
    min_balanced_accuracy: Rate
    min_cell: Count


class SeedStability(strict.Part):
    max_deviation: Rate
    seeds: list[int]


class TestBudget(strict.Part):
    alpha: Rate
    max_reads: Count


class LabelQuality(strict.Part):
    max_suspects: Rate


class Missingness(strict.Part):
    max_association: Rate


class Rules(strict.Part):
    """The content of the file."""

    version: int
    approval: Literal["provisional", "always"]
    second_person: Literal["production", "always", "never"]
    firm: list[str]
    enough_test_subjects: EnoughTestSubjects
    auc_above_chance: AucAboveChance
    ward_noise_counterfactual: WardNoise
    ward_noise_flips: WardNoiseFlips
    ward_noise_shift: WardNoiseShift
    not_degenerate: NotDegenerate
    sensitivity_floor: Floor
    specificity_floor: Floor
    stratified_auc: StratifiedAuc
    slice_floor: SliceFloor
    slice_gap: SliceGap
    calibration: Calibration
    calibration_slope: CalibrationSlope
    behaviour: Behaviour
    better_than_champion: BetterThanChampion
    probes: Probes
    noise_only_control: Probe
    channel_heard: Probe
    metadata_alone: Probe
    permuted_label: PermutedLabel
    metadata_baseline: MetadataBaseline
    test_budget: TestBudget
    experiments: Experiments
    unseen_sites: Elsewhere
    cross_cohort: Elsewhere
    seed_stability: SeedStability
    label_quality: LabelQuality
    missingness: Missingness


@dataclass(frozen=True)
class Policy:
    rules: Rules
    digest: str  # SHA-256 of the file, in hexadecimal


@cache
def read(file: Path = FILE) -> Policy:
    """Read the policy.

    Raises
    ------
    ConfigError
        When the file is not as ``Rules`` says, or a value is out of its bounds.
    """
    return Policy(*strict.read(file, Rules))
