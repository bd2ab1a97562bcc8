"""How long things are kept: the policy, as a person wrote it in a file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from spira_tasks.artifacts import Store
from spira_tasks.errors import ConfigError
from spira_tasks.governance import agreement, audit, decisions

ADOPTED = agreement.POLICY
PACKAGED = Path(__file__).with_name("retention.toml")
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
    source : str
        Where it comes from, for whoever reads what it does.
    """

    days: Mapping[str, int]
    keep_for_models: str
    held_runs: frozenset[str]
    held_subjects: frozenset[str]
    digest: str
    source: str

    def is_over(self, kind: str, age_seconds: float) -> bool:
        days = self.days.get(kind, 0)
        return bool(days) and age_seconds > max(days * DAY, YOUNG_SECONDS)


def read(store: Store, file: str | None = None) -> Policy:
    """Read the policy: the file given, else the one adopted for the store, else the package's.

    Raises
    ------
    ConfigError
        When it cannot be read, or says something that is not known.
    """
    adopted = None if file else store.documents.read(ADOPTED)
    if adopted:
        source = f"adopted by {adopted['by']} on {adopted['at'][:10]}"
        return _parsed(adopted["policy"].encode(), source)
    path = Path(file or PACKAGED)
    return _parsed(_content(path), str(file) if file else "of the package: none was adopted")


def adopt(store: Store, file: str, why: str) -> Policy:
    """Put a policy into force, for every command and every container that works on the store.

    Raises
    ------
    ConfigError
        When it is no policy, or the reason will not do.
    """
    content = _content(Path(file))
    policy = _parsed(content, file)
    reason = decisions.checked_reason(why)
    document = {
        "policy": content.decode(),
        "by": audit.actor(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "why": reason,
    }
    told = {"retention": policy.digest, "why": reason, agreement.DIGEST: agreement.digest(document)}
    anchor = audit.record(store, "policy", told)
    store.documents.write(ADOPTED, document | {"audit": asdict(anchor)})
    return policy


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the retention policy {path} cannot be read: {error.strerror}") from None


def _parsed(content: bytes, source: str) -> Policy:
    try:
        parsed = tomllib.loads(content.decode())
    except ValueError as error:
        raise ConfigError(f"the retention policy {source} is not TOML: {error}") from None
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
        raise ConfigError(f"the retention policy {source} is wrong: " + "; ".join(problems))
    return Policy(
        days,
        parsed["keep_for_models"],
        frozenset(hold.get("runs", ())),
        frozenset(hold.get("subjects", ())),
        sha256(content).hexdigest(),
        source,
    )
