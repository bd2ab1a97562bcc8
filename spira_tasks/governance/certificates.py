"""Certificates of erasure: what was done, by whom and when, signed, and without the identity."""

from __future__ import annotations

from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from spira_tasks.artifacts import Store
from spira_tasks.governance import audit, decisions, signing
from spira_tasks.governance.inventory import Holding

FOLDER = decisions.CERTIFICATES
TEMPLATE = Path(__file__).with_name("certificate.md.jinja")

NOT_COVERED = (
    "the hospital's own copy: the folder or bucket that recordings are taken from, and the chart",
    "backups: their copies go when the backups expire; erase again after one was restored",
    "a bucket with versions or object lock: old versions go by the bucket's own rule",
    "weights of models that learned from the person: they hold no recording; they are marked, "
    "may not be promoted, and are replaced by training again",
    "steps that were at work during the erasure, on this or another machine: what they store and "
    "their temporary files; erase again once they have ended, on every machine where temporary "
    "files of one that was killed may lie",
    "the audit log and Airflow's records: they hold the tag, which leads to nobody without the key",
)


def read(store: Store, tag: str) -> dict[str, Any] | None:
    """The certificate of the erasure with this tag, or None."""
    return store.documents.read(name_of(tag))


def known(store: Store) -> list[dict[str, Any]]:
    """Every certificate, the oldest first."""
    found = [store.documents.read(name) for name in store.documents.names(FOLDER)]
    return sorted((one for one in found if one), key=lambda one: str(one["finished"]["at"]))


def name_of(tag: str) -> str:
    """The name of the document of a certificate."""
    return f"{FOLDER}/{tag}.json"


def certify(
    store: Store,
    tag: str,
    total: Holding,
    versions: list[dict[str, Any]],
    earlier: dict[str, Any] | None,
) -> dict[str, Any]:
    """Sign and store the certificate of an erasure."""
    tombstone = next(one for one in decisions.known(store, "erasures") if one.about["tag"] == tag)
    removed = earlier["removed"] if earlier and not total else total.counts
    content = {
        "format": "spira.erasure/1",
        "tag": tag,
        "requested": {"at": tombstone.at, "by": tombstone.by, "why": tombstone.why},
        "finished": {"at": audit.now(), "by": audit.actor()},
        "store": store.url,
        "removed": removed,
        "dataset_versions": [
            {"digest": digest, "used_in": total.datasets[digest]}
            for digest in sorted(total.datasets)
        ],
        "model_versions": versions,
        "retraining_needed": bool(versions),
        "not_covered": list(NOT_COVERED),
        "replaces": earlier["audit"] if earlier else None,
    }
    digest = decisions.digest(content)
    anchor = audit.record(store, "erasure", {"tag": tag, "what": "finished", "certificate": digest})
    signed = signing.sign(content | {"audit": asdict(anchor)})
    store.documents.write(name_of(tag), signed)
    return signed


def datasets(certificate: dict[str, Any]) -> dict[str, list[str]]:
    """Digest of every artifact that held the person to the splits and tasks that they were in."""
    return {one["digest"]: list(one["used_in"]) for one in certificate["dataset_versions"]}


def as_markdown(certificate: dict[str, Any]) -> str:
    """The certificate as a text to read, print and hand over."""
    from jinja2 import StrictUndefined, Template

    template = Template(
        TEMPLATE.read_text("utf-8"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    text: str = template.render(certificate, is_signed=signing.is_signed(certificate))
    return text


def as_html(certificate: dict[str, Any]) -> str:
    """The same as a page that loads nothing from elsewhere."""
    text = escape(as_markdown(certificate))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Certificate of erasure</title>'
        "<style>body{font:1rem/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "pre{white-space:pre-wrap;overflow-wrap:anywhere;font:inherit}</style>"
        f"<body><pre>{text}</pre></body></html>\n"
    )
