"""Signatures of a clinician on the files of limits.

A signature is on the digest of a file, so a file that changed is not signed.  It stops and promotes
nothing: pages say who signed the limits, or that nobody did.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Literal

from expectations import plan, policy
from expectations.words import catalogue
from spira_tasks.artifacts import Store
from spira_tasks.errors import ConfigError
from spira_tasks.governance import decisions
from spira_tasks.governance.applied import Decision

Part = Literal["policy", "plan", "suites"]  # limits of promotion, of a retraining, of the data
FILES: Mapping[Part, Path] = {
    "policy": policy.FILE,
    "plan": plan.FILE,
    "suites": catalogue.COMMITTED,
}


def digest(part: Part) -> str:
    """SHA-256 of the file as it stands here, in hexadecimal."""
    return sha256(FILES[part].read_bytes()).hexdigest()


def sign(store: Store, part: Part, why: str, read: str = "") -> tuple[Decision, bool]:
    """Sign a file as it stands here; say whether that is new.

    Raises as ``decide`` does, and ConfigError where it is not the file of the digest ``read``, that
    a person had read on a page.
    """
    if read not in ("", digest(part)):
        raise ConfigError(
            f"{FILES[part].name} is not here as it was read: its digest is {digest(part)[:16]}…, "
            f"and not {read[:16]}….  Bring the api-server and the steps to one version, and read "
            "and sign it again"
        )
    return decisions.decide(store, "signatures", _about(part, digest(part)), why)


def withdraw(store: Store, part: Part, why: str) -> bool:
    """Take the signature on a file as it stands here back; say whether there was one."""
    return decisions.withdraw(store, "signatures", _about(part, digest(part)), why)


def signatures(store: Store, digests: Mapping[Part, str]) -> dict[Part, Decision]:
    """The signatures on files of these digests, by part, as the audit log records them.

    Raises
    ------
    ConfigError
        When the log is not whole.
    """
    history = decisions.read_history(store)
    found: dict[Part, Decision] = {}
    for part, of_file in digests.items():
        name = decisions.name_of("signatures", _about(part, of_file))
        document = decisions.read_document(store, name)
        if document is not None and not history.problem(name, document):
            found[part] = Decision.from_json(document)
    return found


def _about(part: Part, of_file: str) -> dict[str, str]:
    return {"what": part, "digest": of_file}
