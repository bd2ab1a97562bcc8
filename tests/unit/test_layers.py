"""Import-linter holds modules to their layers; this test, that no module is without one."""

from __future__ import annotations

import pkgutil
import tomllib
from pathlib import Path

import expectations
import spira_tasks

ROOT = Path(__file__).resolve().parents[2]
# What starts the command line.
OUTSIDE = {"spira_tasks.__main__"}


def test_every_module_has_a_layer() -> None:
    """A new module that no layer names could import anything."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (
        contract["layers"]
        for contract in settings["contracts"]
        if contract["type"] == "layers" and "spira_tasks.cli" in contract["layers"]
    )
    named = {module.strip(" ()") for layer in layers for module in layer.split("|")}
    there = {
        f"{package.__name__}.{module.name}"
        for package in (spira_tasks, expectations)
        for module in pkgutil.iter_modules(package.__path__)
    }
    assert named == there - OUTSIDE
