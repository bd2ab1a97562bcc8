"""``report``: the governance site of a run as a folder or as one zip; the check of such a zip."""

from __future__ import annotations

import argparse
import hmac
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spira_tasks import scratch
from spira_tasks.commands import open_store
from spira_tasks.contract.exits import EXIT_REJECTED
from spira_tasks.errors import ConfigError

if TYPE_CHECKING:
    from spira_tasks.artifacts import Store

EXAMPLES = """\
examples:
  python -m spira_tasks report latest
  python -m spira_tasks report RUN --out /media/governance/run
  python -m spira_tasks report RUN --zip run.zip
  python -m spira_tasks report --public-key            # keep it where packs are checked
  python -m spira_tasks report --verify run.zip --key 3b6a27bc…

exit status of --verify: 0 the pack is as this platform made it, 65 it was changed or is another's
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    report = commands.add_parser(
        "report",
        parents=[common],
        help="write the governance site of a run",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument("run", nargs="?", help="its id, or latest")
    report.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where the site goes (default: reports/RUN in the store's folder, or in .spira)",
    )
    report.add_argument("--zip", type=Path, metavar="FILE", help="write it as one file")
    report.add_argument("--verify", type=Path, metavar="FILE", help="check such a file instead")
    report.add_argument(
        "--key",
        metavar="HEX",
        help="whose signature --verify demands (default: that of SPIRA_SIGNING_KEY)",
    )
    report.add_argument("--public-key", action="store_true", help="print the key that signs here")
    report.set_defaults(command=run_report)


def run_report(args: argparse.Namespace) -> int:
    if args.verify is not None:
        return verify(args)
    if args.public_key:
        from spira_tasks.governance import signing

        print(signing.public_key())
        return 0
    if args.run is None:
        raise ConfigError("which run? Give its id, or latest; --verify FILE checks a report")
    from spira_tasks.reports.gather import latest_run

    store = open_store(args)
    run_id = latest_run(store) if args.run == "latest" else args.run
    out = args.out or (None if args.zip else folder_of(store, run_id))
    if out is not None:
        _replaceable(out)  # refused before the work, not after it
    with scratch.folder() as folder:
        site = folder / "site"
        site.mkdir()
        _export(store, run_id, site)
        if args.zip is not None:
            from spira_tasks.reports.pack import write_zip

            write_zip(site, args.zip)
            print(
                f"wrote {args.zip}; check it by: python -m spira_tasks report --verify {args.zip}"
            )
        if out is not None:
            print(f"open {put(site, out)}")
    return 0


def verify(args: argparse.Namespace) -> int:
    """Check a pack against itself, and its anchor against the audit log of the store."""
    from spira_tasks.governance import audit, signing
    from spira_tasks.reports import pack

    found = pack.verify(args.verify)
    problems = list(found.problems)
    print(f"report on run {found.run_id}, made at {found.made_at}: {found.n_files} files")
    print(f"signed by the key {found.public_key or 'of nobody'}")
    wanted = args.key or (signing.public_key() if signing.has_own_key() else "")
    if wanted and not hmac.compare_digest(wanted.lower(), found.public_key):
        problems.append(f"it is not signed by the key {wanted}")
    elif found.is_demonstration:
        print("  this is the demonstration key, which everybody has: it proves nothing")
    elif not wanted:
        print("  whose key that is was not asked: give --key, as --public-key prints it there")
    if found.anchor is not None and found.anchor.number:
        place = f"event {found.anchor.number} of the audit log"
        log = audit.verify(open_store(args), {"this report": found.anchor})
        wrong = [problem for problem in log.problems if "this report quotes" in problem]
        problems += wrong
        if not wrong:
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

    from spira_tasks.governance import audit
    from spira_tasks.reports import site
    from spira_tasks.reports.pack import MANIFEST
    from spira_tasks.runner import tracking_uri

    site.build(store, run_id, tracking_uri(store), folder)
    digest = sha256((folder / MANIFEST).read_bytes()).hexdigest()
    audit.record(store, "report", {"run": run_id, "manifest": digest})
