"""Things that a configuration names: ours, and those that installed packages add.

A package adds one by an entry point of the group ``spira.<kind>``, for example in its
``pyproject.toml``::

    [project.entry-points."spira.networks"]
    tiny = "hospital_networks.tiny:Tiny"

Nothing is imported before it is used, so a configuration is checked without torch.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from spira_tasks.errors import ConfigError

T = TypeVar("T")


class Registry(Generic[T]):
    """Things of one kind, by name.

    Parameters
    ----------
    kind : str
        In the plural, as in the group of entry points: ``networks`` for ``spira.networks``.
    ours : mapping of str to str
        Place by name, ``"module:attribute"``.  Such a text counts as an import of the module in
        the keys of results.
    """

    def __init__(self, kind: str, ours: Mapping[str, str]) -> None:
        self.kind, self.ours = kind, dict(ours)

    @property
    def group(self) -> str:
        return f"spira.{self.kind}"

    def names(self) -> list[str]:
        """Every name: ours first, then those of packages in alphabetical order."""
        return [*self.ours, *sorted(self._added())]

    def find(self, name: str, implementation: str | None = None) -> T:
        """Import what a name stands for.

        Parameters
        ----------
        implementation : str, optional
            What ``implementation`` has to say of it, where something was made with it before.

        Raises
        ------
        ConfigError
            When nothing has this name, the package that has it cannot be imported, or its code is
            not that of ``implementation``.
        """
        if implementation is not None:
            self.require(name, implementation)
        if name in self.ours:
            return cast(T, EntryPoint(name, self.ours[name], self.group).load())
        point = self._point(name)
        try:
            return cast(T, point.load())
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"{name!r} of {self.group} is {point.value} of the package {_name(point)}, and "
                f"cannot be imported: {error}. Install the package again, or choose another name: "
                f"{', '.join(self.ours)}"
            ) from error

    def implementation(self, name: str) -> str:
        """What identifies the code behind a name, for the key of a result.

        Empty for ours, whose source is in the key already.  For a package: its name, its version
        and the first 12 digits of the SHA-256 of its files.
        """
        if name in self.ours:
            return ""
        point = self._point(name)
        version = point.dist.version if point.dist else "0"
        return f"{_name(point)} {version} {_digest(point.module.partition('.')[0])[:12]}"

    def check(self, name: str) -> str:
        """Return the name; a ValueError, which pydantic shows, when nothing has it."""
        if name not in self.names():
            raise ValueError(self._unknown(name))
        return name

    def require(self, name: str, expected: str) -> None:
        """Refuse a name whose code is not what ``implementation`` said of it; import nothing.

        Raises
        ------
        ConfigError
            When the package is not installed, or is another.
        """
        is_known = name in self.ours or name in self._added()
        found = "not installed" if expected and not is_known else self.implementation(name)
        if found != expected:
            package, version, *_ = [*expected.split(" "), ""]
            need = f"`pip install {package}=={version}`" if expected else "remove that package"
            raise ConfigError(
                f"{name!r} of {self.group} is {found or 'that of SPIRA itself'} here, and what was "
                f"made with {expected or 'that of SPIRA itself'} is to be read: {need}, or run the "
                "step again that made it"
            )

    def _point(self, name: str) -> EntryPoint:
        found = self._added().get(name)
        if found is None:
            raise ConfigError(self._unknown(name))
        return found

    def _added(self) -> dict[str, EntryPoint]:
        added: dict[str, EntryPoint] = {}
        for point in _installed(self.group, tuple(sys.path)):
            other = added.get(point.name)
            if point.name in self.ours or (other and other.value != point.value):
                raise ConfigError(
                    f"the package {_name(point)} adds {point.name!r} to {self.group}, a name that "
                    f"{_name(other) if other else 'SPIRA itself'} has: remove the package, or "
                    "rename its entry point"
                )
            added[point.name] = point
        return added

    def _unknown(self, name: str) -> str:
        return (
            f"there is no {name!r} among the {self.kind}. Known are: {', '.join(self.names())}. "
            f"A package adds another by an entry point of the group {self.group}"
        )


@cache
def _installed(group: str, path: tuple[str, ...]) -> metadata.EntryPoints:
    """Entry points of a group on ``sys.path``; looking takes 6 to 9 ms, so once for each path."""
    return metadata.entry_points(group=group)


def _name(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.module


@cache
def _digest(package: str) -> str:
    """Hash the files of a package, by name and content, without importing it."""
    spec: Any = find_spec(package)
    if spec is None:
        raise ConfigError(f"the package {package} is named by an entry point and is not installed")
    digest = hashlib.sha256()
    for place in map(Path, spec.submodule_search_locations or [spec.origin]):
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file() and file.suffix != ".pyc":
                name = file.relative_to(place.parent).as_posix()
                content = hashlib.sha256(file.read_bytes()).digest()
                digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()
