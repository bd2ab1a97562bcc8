"""``data put``: bring recordings to the place where they enter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from spira_tasks.artifacts import open_source, put_source
from spira_tasks.commands import Commands

EXAMPLES = """\
examples:
  python -m spira_tasks data put delivery-7 --to s3://spira-data/recordings
  scripts/spira.sh data put /srv/delivery-7        # in production: to SPIRA_DATA_URL

Files that are there already are not sent again, so that it can be repeated after an interruption.
"""

app = Commands("data", "bring recordings to the place where they enter", EXAMPLES)


@app.command("put", EXAMPLES)
def put(
    folder: Annotated[Path, Argument(metavar="FOLDER", help="recordings: docs/recordings.md")],
    to: Annotated[
        str, Option("--to", metavar="URL", envvar="SPIRA_DATA", help="s3://bucket/prefix")
    ],
    replace: Annotated[
        bool, Option("--replace", help="also replace files that are there with another content")
    ] = False,
) -> None:
    """Copy a folder of recordings into the bucket, its tables last."""
    from spira_tasks.intake.layouts import tables_of  # it loads pandas

    source = open_source(f"folder:{folder}")
    tables_of(source)  # a folder without any is another one than was meant
    at_the_top = [name for name in source.names if "/" not in name]
    n_new = put_source(source, to, at_the_top, replace=replace)
    print(f"{n_new} files put into {to}; {len(source.names) - n_new} were there already")
