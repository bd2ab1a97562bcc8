"""``pseudonyms``: replace the key without changing anybody's side, and tell a person's tag."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spira_tasks.commands import open_store

if TYPE_CHECKING:
    import pandas as pd

    from spira_tasks.artifacts import Store

EXAMPLES = """\
examples:
  export SPIRA_PSEUDONYM_KEY_OLD="$SPIRA_PSEUDONYM_KEY"
  export SPIRA_PSEUDONYM_KEY="$(openssl rand -hex 32)"
  python -m spira_tasks pseudonyms rotate --data /data/2026 --out /safe/rekey.json
  export SPIRA_PSEUDONYM_MAP=/safe/rekey.json; unset SPIRA_PSEUDONYM_KEY_OLD
  python -m spira_tasks pseudonyms tag

Keep the map where the key is kept: whoever has both old and new pseudonyms can link them.  A second
rotation reads the map of the first from SPIRA_PSEUDONYM_MAP.  See docs/adr/0015-key-rotation.md.
"""
LIST_COLUMNS = ("hospital_id", "patient_rgh")


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    pseudonyms = commands.add_parser(
        "pseudonyms",
        help="replace the key of the pseudonyms; tell the tag of a person",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = pseudonyms.add_subparsers(required=True, metavar="ACTION")
    rotate_ = actions.add_parser(
        "rotate", parents=[common], help="make the re-key map from the old key to the new one"
    )
    rotate_.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="DIR",
        help="folder or s3:// prefix with the hospital numbers of recordings; may be repeated",
    )
    rotate_.add_argument(
        "--list",
        action="append",
        default=[],
        metavar="CSV",
        help=f"the hospital's own list, with the columns {' and '.join(LIST_COLUMNS)}",
    )
    rotate_.add_argument("--out", required=True, type=Path, metavar="FILE", help="the map to make")
    rotate_.add_argument(
        "--uncovered-erasures-accepted",
        action="store_true",
        help="go on where erased people are in none of these: they will be taken in when they come",
    )
    rotate_.set_defaults(command=rotate)
    tag_ = actions.add_parser(
        "tag",
        parents=[common],
        help="ask for hospital and number; print the tag by which spira_erasure knows the person",
    )
    tag_.set_defaults(command=tag)


def rotate(args: argparse.Namespace) -> int:
    from spira_tasks.errors import ConfigError
    from spira_tasks.governance import audit
    from spira_tasks.intake import pseudonyms

    store = open_store(args)
    check_place(args.out, store, args.data)
    old, new = pseudonyms.key(pseudonyms.OLD_VARIABLE), pseudonyms.key()
    if not os.environ.get(pseudonyms.VARIABLE) or old == new:
        raise ConfigError(
            f"set {pseudonyms.VARIABLE} to the new key and {pseudonyms.OLD_VARIABLE} to the old "
            "one (not at all, if it was the demonstration key)"
        )
    earlier = pseudonyms.rekey_map(made_for=old)
    tables = [(read_data(place, old), read_data(place, new)) for place in args.data]
    tables += [(rows, rows) for rows in map(read_list, args.list)]
    known: dict[str, str] = {}
    for by_old, by_new in tables:
        before, after = pseudonyms.own_ids(by_old, old), pseudonyms.own_ids(by_new, new)
        known |= pseudonyms.rotated(before, after, earlier)
    people = {now: first for now, first in known.items() if now != first}
    if not people:
        raise ConfigError("no hospital number was found: name folders by --data, lists by --list")
    n_uncovered = len(uncovered_erasures(store, known.values()))
    if n_uncovered and not args.uncovered_erasures_accepted:
        raise ConfigError(
            f"{n_uncovered} of the people who were erased are in none of these folders and lists: "
            "under the new key nobody would know them, and they would be taken in when they come "
            "again. No map was made. Name their hospital numbers in a list of the hospital "
            "(--list), or a folder that they are in (--data); or say --uncovered-erasures-accepted "
            "and see to it that the hospital sends nothing of theirs"
        )
    pseudonyms.write_map(args.out, old, new, people)
    n_left_out = len(set(earlier.values()) - set(people.values()))
    keys = {"old_key": pseudonyms.id_of(old), "new_key": pseudonyms.id_of(new)}
    counts = {"n_people": len(people), "n_uncovered_erasures": n_uncovered}
    audit.record(store, "rotation", {**keys, **counts})
    print(f"{len(people)} people in {args.out}; set {pseudonyms.MAP_VARIABLE} to it for ingest")
    if n_left_out:
        print(
            f"{n_left_out} people of the earlier map are not in these lists: they will be "
            "strangers when they come again; name every folder and list that they came from",
            file=sys.stderr,
        )
    if n_uncovered:
        print(
            f"{n_uncovered} of the people who were erased are in none of these folders and lists: "
            "they will be taken in when they come again",
            file=sys.stderr,
        )
    return 0


def uncovered_erasures(store: Store, first: Iterable[str]) -> set[str]:
    """Tags of the erasures in force that are of nobody with one of some first pseudonyms."""
    from spira_tasks.governance import decisions
    from spira_tasks.governance.heeded import tombstone_tag

    in_force = {one.about["tag"] for one in decisions.known(store, "erasures")}
    return in_force - set(map(tombstone_tag, first))


def tag(args: argparse.Namespace) -> int:
    from spira_tasks.commands.erase import ask_for_subject
    from spira_tasks.governance.heeded import tombstone_tag

    print(tombstone_tag(ask_for_subject()))
    return 0


def check_place(out: Path, store: Store, data: list[str]) -> None:
    """Refuse a place for the map from which others would read it, or where something is."""
    from spira_tasks.errors import ConfigError

    folders = [store.url, *(one.removeprefix("folder:") for one in data)]
    for folder in (Path(one).resolve() for one in folders if "://" not in one):
        if out.resolve().is_relative_to(folder):
            raise ConfigError(
                f"{out} is inside {folder}: the map links old and new pseudonyms, so it is kept "
                "beside the key, apart from the store and the data"
            )
    if out.exists():
        raise ConfigError(f"{out} is there already; name a new file")


def read_data(place: str, key: bytes) -> pd.DataFrame:
    """What the recordings of a folder tell of their people, as ingest reads it with this key."""
    from spira_tasks.artifacts import open_source
    from spira_tasks.intake import layouts

    reference = place if place.startswith(("s3://", "folder:")) else f"folder:{place}"
    return layouts.read(open_source(reference), key).rows


def read_list(file: str) -> pd.DataFrame:
    """Hospitals and numbers of a CSV file."""
    import pandas as pd

    from spira_tasks.errors import ConfigError

    try:
        rows = pd.read_csv(file, dtype="str", encoding="utf-8-sig", skipinitialspace=True)
    except (OSError, ValueError) as error:  # the message of pandas may quote a line
        raise ConfigError(f"{file} cannot be read as CSV ({type(error).__name__})") from None
    if not set(LIST_COLUMNS) <= set(rows):
        raise ConfigError(f"{file} lacks the columns {' and '.join(LIST_COLUMNS)}")
    return rows[[*LIST_COLUMNS]].apply(lambda column: column.str.strip())
