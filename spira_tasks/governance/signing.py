"""Signatures on what leaves the platform: certificates of erasure and report packs (Ed25519)."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from spira_tasks.artifacts.blobs import canonical_json
from spira_tasks.errors import ConfigError

log = logging.getLogger(__name__)

VARIABLE = "SPIRA_SIGNING_KEY"  # 64 hex digits: the seed of an Ed25519 key (RFC 8032)
DEMO_SEED = sha256(b"for demonstrations with invented people only").digest()


def sign(content: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` with a ``signature``: of everything else in it, as canonical JSON.

    Without SPIRA_SIGNING_KEY the demonstration key signs, which everybody has; it says so.
    """
    key = _key()
    public = _public(key)
    signature = {
        "algorithm": "Ed25519",
        "public_key": public,
        "demonstration": is_demonstration(public),
    }
    signed = {**content, "signature": signature}
    return {**content, "signature": {**signature, "value": key.sign(canonical_json(signed)).hex()}}


def is_signed(content: Mapping[str, Any]) -> bool:
    """Whether the signature is that of the key that it names; whose key that is, is not asked."""
    signature = dict(content.get("signature") or {})
    try:
        value = bytes.fromhex(signature.pop("value"))
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature["public_key"]))
        public.verify(value, canonical_json({**content, "signature": signature}))
    except (InvalidSignature, KeyError, ValueError):
        return False
    return True


def public_key() -> str:
    """The key, in hex, by which others check what this platform signs."""
    return _public(_key())


def is_demonstration(public: str) -> bool:
    """Whether this is the public half of the key that everybody has."""
    return public == _public(Ed25519PrivateKey.from_private_bytes(DEMO_SEED))


def has_own_key() -> bool:
    return bool(os.environ.get(VARIABLE, "").strip())


def _key() -> Ed25519PrivateKey:
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        log.warning("%s is not set: the demonstration key signs, which proves nothing", VARIABLE)
        return Ed25519PrivateKey.from_private_bytes(DEMO_SEED)
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ConfigError(
            f"{VARIABLE} is not 64 hex digits; make one, for example by `openssl rand -hex 32`"
        )
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text))


def _public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()
