"""Accept a store as it stands: seal what has no seal of this key, by a person's decision.

It is needed once for a store that is older than seals, after the key was replaced, and where the
log was damaged and no backup is left.
"""

from __future__ import annotations

import json
from collections import Counter

from spira_tasks import package
from spira_tasks.artifacts import Store, sealed
from spira_tasks.governance import audit, decisions
from spira_tasks.tracking import Tracker, versions


def seal(store: Store, why: str) -> Counter[str]:
    """Seal records, the files of registered models, and the log; may be repeated.

    A record that was changed under this key is left as it is.

    Returns
    -------
    Counter of str
        How many records were sealed or left, how many versions of the model were sealed or lack
        what they were made from, and what is wrong with the log.

    Raises
    ------
    ConfigError
        When the reason is refused, or the newest event cannot be read.
    """
    why = decisions.checked_reason(why)
    found: Counter[str] = Counter()
    for folder in sealed.FOLDERS:
        for entry in store.entries(folder):
            finding, unsealed = sealed.examine(entry.name, store.read(entry.name) or b"")
            if finding == "changed":
                found["n_changed"] += 1
            elif finding != "whole":
                store.documents.write_sealed(entry.name, json.loads(unsealed))
                found["n_records"] += 1
    for version, _ in versions(store.tracking_uri):
        if not package.is_sealed(version):
            is_known = package.adopt(version, Tracker(store.tracking_uri), store)
            found["n_versions" if is_known else "n_versions_unknown"] += 1
    audit.record(store, "sealing", {**found, "why": why})
    decisions.keep_history(store, audit.events(store))
    return found
