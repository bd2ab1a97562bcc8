"""Seals: a keyed hash by which the platform recognises what it wrote (ADR 23).

Every step, and the command line, holds the key; the store and MLflow do not.
"""

from __future__ import annotations

import hmac
import os
import re
from hashlib import sha256
from typing import Literal

VARIABLE = "SPIRA_SEALING_KEY"  # 64 hex digits; without it the demonstration key is used
DEMONSTRATION_KEY = sha256(b"for demonstrations with invented people only").digest()
FORM = re.compile(r"([0-9a-f]{8}):[0-9a-f]{64}")

Finding = Literal["whole", "changed", "sealed with another key", "not sealed"]


def seal(name: str, content: bytes) -> str:
    """The seal of a content under its name: the id of the key, and HMAC-SHA-256.

    Raises
    ------
    ValueError
        When SPIRA_SEALING_KEY is no key.
    """
    key = _key()
    key_id = sha256(b"spira.seal.key/1\0" + key).hexdigest()[:8]
    digest = hmac.new(key, b"spira.seal/1\0" + name.encode() + b"\0" + content, sha256)
    return f"{key_id}:{digest.hexdigest()}"


def check(name: str, content: bytes, given: object) -> Finding:
    """What a seal says of a content; raises as ``seal`` does."""
    match = FORM.fullmatch(given) if isinstance(given, str) else None
    if match is None:
        return "not sealed"
    expected = seal(name, content)
    if match[1] != expected.partition(":")[0]:
        return "sealed with another key"
    return "whole" if hmac.compare_digest(expected, match[0]) else "changed"


def _key() -> bytes:
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return DEMONSTRATION_KEY
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(
            f"{VARIABLE} is not 64 hex digits; make one, for example by `openssl rand -hex 32`"
        )
    return bytes.fromhex(text)
