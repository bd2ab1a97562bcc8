"""How a decision of a person is identified, by steps and by Airflow, which reads the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256

# What a person may do about a version, and the kind of decision that it leaves.
OF_VERSIONS: Mapping[str, str] = {"approve": "approvals", "refuse": "refusals"}


def decision_id(kind: str, about: Mapping[str, str]) -> str:
    """What names a decision among its kind: the digest of what it is about."""
    content = json.dumps([kind, dict(about)], sort_keys=True, separators=(",", ":"))
    return sha256(content.encode()).hexdigest()[:32]
