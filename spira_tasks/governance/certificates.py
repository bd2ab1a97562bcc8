"""Certificates of erasure: what was done, by whom and when, signed, and without the identity."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from html import escape
from typing import Any

from spira_tasks.artifacts import Store
from spira_tasks.governance import agreement, audit, decisions, signing
from spira_tasks.governance.inventory import Holding

FOLDER = agreement.CERTIFICATES

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
    """Sign what was done, and keep it; names nobody."""
    tombstone = next(one for one in decisions.known(store, "erasures") if one.about["tag"] == tag)
    removed = {
        "n_recordings": len(total.records),
        "n_sessions": len(total.sessions),
        "n_waveforms_and_features": len(total.blobs),
        "n_tables": len(total.tables),
        "n_rows": sum(total.tables.values()),
        "n_reports_and_records": len(total.texts) + len(total.documents),
    }
    if earlier and not total:  # nothing was removed now: what counts was removed then
        removed = earlier["removed"]
    content = {
        "format": "spira.erasure/1",
        "tag": tag,
        "requested": {"at": tombstone.at, "by": tombstone.by, "why": tombstone.why},
        "finished": {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "by": audit.actor(),
        },
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
    digest = agreement.digest(content)
    anchor = audit.record(store, "erasure", {"tag": tag, "what": "finished", "certificate": digest})
    signed = signing.sign(content | {"audit": asdict(anchor)})
    store.documents.write(name_of(tag), signed)
    return signed


def datasets(certificate: dict[str, Any]) -> dict[str, list[str]]:
    """Digest of every artifact that held the person to the splits and tasks that they were in."""
    return {one["digest"]: list(one["used_in"]) for one in certificate["dataset_versions"]}


def names_all(certificate: dict[str, Any], versions: list[dict[str, Any]]) -> bool:
    """Whether a certificate tells all of some versions of the model."""
    told = {one["version"] for one in certificate["model_versions"]}
    return all(one["version"] in told for one in versions)


def known(store: Store) -> list[dict[str, Any]]:
    """Every certificate, the oldest first."""
    found = [store.documents.read(name) for name in store.documents.names(FOLDER)]
    return sorted((one for one in found if one), key=lambda one: str(one["finished"]["at"]))


def as_markdown(certificate: dict[str, Any]) -> str:
    """The certificate as a text to read, print and hand over."""
    requested, finished, removed = (certificate[k] for k in ("requested", "finished", "removed"))
    signature, anchor = certificate["signature"], certificate["audit"]
    lines = [
        "# Certificate of erasure",
        "",
        f"Subject (tag): `{certificate['tag']}`",
        "",
        f"- asked for: {requested['at']}, by {requested['by']}: {requested['why']}",
        f"- finished: {finished['at']}, by {finished['by']}",
        f"- store: {certificate['store']}",
        "",
        "## Removed",
        "",
        *(f"- {name.removeprefix('n_').replace('_', ' ')}: {n}" for name, n in removed.items()),
        "",
        "## Data sets that held the person",
        "",
        *(
            f"- `{one['digest']}`" + (f": {', '.join(one['used_in'])}" if one["used_in"] else "")
            for one in certificate["dataset_versions"]
        ),
        "",
        "## Model versions that learned from the person",
        "",
        *(
            f"- version {one['version']}"
            + (f" ({', '.join(one['aliases'])})" if one["aliases"] else "")
            + f", `{one['classifier']}`"
            for one in certificate["model_versions"]
        ),
        "They are marked and may not be promoted; training again is needed."
        if certificate["retraining_needed"]
        else "None.",
        "",
        "## Not covered",
        "",
        *(f"- {line}" for line in certificate["not_covered"]),
        "",
        "## Proof",
        "",
        f"- event {anchor['number']} of the audit log, hash `{anchor['hash']}`",
        f"- {signature['algorithm']} signature `{signature['value']}`",
        f"- public key `{signature['public_key']}`"
        + (" (the demonstration key: it proves nothing)" if signature["demonstration"] else ""),
        f"- the signature fits: {'yes' if signing.is_signed(certificate) else 'NO'}",
    ]
    return "\n".join(lines) + "\n"


def as_html(certificate: dict[str, Any]) -> str:
    """The same as a page that asks nothing of the outside."""
    text = escape(as_markdown(certificate))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Certificate of erasure</title>'
        "<style>body{font:1rem/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "pre{white-space:pre-wrap;overflow-wrap:anywhere;font:inherit}</style>"
        f"<body><pre>{text}</pre></body></html>\n"
    )
