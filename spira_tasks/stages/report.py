"""Build the governance site of a run, and the same as one zip.

It reports also on a run that failed or was blocked, so it takes no inputs: it reads the records and
what is left of the outputs.  It gives no verdict, and changes only the pointer to the newest site.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spira_tasks import scratch
from spira_tasks.config import Nothing, StageConfig, StageSpec
from spira_tasks.contract.record import Outcome

if TYPE_CHECKING:
    from spira_tasks.work import PlatformWork

# it reads other steps, the registry and the audit log
SPEC = StageSpec(outside=True, audit="report")

Inputs = Nothing


@dataclass(frozen=True)
class Outputs:
    site: Path  # index.html, …, manifest.json
    pack: Path  # spira-report-<run>.zip: the site


class Config(StageConfig):
    """``run``: which run to report on; ``latest`` for the newest, empty for the step's own."""

    run: str = ""


def run(inputs: Inputs, config: Config, outputs: Outputs, work: PlatformWork) -> Outcome:
    from spira_tasks.governance import audit
    from spira_tasks.reports import pack, site
    from spira_tasks.reports.gather import latest_run

    run_id = config.run or work.run_id
    if run_id == "latest":
        run_id = latest_run(work.store)
    with scratch.folder() as folder:
        alone = folder / "site"
        alone.mkdir()
        manifest = site.build(work.store, run_id, alone, outputs.site)
        pack.write_zip(alone, outputs.pack / pack.file_name(run_id))
    if run_id != work.run_id:  # the step's own event names the run that it is a step of
        audit.record(work.store, "report", {"run": run_id, "built_by": work.run_id})
    site.point_to(work.store, run_id, work.store.put_directory(outputs.site))
    n_bytes = sum(path.stat().st_size for path in outputs.site.rglob("*") if path.is_file())
    return Outcome({"n_files": len(manifest["files"]), "n_bytes": n_bytes})
