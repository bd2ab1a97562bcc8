"""``report``: the governance site of a run as a folder or as one zip; the check of such a zip."""

from __future__ import annotations

import hmac
import json
import shutil
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from spira_tasks import scratch
from spira_tasks.artifacts import Store
from spira_tasks.commands import Commands, OpenStore, tracking_uri
from spira_tasks.contract.exits import EXIT_REJECTED
from spira_tasks.errors import ConfigError
from spira_tasks.governance import audit

EXAMPLES = """\
examples:
  python -m spira_tasks report latest
  python -m spira_tasks report RUN --out /media/governance/run
  python -m spira_tasks report RUN --zip run.zip
  python -m spira_tasks report --public-key            # keep it where packs are checked
  python -m spira_tasks report --verify run.zip --key 3b6a27bc…

exit status of --verify: 0 the pack is as this platform made it, 65 it was changed or is another's
"""

app = Commands()


@app.command("report", examples=EXAMPLES)
def report(
    store: OpenStore,
    run: Annotated[str | None, Argument(help="its id, or latest")] = None,
    out: Annotated[
        Path | None, Option(help="folder (default: reports/RUN in the store, or in .spira)")
    ] = None,
    zip_file: Annotated[Path | None, Option("--zip", help="write it as one file")] = None,
    verified: Annotated[Path | None, Option("--verify", help="check such a file instead")] = None,
    key: Annotated[
        str, Option(help="public key that has to have signed (default: of SPIRA_SIGNING_KEY)")
    ] = "",
    public_key: Annotated[bool, Option("--public-key", help="print the signing key")] = False,
) -> int:
    """Write the governance site of a run."""
    if verified is not None:
        return verify(verified, key, store)
    if public_key:
        from spira_tasks.governance import signing

        print(signing.public_key())
        return 0
    if run is None:
        raise ConfigError("which run? Give its id, or latest; --verify FILE checks a report")
    from spira_tasks.reports.gather import latest_run

    run_id = latest_run(store) if run == "latest" else run
    target = out or (None if zip_file else folder_of(store, run_id))
    if target is not None:
        _replaceable(target)  # refused before the work, not after it
    with scratch.folder() as folder:
        site = folder / "site"
        site.mkdir()
        _export(store, run_id, site)
        if zip_file is not None:
            from spira_tasks.reports.pack import write_zip

            write_zip(site, zip_file)
            print(
                f"wrote {zip_file}; check it by: python -m spira_tasks report --verify {zip_file}"
            )
        if target is not None:
            print(f"open {put(site, target)}")
    return 0


def verify(file: Path, key: str, store: Store) -> int:
    """Check a pack against itself, and its anchor against the audit log of the store."""
    from spira_tasks.governance import signing, verification
    from spira_tasks.reports import pack

    found = pack.verify(file)
    problems = list(found.problems)
    print(f"report on run {found.run_id}, made at {found.made_at}: {found.n_files} files")
    print(f"signed by the key {found.public_key or '(none)'}")
    wanted = key or (signing.public_key() if signing.has_own_key() else "")
    if wanted and not hmac.compare_digest(wanted.lower(), found.public_key):
        problems.append(f"it is not signed by the key {wanted}")
    elif found.is_demonstration:
        print("  this is the demonstration key, which everybody has: it proves nothing")
    elif not wanted:
        print("  whose key that is was not asked: give --key, as --public-key prints it there")
    if found.anchor is not None and found.anchor.number:
        log = verification.verify(store, {"this report": found.anchor})
        wrong = [problem for problem in log.problems if "this report quotes" in problem]
        problems += wrong
        if not wrong:
            place = f"event {found.anchor.number} of the audit log"
            print(f"{place}, the newest when it was made, is in the store's log")
    for problem in problems:
        print(f"  {problem}")
    print("the report was changed, or is of another store" if problems else "the report is whole")
    return EXIT_REJECTED if problems else 0


def put(site: Path, folder: Path) -> Path:
    """Copy a site to a folder, in place of an older one; return its first page."""
    from spira_tasks.reports.site import FIRST_PAGE

    for name in _replaceable(folder):
        (folder / name).unlink(missing_ok=True)
    shutil.copytree(site, folder, dirs_exist_ok=True)
    return folder / FIRST_PAGE


def _replaceable(folder: Path) -> list[str]:
    """The files of the site that is in a folder; none when it is empty or not there.

    Raises
    ------
    ConfigError
        When something else than a site is there.
    """
    from spira_tasks.reports.pack import FORMAT, MANIFEST

    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return []
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        is_ours = manifest["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise ConfigError(f"{folder} holds something else than a report; name another --out")
    names = [*manifest["files"], MANIFEST]
    inside = folder.resolve()
    if not all((inside / name).resolve().is_relative_to(inside) for name in names):
        raise ConfigError(f"the manifest in {folder} names files outside of it; name another --out")
    return names


def folder_of(store: Store, run_id: str) -> Path:
    """Where a person finds the site of a run: in the store's folder, or in ``.spira``."""
    base = Path(".spira") if "://" in store.url else Path(store.url)
    return base / "reports" / run_id


def _export(store: Store, run_id: str, folder: Path) -> None:
    """Build the site anew, so that it says what is true today, and log that it left."""
    from hashlib import sha256

    from spira_tasks.reports import site
    from spira_tasks.reports.pack import MANIFEST

    site.build(store, run_id, tracking_uri(store), folder)
    digest = sha256((folder / MANIFEST).read_bytes()).hexdigest()
    audit.record(store, "report", {"run": run_id, "manifest": digest})
