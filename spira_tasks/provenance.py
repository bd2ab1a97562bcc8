"""The key of a result: a hash of inputs, configuration, the source that runs and the lock file."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK_FILE = ROOT / "docker" / "tasks.txt"  # what steps import; Airflow's version changes no result
PROJECT_PACKAGES = ("spira_tasks", "expectations")


def result_key(
    stage: str, code: str, lock: str, inputs: Mapping[str, str], config: Mapping[str, Any]
) -> str:
    """Name of a result.  A test pins its value: changing the formula forgets every result.

    Parameters
    ----------
    stage : str
        Module under ``spira_tasks.stages``.
    code, lock : str
        ``code_digest`` of that module; ``lock_digest`` of the installed packages.
    inputs : mapping of str to str
        Input name to artifact digest.
    config : mapping of str to JSON value
        After validation, so defaults are in it.
    """
    payload = {
        "stage": stage,
        "code": code,
        "lock": lock,
        "inputs": dict(inputs),
        "config": dict(config),
    }
    content = json.dumps(payload, sort_keys=True).encode()
    return hashlib.sha256(b"spira.result/1\0" + content).hexdigest()


@cache
def lock_digest() -> str:
    """Hash of the names and versions in the lock file, comments and blank lines apart."""
    lines = [line.partition("#")[0].strip() for line in LOCK_FILE.read_text().splitlines()]
    content = "\n".join(sorted(line for line in lines if line))
    return hashlib.sha256(content.encode()).hexdigest()


@cache
def code_digest(module: str) -> str:
    """Hash the source of ``module`` and of every project module it imports, transitively.

    Editing ``stages/promote.py`` therefore leaves trained models as they are, while editing
    ``speech/features.py`` does not.
    """
    digest = hashlib.sha256()
    for name, source in sorted(project_sources(module).items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(source).digest())
    return digest.hexdigest()


def project_sources(module: str) -> dict[str, bytes]:
    """Source of ``module`` and of all it imports from this project; sees static imports only.

    Imports under ``if TYPE_CHECKING`` never run, and are left out.
    """
    sources: dict[str, bytes] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        path = _source_path(name)
        if path is not None and name not in sources:
            sources[name] = path.read_bytes()
            pending.extend(_project_imports(ast.parse(sources[name])))
            package = name.rpartition(".")[0]
            if "." in package:  # importing a module runs its package first
                pending.append(package)
    return sources


def git_revision() -> str:
    """Commit the source tree is at, with ``+`` when it has changes; empty outside a checkout.

    An image holds no checkout: it was told its revision when it was built.
    """
    if revision := os.environ.get("SPIRA_REVISION"):
        return revision
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return process.stdout.strip()


def _project_imports(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        names: list[str] = []
        if isinstance(child, ast.Import):
            names = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom) and child.module:
            names = [child.module, *(f"{child.module}.{alias.name}" for alias in child.names)]
        yield from (name for name in names if name.split(".")[0] in PROJECT_PACKAGES)
        yield from _project_imports(child)


def _source_path(module: str) -> Path | None:
    """File of a module; None for what is not one, as in ``from package.module import function``.

    Looked up by hand: ``importlib`` would import the parents, and torch with them.
    """
    place = ROOT.joinpath(*module.split("."))
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)
