"""``pseudonyms``: replace the key and keep every person's split; print a person's tag."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from typer import Option

from spira_tasks.commands import Commands, OpenStore
from spira_tasks.commands.erase import ask_for_subject, read_recordings
from spira_tasks.errors import ConfigError
from spira_tasks.governance import audit, erasure
from spira_tasks.intake import pseudonyms
from spira_tasks.intake.pseudonyms import tombstone_tag

EXAMPLES = """\
examples:
  export SPIRA_PSEUDONYM_KEY_OLD="$SPIRA_PSEUDONYM_KEY"
  export SPIRA_PSEUDONYM_KEY="$(openssl rand -hex 32)"
  python -m spira_tasks pseudonyms rotate --data /data/2026 --out /safe/rekey.json
  export SPIRA_PSEUDONYM_MAP=/safe/rekey.json; unset SPIRA_PSEUDONYM_KEY_OLD
  python -m spira_tasks pseudonyms tag

Keep the map where the key is kept: it links old and new pseudonyms.  A second
rotation reads the map of the first from SPIRA_PSEUDONYM_MAP.  See docs/adr/0015-key-rotation.md.
"""

app = Commands(
    "pseudonyms", "replace the key of the pseudonyms; print the tag of a person", EXAMPLES
)


@app.command("rotate")
def rotate(
    store: OpenStore,
    out: Annotated[Path, Option(help="the map to make")],
    data: Annotated[
        list[str] | None, Option(help="folder or s3:// prefix of recordings; repeatable")
    ] = None,
    lists: Annotated[
        list[str] | None,
        Option("--list", metavar="CSV", help="columns hospital_id and patient_rgh; repeatable"),
    ] = None,
    uncovered_erasures_accepted: Annotated[
        bool,
        Option(
            "--uncovered-erasures-accepted",
            help="also where erased people are in none of these: ingest will take them",
        ),
    ] = False,
) -> None:
    """Make the re-key map from the old key to the new one."""
    places = data or []
    pseudonyms.check_place(out, [store.url, *(one.removeprefix("folder:") for one in places)])
    old, new = pseudonyms.key(pseudonyms.OLD_VARIABLE), pseudonyms.key()
    if old == new or not os.environ.get(pseudonyms.VARIABLE):
        raise ConfigError(
            f"set {pseudonyms.VARIABLE} to the new key and {pseudonyms.OLD_VARIABLE} to the old "
            "one (not at all, if it was the demonstration key)"
        )
    earlier = pseudonyms.rekey_map(made_for=old)
    tables = [(read_recordings(place, old), read_recordings(place, new)) for place in places]
    tables += [(rows, rows) for rows in map(pseudonyms.read_list, lists or ())]
    erased = erasure.tombstones(store)
    known = pseudonyms.first_pseudonyms(tables, old, new, earlier)
    people = {now: had for now, had in known.items() if had != now}
    if not people:
        raise ConfigError("no hospital number was found: name folders by --data, lists by --list")
    had_before = {*known.values()}
    n_uncovered = len(erased - set(map(tombstone_tag, had_before)))
    are_uncovered = (
        f"{n_uncovered} of the people who were erased are in none of these folders and lists: "
    )
    if n_uncovered and not uncovered_erasures_accepted:
        raise ConfigError(
            are_uncovered + "the new key would give them unknown pseudonyms, and ingest would take "
            "them in again. No map was made. Name their hospital numbers in a list of the "
            "hospital (--list), or a folder that they are in (--data); or say "
            "--uncovered-erasures-accepted and see to it that the hospital sends nothing of theirs"
        )
    pseudonyms.write_map(out, old, new, people)
    n_left_out = len({*earlier.values()} - had_before)
    keys = {"old_key": pseudonyms.id_of(old), "new_key": pseudonyms.id_of(new)}
    counts = {"n_people": len(people), "n_uncovered_erasures": n_uncovered}
    audit.record(store, "rotation", {**keys, **counts})
    print(f"{len(people)} people in {out}; set {pseudonyms.MAP_VARIABLE} to it for ingest")
    if n_left_out:
        print(
            f"{n_left_out} people of the earlier map are not in these lists: ingest will take them "
            "for new people; name every folder and list that they came from",
            file=sys.stderr,
        )
    if n_uncovered:
        print(are_uncovered + "they will be taken in when they come again", file=sys.stderr)


@app.command("tag")
def tag() -> None:
    """Ask for hospital and number; print the tag by which spira_erasure knows the person."""
    print(tombstone_tag(ask_for_subject()))
