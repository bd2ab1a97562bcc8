"""Published experiments as settings of a pipeline, with their published numbers."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SETTING = "train.preset"
DEPARTURES = "train.departures"
FILE = Path(__file__).with_suffix(".toml")

# Controls right, controls wrong, patients wrong, patients right.
Counts = tuple[int, int, int, int]


@dataclass(frozen=True)
class Preset:
    """One experiment."""

    name: str
    about: str
    reference: str  # where it was published
    settings: Mapping[str, Any]  # ``"<step>.<key>"`` to JSON value
    repetitions: tuple[str, ...]  # of the published numbers
    # Name to one value a repetition: counts of answers by condition, or a rate.
    published: Mapping[str, tuple[Counts, ...] | tuple[float, ...]]
    not_repeated: tuple[str, ...]  # what the settings do not repeat

    @property
    def looks_at_labels(self) -> bool:
        """Whether ward noise differs by label in training, which no promotion accepts."""
        return self.settings["train.patient_noises"] is not None

    def rates(self) -> dict[str, list[float]]:
        """The published numbers as rates, one a repetition.

        Counts of a condition are its ``accuracy`` and ``f1`` of patients.
        """
        found: dict[str, list[float]] = {}
        for name, values in self.published.items():
            if isinstance(values[0], float):
                found[name] = [float(value) for value in values]
                continue
            counts: Sequence[Counts] = values
            found[f"{name}_accuracy"] = [(one[0] + one[3]) / sum(one) for one in counts]
            found[f"{name}_f1"] = [2 * one[3] / (2 * one[3] + one[1] + one[2]) for one in counts]
        return found


@cache
def every() -> dict[str, Preset]:
    """Every preset by name, in the order of the file."""
    document = tomllib.loads(FILE.read_text(encoding="utf-8"))
    found = {}
    for name, one in document["presets"].items():
        family = document["families"][one["family"]]
        none = dict.fromkeys([*family["none"], *one.get("none", ())])
        found[name] = Preset(
            name=name,
            about=one["about"],
            reference=family["reference"],
            settings=family["settings"] | none | one["settings"],
            repetitions=tuple(family["repetitions"]),
            published={
                key: tuple(tuple(value) if isinstance(value, list) else value for value in values)
                for key, values in one["published"].items()
            },
            not_repeated=(*family["not_repeated"], *one.get("not_repeated", ())),
        )
    return found


def find(name: str) -> Preset:
    """The preset of this name; a ValueError names the known ones."""
    if name not in every():
        raise ValueError(f"there is no preset {name!r}. Known are: {', '.join(every())}")
    return every()[name]


def laid_under(settings: Mapping[str, Any], steps: Collection[str]) -> dict[str, Any]:
    """The settings, and below them those of the preset that they name.

    A setting that differs from the preset's goes before it, and is named in ``train.departures``.
    What the preset sets of steps that are not among ``steps`` is left out.
    """
    if not settings.get(SETTING):
        return dict(settings)
    preset = {
        target: value
        for target, value in find(settings[SETTING]).settings.items()
        if target.partition(".")[0] in steps
    }
    departures = [one for one in preset if one in settings and settings[one] != preset[one]]
    return {**preset, **settings, DEPARTURES: sorted(departures)}
