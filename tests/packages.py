"""Small packages that are installed beside the project for a test, as pip would leave them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def install(
    site: Path,
    name: str,
    files: Mapping[str, str],
    entry_points: Mapping[str, Mapping[str, str]],
    version: str = "1.0",
) -> None:
    """Write a package and its metadata into a folder, which has to be on ``sys.path``.

    ``entry_points``: by group, then by name.
    """
    package = site / name
    package.mkdir(parents=True)
    for file, content in {"__init__.py": "", **files}.items():
        (package / file).write_text(content)
    about = site / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [
        line
        for group, points in entry_points.items()
        for line in (f"[{group}]", *(f"{key} = {value}" for key, value in points.items()))
    ]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
