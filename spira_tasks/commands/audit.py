"""``audit``: read the log of what was done, and check it and what it tells of for changes."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from spira_tasks.commands import open_store, print_json, print_table
from spira_tasks.contract.exits import EXIT_REJECTED

EXAMPLES = """\
examples:
  python -m spira_tasks audit list --last 20
  python -m spira_tasks audit list --action promotion --json
  python -m spira_tasks audit verify
  python -m spira_tasks audit verify --anchor 41:9f86d081…

what verify finds:  python -m spira_tasks audit verify --help
"""
FINDS = """\
verify finds, by what is in the store alone:
  an event that was changed, inserted, or taken out of the middle;
  a lost end of the log, if a record, decision or certificate that is still there quotes it;
  a decision (waiver, release, tombstone of an erasure, approval, refusal, retention policy) or a
  certificate of erasure that was changed, removed, put there by hand, or is there although it was
  taken back; a signature on a certificate that does not fit.
It says what to do where a command was killed between the log and its decision.

Only an anchor that is kept elsewhere (--anchor; a report pack has one) finds that somebody with the
store's keys wrote the log and all that quotes it anew, or cut off an end that nothing quotes.  No
check finds an event appended in another's name: read the log (audit list).

exit status of verify: 0 all is as it was written, 65 it is not, 78 there is no log
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    audit = commands.add_parser(
        "audit",
        help="read or verify the audit log",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = audit.add_subparsers(required=True, metavar="ACTION")
    show = actions.add_parser("list", parents=[common], help="print events")
    show.add_argument("--last", type=int, default=50, metavar="N", help="how many (default 50)")
    show.add_argument("--action", help="only these: gate, promotion, erasure, …")
    show.add_argument("--json", action="store_true")
    show.set_defaults(command=list_events)
    check = actions.add_parser(
        "verify",
        parents=[common],
        help="find changes of the log, decisions and certificates",
        epilog=FINDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument(
        "--anchor",
        action="append",
        default=[],
        metavar="NUMBER:HASH",
        help="an event that was noted elsewhere, to be found again",
    )
    check.add_argument("--json", action="store_true")
    check.set_defaults(command=verify)


def list_events(args: argparse.Namespace) -> int:
    from spira_tasks.governance import audit

    store = open_store(args)
    found = [event for event in audit.events(store) if args.action in (None, event.action)]
    found = found[-args.last :] if args.last > 0 else []
    if args.json:
        print_json([asdict(event) for event in found])
        return 0
    if not found:
        print(f"no event of the audit log of {store.url} is to be shown")
        return 0
    rows = [
        [str(event.number), event.at, event.actor, event.action, _summary(event.details)]
        for event in found
    ]
    print_table("", ["number", "at (UTC)", "actor", "action", "about"], rows)
    return 0


def verify(args: argparse.Namespace) -> int:
    from spira_tasks.errors import ConfigError
    from spira_tasks.governance import audit

    store = open_store(args)
    given = {f"--anchor {text[:20]}": audit.anchor_from(text) for text in args.anchor}
    found = audit.verify(store, given)
    if not found.n_events and not found.problems:  # nothing even quotes an event that is gone
        raise ConfigError(
            f"there is no audit log at {store.url}: no run has written there yet, or the store is "
            "another one; name it by --store or SPIRA_STORE"
        )
    if args.json:
        print_json(asdict(found))
    else:
        n = f"{found.n_events} events, {found.n_anchors} anchors"
        print(f"{store.url}: {n}, {found.n_documents} decisions and certificates")
        print(f"newest: {found.head.number}:{found.head.hash}")
        for problem in found.problems:
            print(f"  {problem}")
        for note in found.notes:
            print(f"  note: {note}")
        if found.problems:
            print("the log, or what it tells of, is not as it was written")
        else:
            print("the log is whole; decisions and certificates are as it tells")
    return EXIT_REJECTED if found.problems else 0


def _summary(details: Any) -> str:
    of_steps = ("run", "step", "state")
    of_people = ("decision", "expectation", "reason", "tag", "version", "champion", "what", "why")
    shown = of_steps + of_people
    parts = [f"{name} {details[name]}" for name in shown if details.get(name)]
    blocked = details.get("blocked_by") or []
    return ", ".join(parts + ([f"blocked by {len(blocked)}"] if blocked else []))
