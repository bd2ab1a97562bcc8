"""``report``: the governance site of a run as a folder or as one zip; the check of such a zip."""

from __future__ import annotations

import hmac
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from spira_tasks import scratch
from spira_tasks.artifacts import Store
from spira_tasks.commands import Commands, OpenStore
from spira_tasks.contract.exits import EXIT_REJECTED
from spira_tasks.contract.place import COMMAND
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
    from spira_tasks.governance import signing

    if verified is not None:
        return verify(verified, key, store)
    if public_key:
        print(signing.public_key())
        return 0
    if run is None:
        raise ConfigError("which run? Give its id, or latest; --verify FILE checks a report")
    from spira_tasks.reports import pack, site
    from spira_tasks.reports.gather import latest_run

    run_id = latest_run(store) if run == "latest" else run
    target = out or (None if zip_file else site.folder_of(store, run_id))
    if target is not None:
        site.files_of_site(target)  # refused before the work, not after it
    with scratch.folder() as folder:
        made = folder / "site"
        made.mkdir()
        site.build(store, run_id, made)
        digest = sha256((made / pack.MANIFEST).read_bytes()).hexdigest()
        audit.record(store, "report", {"run": run_id, "manifest": digest})
        if zip_file is not None:
            pack.write_zip(made, zip_file)
            print(f"wrote {zip_file}; check it by: {COMMAND} report --verify {zip_file}")
        if target is not None:
            print(f"open {site.put(made, target)}")
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
        broken = verification.check_anchor(store, "this report", found.anchor)
        problems += broken
        if not broken:
            place = f"event {found.anchor.number} of the audit log"
            print(f"{place}, the newest when it was made, is in the store's log")
    for problem in problems:
        print(f"  {problem}")
    print("the report was changed, or is of another store" if problems else "the report is whole")
    return EXIT_REJECTED if problems else 0
