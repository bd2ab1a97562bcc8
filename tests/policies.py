"""Run under another policy than the committed one."""

from __future__ import annotations

from typing import Any

import pytest

from expectations import policy


def under(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Change rules by name; a section takes a mapping of the keys that change."""
    committed = policy.read()
    content = committed.rules.model_dump()
    for name, value in changes.items():
        content[name] = content[name] | value if isinstance(value, dict) else value
    changed = policy.Policy(policy.Rules.model_validate(content), committed.digest)
    monkeypatch.setattr(policy, "read", lambda: changed)
