"""The governance site of a run: its pages and a manifest."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spira_tasks import provenance
from spira_tasks.artifacts import Store
from spira_tasks.errors import ConfigError
from spira_tasks.reports import pack, pages
from spira_tasks.reports.gather import compare, gather, history

log = logging.getLogger(__name__)

PACK = "pack"  # where the governance app serves the zip of a run, beside the run's pages
LATEST = "site/latest.json"  # a document of the store: which site was built last


def build(store: Store, run_id: str, alone: Path, served: Path | None = None) -> dict[str, Any]:
    """Write the site of a run into empty folders; return its manifest.

    The same run gives the same files, apart from times, the audit log's newest event, and what
    people decided since.  Raises ConfigError when the store has no such run.

    Parameters
    ----------
    alone : Path
        For the site of the pack, without links to other runs.
    served : Path, optional
        For the same with links to the sites of other runs beside it, and with the zip of ``alone``.
    """
    runs = history(store)
    facts = replace(gather(store, run_id), since=compare(store, run_id, runs))
    log.info("report: gathered what is known of run %s (%s)", run_id, facts.outcome)
    if facts.missing:
        log.warning("report: not there any more: %s", ", ".join(facts.missing))
    about = {
        "run_id": run_id,
        "outcome": facts.outcome,
        "synthetic": facts.synthetic,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": provenance.git_revision(),
        "audit": asdict(facts.anchor),
    }
    written = pages.render(facts, runs, alone, links_to_runs=False)
    log.info("report: drew %d files", len(written))
    manifest = pack.write_manifest(alone, about)
    if served is not None:
        pages.render(facts, runs, served, pack=PACK)
        pack.write_zip(alone, served / pack.file_name(run_id))
        pack.write_manifest(served, about)
    return manifest


def point_to(store: Store, run_id: str, site: str) -> None:
    """Remember where the newest site of a run is, and that it is the newest of all."""
    pointer = {"run_id": run_id, "site": site}
    store.documents.write(f"site/runs/{run_id}.json", pointer)
    store.documents.write(LATEST, pointer)


def folder_of(store: Store, run_id: str) -> Path:
    """Where a person finds the site of a run: in the store's folder, or in ``.spira``."""
    return store.folder / "reports" / run_id


def put(site: Path, folder: Path) -> Path:
    """Copy a site into a folder, in place of an older one; return its first page.

    Raises as ``files_of_site`` does.
    """
    for name in files_of_site(folder):
        (folder / name).unlink(missing_ok=True)
    shutil.copytree(site, folder, dirs_exist_ok=True)
    return folder / pages.INDEX


def files_of_site(folder: Path) -> list[str]:
    """The files of the site that is in a folder; none when it is empty or not there.

    Raises
    ------
    ConfigError
        When something else than a site is there.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return []
    try:
        manifest = json.loads((folder / pack.MANIFEST).read_text("utf-8"))
        names = [*manifest["files"], pack.MANIFEST]
        is_ours = manifest["format"] == pack.FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise ConfigError(f"{folder} holds something else than a report; name another --out")
    inside = folder.resolve()
    if not all((inside / name).resolve().is_relative_to(inside) for name in names):
        raise ConfigError(f"the manifest in {folder} names files outside of it; name another --out")
    return names
