"""``quarantine``: what was refused and why, and who lifts a refusal."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict
from typing import Any

from spira_tasks.commands import open_store, print_json, print_table

EXAMPLES = """\
examples:
  python -m spira_tasks quarantine list
  python -m spira_tasks quarantine list --reason too_short --site site-b --json
  python -m spira_tasks quarantine release rec-0012 --why "short, but the whole sentence is there"
  python -m spira_tasks quarantine withdraw rec-0012 --why "it was another recording"
  python -m spira_tasks quarantine rerun latest        # the same run again, heeding the releases

A release is written to the audit log with its reason. It lifts one refusal of one recording: one
that is refused for something else stays in quarantine. Missing consent, personal data in a text
and unreadable audio cannot be lifted; they are mended where the data come from.
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    quarantine = commands.add_parser(
        "quarantine",
        help="list, release and re-run what was refused",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = quarantine.add_subparsers(required=True, metavar="ACTION")

    show = actions.add_parser("list", parents=[common], help="print the ledger")
    show.add_argument("--reason", help="only this reason")
    show.add_argument("--site", help="only this site")
    show.add_argument("--state", choices=["open", "released", "past"], help="only these")
    show.add_argument("--last", type=int, default=100, metavar="N", help="how many (default 100)")
    show.add_argument("--json", action="store_true")
    show.set_defaults(command=list_entries)

    for name, help_, command in (
        ("release", "lift a refusal", release),
        ("withdraw", "take a release back", withdraw),
    ):
        action = actions.add_parser(name, parents=[common], help=help_)
        action.add_argument("record", help="record_id, as the list shows it")
        action.add_argument("--reason", help="the code, where there are several")
        action.add_argument("--why", required=True, help="a written reason, without names")
        action.set_defaults(command=command)

    rerun_ = actions.add_parser("rerun", parents=[common], help="run a pipeline again")
    rerun_.add_argument("run", nargs="?", default="latest", help="its id (default: the latest)")
    rerun_.add_argument("--run-id", help="name of the new run")
    rerun_.add_argument("--json", action="store_true")
    rerun_.set_defaults(command=rerun, reports=None)


def list_entries(args: argparse.Namespace) -> int:
    from spira_tasks.governance import quarantine

    store = open_store(args)
    found = [
        entry
        for entry in quarantine.ledger(store)
        if args.reason in (None, entry.reason)
        and args.site in (None, entry.site)
        and args.state in (None, entry.state)
    ]
    if args.json:
        print_json([asdict(entry) for entry in found])
        return 0
    if not found:
        print(f"the ledger of {store.url} holds no such entry")
        return 0
    shown = found[-args.last :] if args.last > 0 else []
    rows = [
        [
            *(entry.record, entry.site, entry.task, entry.reason, entry.step),
            f"{entry.suite or 'code'} {entry.suite_version}",
            entry.state,
            *(entry.first_seen[:10], entry.last_seen[:10]),
            f"{entry.released_by}: {entry.why}" if entry.released_by else "",
        ]
        for entry in shown
    ]
    columns = ["record", "site", "task", "reason", "refused by", "version", "state"]
    print_table("", [*columns, "first", "last", "released by"], rows)
    states = Counter(entry.state for entry in found)
    print(", ".join(f"{n} {state}" for state, n in states.items()))
    if len(found) > len(shown):
        print(f"{len(found) - len(shown)} earlier ones are not shown: --last {len(found)}")
    return 0


def release(args: argparse.Namespace) -> int:
    from spira_tasks.governance import quarantine

    entry, meaning = quarantine.release(open_store(args), args.record, args.reason, args.why)
    print(f"released {entry.record} from {entry.reason}: {meaning}")
    print("it counts from the next run on:  python -m spira_tasks quarantine rerun")
    return 0


def withdraw(args: argparse.Namespace) -> int:
    from spira_tasks.governance import quarantine

    entry = quarantine.withdraw(open_store(args), args.record, args.reason, args.why)
    print(f"{entry.record} is refused for {entry.reason} again, from the next run on")
    return 0


def rerun(args: argparse.Namespace) -> int:
    from spira_tasks.commands import find_run
    from spira_tasks.commands.runs import run_steps, steps_of

    store = open_store(args)
    return run_steps(steps_of(find_run(args, store), store), store, args)
