"""How long things are kept: the policy, as a person wrote it in a file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from spira_tasks.errors import ConfigError

VARIABLE = "SPIRA_RETENTION"
DEFAULT = Path(__file__).with_name("retention.toml")
CLASSES = ("CHART", "RESEARCH", "DERIVED", "QUARANTINE", "CHECKPOINTS", "DAMAGED", "RECORDS")
DAY = 86_400.0
YOUNG_SECONDS = 2 * DAY  # the longest step takes one


@dataclass(frozen=True)
class Policy:
    """What the file says.

    Attributes
    ----------
    days : mapping of str to int
        By class; 0 for never.
    keep_for_models : {"all", "served"}
    held_runs, held_subjects : frozenset of str
        Under a legal hold; subjects by the tags of their tombstones.
    digest : str
        Of the file, for the audit log.
    """

    days: Mapping[str, int]
    keep_for_models: str
    held_runs: frozenset[str]
    held_subjects: frozenset[str]
    digest: str

    def is_over(self, kind: str, age_seconds: float) -> bool:
        days = self.days.get(kind, 0)
        return bool(days) and age_seconds > max(days * DAY, YOUNG_SECONDS)


def read(file: str | None = None) -> Policy:
    """Read the policy: the file given, that of SPIRA_RETENTION, or the one of this package.

    Raises
    ------
    ConfigError
        When it cannot be read, or says something that is not known.
    """
    path = Path(file or os.environ.get(VARIABLE) or DEFAULT)
    try:
        content = path.read_bytes()
        parsed = tomllib.loads(content.decode())
    except (OSError, ValueError) as error:
        raise ConfigError(f"the retention policy {path} cannot be read: {error}") from None
    hold = parsed.get("legal_hold", {})
    days = {kind: parsed.get(kind, {}).get("days") for kind in CLASSES}
    unknown = set(parsed) - {*CLASSES, "owner", "keep_for_models", "legal_hold"}
    problems = [f"{name} is not known" for name in sorted(unknown)]
    problems += [
        f"{kind}.days must be a whole number, 0 for never"
        for kind, n in days.items()
        if type(n) is not int or n < 0
    ]
    if parsed.get("keep_for_models") not in ("all", "served"):
        problems.append('keep_for_models must be "all" or "served"')
    if set(hold) - {"runs", "subjects"}:
        problems.append("legal_hold holds runs and subjects, nothing else")
    if problems:
        raise ConfigError(f"the retention policy {path} is wrong: " + "; ".join(problems))
    return Policy(
        days,
        parsed["keep_for_models"],
        frozenset(hold.get("runs", ())),
        frozenset(hold.get("subjects", ())),
        sha256(content).hexdigest(),
    )
