"""The policy of promotion, as ``policy.yaml`` beside this module has it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from spira_tasks.errors import ConfigError

FILE = Path(__file__).with_suffix(".yaml")
OWNER = "clinical lead"


class Section(BaseModel):
    """Limits of one verdict; a key that is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class EnoughTestSubjects(Section):
    min_per_class: int


class AucAboveChance(Section):
    min_auc: float


class WardNoise(Section):
    max_drop: float


class WardNoiseFlips(Section):
    max_flips: float


class WardNoiseShift(Section):
    max_shift: float


class NotDegenerate(Section):
    min_positive: float
    max_positive: float
    min_found: float


class Floor(Section):
    min_rate: float
    min_people: int


class StratifiedAuc(Section):
    min_auc: float
    max_explained: float


class SliceFloor(Section):
    min_auc: float


class SliceGap(Section):
    max_gap: float


class Calibration(Section):
    scale: float
    margin: float


class CalibrationSlope(Section):
    min_slope: float
    max_slope: float


class Behaviour(Section):
    max_flips: float


class BetterThanChampion(Section):
    min_confidence: float
    max_sensitivity_loss: float
    max_specificity_loss: float
    max_slice_loss: float
    min_cell: int
    n_resamples: int
    seed: int


class Probes(Section):
    n_permutations: int
    n_resamples: int
    max_people: int
    seed: int


class Probe(Section):
    max_low: float
    max_auc: float
    max_by_chance: float
    min_per_class: int


class PermutedLabel(Section):
    max_deviation: float


class MetadataBaseline(Section):
    min_gain: float


class Experiments(Section):
    required: list[Literal["unseen_sites", "cross_cohort", "seed_stability"]]


class Elsewhere(Section):
    min_balanced_accuracy: float
    min_cell: int


class SeedStability(Section):
    max_deviation: float
    seeds: list[int]


class TestBudget(Section):
    alpha: float
    max_reads: int


class LabelQuality(Section):
    max_suspects: float


class Missingness(Section):
    max_association: float


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
        When a key is unknown or missing, or a value has another type; names each of them.
    """
    import yaml

    content = file.read_bytes()
    try:
        return Policy(
            Rules.model_validate(yaml.safe_load(content)), hashlib.sha256(content).hexdigest()
        )
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
        )
        raise ConfigError(f"{file}: {problems}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is no YAML: {error}") from None
