"""The key of a result: a hash of its inputs, its configuration and what runs.

What runs is the source of the stage and of every project module that it imports, and the packages
that these modules import, at the versions of the lock file.  So editing ``stages/promote.py``, or
adding a package that only a service imports, leaves trained models as they are
(docs/adr/0020-keys-by-what-runs.md).
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from spira_tasks.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
LOCK_FILE = ROOT / "docker" / "tasks.txt"  # what steps import, in every image and on a laptop
PROJECT_PACKAGES = ("spira_tasks", "expectations", "spira_services")

# Distributions that are not named as the module is; a test compares with those installed.
DISTRIBUTIONS = {
    "markdown_it": "markdown-it-py",
    "nats": "nats-py",
    "opentelemetry": "opentelemetry-sdk",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
# Distributions that another loads where they are installed, without requiring them.
OPTIONAL = {"pandas": ("pyarrow",)}  # Parquet files, and columns of text

PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)")
PLACE = re.compile(rf'"((?:{"|".join(PROJECT_PACKAGES)})[.\w]*):\w+"')  # in a registry
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")  # statements in a statement
VIA = re.compile(r"    #(?: via)? +([A-Za-z0-9][A-Za-z0-9._-]*)$")


def result_key(
    stage: str, code: str, packages: str, inputs: Mapping[str, str], config: Mapping[str, Any]
) -> str:
    """Name of a result.  A test pins its value: changing the formula forgets every result.

    Parameters
    ----------
    stage : str
        Name of the stage.
    code, packages : str
        ``code_digest`` and ``packages_digest`` of that module.
    inputs : mapping of str to str
        Input name to artifact digest.
    config : mapping of str to JSON value
        After validation, so defaults are in it.
    """
    payload = {
        "stage": stage,
        "code": code,
        "packages": packages,
        "inputs": dict(inputs),
        "config": dict(config),
    }
    return hashlib.sha256(b"spira.result/2\0" + _json(payload)).hexdigest()


def code_digest(module: str) -> str:
    """Hash the source of ``module`` and of every project module it imports, transitively."""
    digest = hashlib.sha256()
    for name, source in sorted(project_sources(module).items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(source).digest())
    return digest.hexdigest()


def packages_digest(module: str) -> str:
    """Hash the names and versions in ``package_versions``."""
    return hashlib.sha256(_json(package_versions(module))).hexdigest()


def lock_digest() -> str:
    """Hash the names and versions of the whole lock file; no key depends on it."""
    return hashlib.sha256(_json(_lock(LOCK_FILE).versions)).hexdigest()


def project_sources(module: str) -> dict[str, bytes]:
    """Source of ``module`` and of all it imports from this project; sees static imports only.

    Imports under ``if TYPE_CHECKING`` never run, and are left out.
    """
    return {name: found.source for name, found in _closure(module).items()}


def package_versions(module: str) -> dict[str, str]:
    """Version by name of each distribution that ``module`` runs with, and of Python.

    These are the distributions that the modules of ``project_sources`` import, and those that they
    require in turn.  Everything is read from the lock file, so that a process, a container and a
    pod agree, whatever else is installed beside them.  Patch releases of Python, and builds of one
    version for other processors (``+cpu``), are the same.

    Raises
    ------
    ConfigError
        When a module imports a package that the lock file does not have.
    """
    lock = _lock(LOCK_FILE)
    pending = []
    for name, found in _closure(module).items():
        for package in found.packages:
            distribution = _normalised(DISTRIBUTIONS.get(package, package))
            if distribution not in lock.versions:
                raise ConfigError(
                    f"{name} imports {package}, which {LOCK_FILE.name} does not have: add its "
                    f"distribution to {LOCK_FILE.stem}.in and run `make lock`"
                )
            pending.append(distribution)
    versions = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    while pending:
        name = pending.pop()
        if name not in versions:
            versions[name] = lock.versions[name]
            pending += [*lock.requirements.get(name, ()), *OPTIONAL.get(name, ())]
    return versions


def git_revision() -> str:
    """Commit the source tree is at, with ``+`` when it has changes; empty outside a checkout.

    An image holds no checkout: its build writes the revision into its environment.
    """
    if revision := os.environ.get("SPIRA_REVISION"):
        return revision
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return process.stdout.strip()


@dataclass(frozen=True)
class _Module:
    """A project module: its source, what it imports of the project, and which other packages."""

    source: bytes
    own: frozenset[str]
    packages: frozenset[str]


def _closure(module: str) -> dict[str, _Module]:
    found: dict[str, _Module] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        path = _source_path(name)
        if path is not None and name not in found:
            found[name] = _read(path)
            pending.extend(found[name].own)
            package = name.rpartition(".")[0]
            if "." in package:  # importing a module runs its package first
                pending.append(package)
    return found


@cache
def _read(path: Path) -> _Module:
    source = path.read_bytes()
    # What a registry names as "module:attribute" it imports when it is asked.
    names = [*_imports(ast.parse(source).body), *PLACE.findall(source.decode())]
    imported = {name: name.split(".")[0] for name in names}
    own = {name for name, package in imported.items() if package in PROJECT_PACKAGES}
    others = {package for name, package in imported.items() if name not in own}
    return _Module(source, frozenset(own), frozenset(others - sys.stdlib_module_names))


def _imports(statements: Iterable[ast.AST]) -> Iterator[str]:
    """Modules that are imported anywhere in the statements, and names imported from them.

    Only statements hold statements: to look into expressions too takes ten times as long.
    """
    for statement in statements:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            continue
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            yield statement.module
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)
        for block in BLOCKS:
            yield from _imports(getattr(statement, block, ()))


def _source_path(module: str) -> Path | None:
    """File of a module; None for what is not one, as in ``from package.module import function``.

    Looked up by hand: ``importlib`` would import the parents, and torch with them.
    """
    place = ROOT.joinpath(*module.split("."))
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


@dataclass(frozen=True)
class _Lock:
    """Version of each distribution, and the names of those that each requires."""

    versions: Mapping[str, str]
    requirements: Mapping[str, set[str]]


@cache
def _lock(file: Path) -> _Lock:
    """Read what ``pip-compile`` wrote: pins, each followed by the names of those that require it.

    The installed metadata say the same, and take a second to read instead of milliseconds.
    """
    versions: dict[str, str] = {}
    requirements: dict[str, set[str]] = defaultdict(set)
    name = ""
    for line in file.read_text().splitlines():
        if pin := PIN.match(line):
            name = _normalised(pin[1])
            versions[name] = pin[2]
        elif via := VIA.match(line):
            requirements[_normalised(via[1])].add(name)
    return _Lock(dict(sorted(versions.items())), requirements)


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
