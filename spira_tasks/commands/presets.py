"""``presets``: published experiments, their settings and their published numbers."""

from __future__ import annotations

from dataclasses import asdict
from statistics import mean
from typing import Annotated

from typer import Argument

from spira_tasks.commands import AsJson, Commands, print_json, print_table
from spira_tasks.contract.presets import Preset, every, find
from spira_tasks.errors import ConfigError

EXAMPLES = """\
examples:
  python -m spira_tasks presets
  python -m spira_tasks presets acl2021-3.5
  python -m spira_tasks pipeline training --data .spira/cohort --set train.preset=acl2021-3.5

The numbers are those that were published, as means of the repetitions; docs/training.md says what
a preset does not repeat.
"""
SHOWN = {
    "accuracy": ("test_clean_accuracy",),
    "F1": ("test_clean_f1", "f1"),
    "accuracy, noise on controls": ("test_noisy_accuracy",),
    "F1, noise on controls": ("test_noisy_f1",),
}

app = Commands()


@app.command("presets", examples=EXAMPLES)
def presets(
    name: Annotated[str | None, Argument(help="of a preset, to see all of it")] = None,
    as_json: AsJson = False,
) -> None:
    """List published experiments, or show one."""
    try:
        found = [find(name)] if name else list(every().values())
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if as_json:
        print_json([asdict(one) | {"rates": one.rates()} for one in found])
    elif name:
        _print(found[0])
    else:
        rows = [
            [one.name, one.about, *_numbers(one), "never promoted" if one.looks_at_labels else ""]
            for one in found
        ]
        print_table("", ["preset", "what", *SHOWN, ""], rows)


def _numbers(preset: Preset) -> list[str]:
    rates = preset.rates()
    shown = [
        next((rates[name] for name in names if name in rates), None) for names in SHOWN.values()
    ]
    return [f"{mean(values):.3f}" if values else "-" for values in shown]


def _print(preset: Preset) -> None:
    print(f"{preset.name}: {preset.about}\n{preset.reference}")
    if preset.looks_at_labels:
        print("ward noise differs by label: no run promotes a model of it")
    settings = [[target, str(value)] for target, value in preset.settings.items()]
    print_table("\nsettings", ["", ""], settings)
    numbers = [
        [name, *(f"{value:.4f}" for value in values)] for name, values in preset.rates().items()
    ]
    print_table("\npublished", ["", *preset.repetitions], numbers)
    print("\nnot repeated:")
    for one in preset.not_repeated:
        print(f"  - {one}")
