"""A report as one file: the site with its manifest of hashes, in a zip that anybody can check.

The zip holds no time and no owner, and its files are in the order of their names: the same site is
the same zip.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from spira_tasks.contract.place import COMMAND
from spira_tasks.contract.run import Anchor
from spira_tasks.errors import ConfigError
from spira_tasks.governance import signing

MANIFEST = "manifest.json"
FORMAT = "spira-report/1"
NO_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip can hold
MAX_BYTES = 500_000_000  # unpacked: a report is a few megabytes


@dataclass(frozen=True)
class Checked:
    """What ``verify`` found; ``problems`` is empty when the pack is as it was made."""

    run_id: str
    made_at: str
    n_files: int
    public_key: str
    is_demonstration: bool
    anchor: Anchor | None
    problems: list[str] = field(default_factory=list)


def file_name(run_id: str) -> str:
    """What the zip of a run is called, on any file system: Airflow's runs have colons in them."""
    return f"spira-report-{re.sub('[^A-Za-z0-9._-]', '_', run_id)}.zip"


def write_manifest(folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``manifest.json``: what the site is about, the hash of every file, and a signature."""
    files = {name: sha256((folder / name).read_bytes()).hexdigest() for name in _names(folder)}
    manifest = signing.sign({"format": FORMAT, **about, "files": files})
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", "utf-8")
    return manifest


def write_zip(folder: Path, file: Path) -> None:
    """Pack a site; the folder in the zip is named as the file is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        for name in _names(folder):
            entry = zipfile.ZipInfo(f"{file.stem}/{name}", NO_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, (folder / name).read_bytes())


def verify(file: Path) -> Checked:
    """Compare every file of a pack with its manifest, and the manifest with its signature.

    Raises
    ------
    ConfigError
        When it is no zip, or one without a manifest of ours.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                raise ConfigError(f"{file} is larger than any report of this platform")
            names = [name for name in archive.namelist() if not name.endswith("/")]
            contents = {name.partition("/")[2]: archive.read(name) for name in names}
        manifest = json.loads(contents.pop(MANIFEST))
        files: Mapping[str, str] = manifest["files"]
        is_ours = manifest["format"] == FORMAT
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{file} is not a report of this platform ({type(error).__name__}); make one by "
            f"`{COMMAND} report RUN --zip FILE`"
        ) from None
    problems = [] if is_ours else [f"its format is not {FORMAT}"]
    if len(contents) + 1 != len(names):
        problems.append("it holds two files of one name")
    problems += [f"{name} is not in the manifest" for name in sorted(set(contents) - set(files))]
    problems += [f"{name} is missing" for name in sorted(set(files) - set(contents))]
    problems += [
        f"{name} was changed"
        for name, content in sorted(contents.items())
        if name in files and sha256(content).hexdigest() != files[name]
    ]
    if not signing.is_signed(manifest):
        problems.append("the manifest was changed: its signature is not that of its content")
    signature, anchor = manifest.get("signature") or {}, manifest.get("audit")
    public_key = str(signature.get("public_key", ""))
    return Checked(
        run_id=str(manifest.get("run_id", "")),
        made_at=str(manifest.get("made_at", "")),
        n_files=len(contents),
        public_key=public_key,
        is_demonstration=signing.is_demonstration(public_key),
        anchor=Anchor(**anchor) if anchor else None,
        problems=problems,
    )


def _names(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
