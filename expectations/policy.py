"""The policy of promotion, as ``policy.yaml`` beside this module has it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from expectations import yaml_once
from spira_tasks.errors import ConfigError

FILE = Path(__file__).with_suffix(".yaml")
OWNER = "clinical lead"

Rate = Annotated[float, Field(ge=0, le=1)]
Difference = Annotated[float, Field(ge=-1, le=1)]  # of two rates
Positive = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Limits of one verdict; a key that is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class EnoughTestSubjects(Section):
    min_per_class: Count


class AucAboveChance(Section):
    min_auc: Rate


class WardNoise(Section):
    max_drop: Difference


class WardNoiseFlips(Section):
    max_flips: Rate


class WardNoiseShift(Section):
    max_shift: Positive


class NotDegenerate(Section):
    min_positive: Rate
    max_positive: Rate
    min_found: Rate


class Floor(Section):
    min_rate: Rate
    min_people: Count


class StratifiedAuc(Section):
    min_auc: Rate
    max_explained: Rate


class SliceFloor(Section):
    min_auc: Rate


class SliceGap(Section):
    max_gap: Rate


class Calibration(Section):
    scale: Positive
    margin: Rate


class CalibrationSlope(Section):
    min_slope: Positive
    max_slope: Positive


class Behaviour(Section):
    max_flips: Rate


class BetterThanChampion(Section):
    min_confidence: Rate
    max_sensitivity_loss: Rate
    max_specificity_loss: Rate
    max_slice_loss: Rate
    min_cell: Count
    n_resamples: Count
    seed: int


class Probes(Section):
    n_permutations: Count
    n_resamples: Count
    max_people: Count
    seed: int


class Probe(Section):
    max_low: Rate
    max_auc: Rate
    max_by_chance: Rate
    min_per_class: Count


class PermutedLabel(Section):
    max_deviation: Rate


class MetadataBaseline(Section):
    min_gain: Rate


class Experiments(Section):
    required: list[Literal["unseen_sites", "cross_cohort", "seed_stability"]]


class Elsewhere(Section):
    min_balanced_accuracy: Rate
    min_cell: Count


class SeedStability(Section):
    max_deviation: Rate
    seeds: list[int]


class TestBudget(Section):
    alpha: Rate
    max_reads: Count


class LabelQuality(Section):
    max_suspects: Rate


class Missingness(Section):
    max_association: Rate


class Rules(Section):
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
        When a key is unknown, missing or there twice, or a value has another type or is out of
        its bounds; names each of them.
    """
    import yaml

    content = file.read_bytes()
    try:
        return Policy(
            Rules.model_validate(yaml_once.load(content)), hashlib.sha256(content).hexdigest()
        )
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
        )
        raise ConfigError(f"{file}: {problems}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not read: {error}") from None
