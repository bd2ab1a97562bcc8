"""``model``: which versions there are, and what a person says of one."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from spira_tasks.commands import open_store, print_json, print_table

EXAMPLES = """\
examples:
  python -m spira_tasks model list
  python -m spira_tasks model approve 3 --why "read the model card; fit for the pilot in ward 2"
  python -m spira_tasks model refuse 3 --why "misses too many patients who wear a mask"

A refused version is not promoted; if it is the champion, the champion before it takes its place.
An approval lifts a refusal. It overrides no gate: what a gate blocks, or what learned from a person
who was erased, stays blocked. With the setting promote.require_approval=true a version is promoted
only once it is approved.
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    model = commands.add_parser(
        "model",
        help="list, approve or refuse versions of the model",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = model.add_subparsers(required=True, metavar="ACTION")
    show = actions.add_parser("list", parents=[common], help="print every version")
    show.add_argument("--json", action="store_true")
    show.set_defaults(command=list_versions)
    for name, help_, command in (
        ("approve", "say that a version may serve", approve),
        ("refuse", "say that a version may not serve, and stop it", refuse),
    ):
        action = actions.add_parser(name, parents=[common], help=help_)
        action.add_argument("version", help="its number, as the list shows it")
        action.add_argument("--why", required=True, help="a written reason, without names")
        action.set_defaults(command=command)


def list_versions(args: argparse.Namespace) -> int:
    from spira_tasks.governance import approval
    from spira_tasks.runner import tracking_uri

    store = open_store(args)
    found = approval.standings(store, tracking_uri(store))
    if args.json:
        print_json([asdict(one) for one in found])
        return 0
    if not found:
        print(f"the registry of {store.url} has no version of the model")
        return 0
    rows = []
    for one in found:
        version, said = one.registered, one.refusal or one.approval
        rows.append(
            [
                version.version,
                ", ".join(version.aliases) or "-",
                version.tags.get("spira.outcome", "-"),
                version.tags.get("spira.blocked_by", ""),
                "contains erased people" if version.contains_erased else "",
                ("refused" if one.refusal else "approved") if said else "",
                f"{said.by}, {said.at[:10]}: {said.why}" if said else "",
            ]
        )
    columns = ["version", "aliases", "outcome", "blocked by", "", "by a person", "who and why"]
    print_table("", columns, rows)
    return 0


def approve(args: argparse.Namespace) -> int:
    from spira_tasks.governance import approval, heeded
    from spira_tasks.runner import tracking_uri
    from spira_tasks.tracking import CHAMPION

    store = open_store(args)
    one, new = approval.approve(store, tracking_uri(store), args.version, args.why)
    version = one.registered
    print(f"{'approved' if new else 'it was approved already'}: version {version.version}")
    if one.refusal:
        print(f"the refusal of {one.refusal.at[:10]} is lifted")
    blocked_by = version.tags.get("spira.blocked_by", "")
    if version.contains_erased:
        print("it stays blocked: it learned from people who had their data erased")
    elif blocked_by not in ("", heeded.REFUSED):
        print(f"it stays blocked by {blocked_by}: an approval overrides no gate")
    elif CHAMPION not in version.aliases:
        print("it counts from the next run on:  python -m spira_tasks quarantine rerun RUN")
    return 0


def refuse(args: argparse.Namespace) -> int:
    from spira_tasks.governance import approval
    from spira_tasks.runner import tracking_uri
    from spira_tasks.tracking import CHAMPION

    store = open_store(args)
    one, new, instead = approval.refuse(store, tracking_uri(store), args.version, args.why)
    print(f"{'refused' if new else 'it was refused already'}: version {one.registered.version}")
    if CHAMPION not in one.registered.aliases:
        print("it was not the champion: what serves is as before")
    elif instead:
        print(f"the champion is version {instead} again")
    else:
        print("there is no champion now: no earlier one may serve; train again")
    return 0
