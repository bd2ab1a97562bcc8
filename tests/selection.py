"""``pytest --since REF``: only the tests that a change since a commit can touch, for branches.

A test depends on what its module imports, function by function and import by import.  One that
starts a step, a process or a container depends on all of the product.  A change that is not in
Python (but for texts) may touch anything, so everything runs; on main it always does.
"""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path

import pytest

from spira_tasks.provenance import PLACE

ROOT = Path(__file__).resolve().parents[1]
PLACES = (ROOT, ROOT / "plugins", ROOT / "tests", ROOT / "tests" / "unit")
PRODUCT = ("spira_tasks/", "expectations/", "plugins/", "dags/", "scripts/", "docker/")
# They import or start what they need by its name.
BY_NAME = {"spira_tasks/runner.py", "tests/conftest.py"}
STARTERS = ("subprocess", "importlib", "multiprocessing", "runpy")


def changed_since(reference: str) -> set[str]:
    command = ["git", "diff", "--name-only", "--merge-base", reference]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def touches(changed: set[str], module: Path) -> bool:
    """Whether a test module depends on a file that was changed."""
    changed = {name for name in changed if not name.endswith(".md")}
    if any(not name.endswith(".py") or name == "tests/conftest.py" for name in changed):
        return True
    files, outside = closure(module)
    own = module.relative_to(ROOT).as_posix()
    if not own.startswith("tests/unit/") or files & BY_NAME or set(STARTERS) & outside:
        return bool(changed & files) or any(name.startswith(PRODUCT) for name in changed)
    return bool(changed & files)


def closure(module: Path) -> tuple[set[str], set[str]]:
    """Files of ours that a module imports, itself included, and the names of other packages."""
    files: set[str] = set()
    outside: set[str] = set()
    waiting = [module]
    while waiting:
        file = waiting.pop()
        name = file.relative_to(ROOT).as_posix()
        if name not in files:
            files.add(name)
            ours, others = imports(file)
            waiting += ours
            outside |= others if file == module else set()
    return files, outside


@cache
def imports(file: Path) -> tuple[list[Path], set[str]]:
    """Files of ours and packages of others that one file imports."""
    text = file.read_text()
    names = set(PLACE.findall(text))  # what a registry imports when it is asked
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    found = {name: located(name) for name in names}
    ours = [path for paths in found.values() for path in paths]
    return ours, {name.partition(".")[0] for name, paths in found.items() if not paths}


def located(name: str) -> list[Path]:
    """A module of ours, and the packages above it, which are imported with it."""
    parts = name.split(".")
    for place in PLACES:
        module = place.joinpath(*parts)
        if module.with_suffix(".py").is_file() or module.is_dir():
            packages = [place.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1)]
            return [path for path in (*packages, module.with_suffix(".py")) if path.is_file()]
    return []


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that the change named by ``--since`` cannot touch."""
    reference = config.getoption("since")
    if not reference:
        return
    changed = changed_since(reference)
    modules = {item.path for item in items}
    kept = {module for module in modules if touches(changed, module)}
    config.hook.pytest_deselected(items=[item for item in items if item.path not in kept])
    items[:] = [item for item in items if item.path in kept]
