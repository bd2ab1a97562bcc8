"""``retention``: what is no longer needed, and its removal."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from spira_tasks.commands import open_store, print_json, print_table

if TYPE_CHECKING:
    from spira_tasks.governance.retention import Plan
    from spira_tasks.governance.retention_policy import Policy

EXAMPLES = """\
examples:
  python -m spira_tasks retention plan
  python -m spira_tasks retention plan --on 2028-01-01 --each
  python -m spira_tasks retention plan --policy new.toml      # what another policy would do
  python -m spira_tasks retention adopt new.toml --why "signed by the data protection officer"
  python -m spira_tasks retention apply

plan changes nothing.  The policy is the one that was adopted, or the one that comes with the
platform; docs/retention.md explains it.
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    retention = commands.add_parser(
        "retention",
        help="remove what is no longer needed, by a policy",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = retention.add_subparsers(required=True, metavar="ACTION")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true")
    plan = actions.add_parser("plan", parents=[common, shared], help="print what would go, and why")
    plan.add_argument("--policy", metavar="FILE", help="TOML, instead of the one in force")
    plan.add_argument("--on", metavar="DATE", type=_date, help="as it will be on a day to come")
    plan.add_argument("--each", action="store_true", help="every file by itself")
    plan.set_defaults(command=show_plan)
    do = actions.add_parser("apply", parents=[common, shared], help="remove it")
    do.set_defaults(command=apply, policy=None)
    adopt_ = actions.add_parser("adopt", parents=[common], help="put a policy into force")
    adopt_.add_argument("file", help="TOML")
    adopt_.add_argument("--why", required=True, help="a written reason, without names")
    adopt_.set_defaults(command=adopt)


def show_plan(args: argparse.Namespace) -> int:
    made, rules = _made(args, args.on.timestamp() if args.on else None)
    if args.json:
        print_json(_as_json(made, rules) | {"items": [asdict(item) for item in made.items]})
        return 0
    _print(made, rules, "would go")
    if args.each:
        rows = [
            [item.kind, item.name, f"{item.size:,}", _day(item.last_used)] for item in made.items
        ]
        print_table("each", ["class", "name", "bytes", "last used"], rows)
    return 0


def apply(args: argparse.Namespace) -> int:
    from spira_tasks.governance import retention

    made, rules = _made(args, None)
    retention.apply(open_store(args), made, rules)
    if args.json:
        print_json(_as_json(made, rules))
    else:
        _print(made, rules, "removed")
    return 0


def adopt(args: argparse.Namespace) -> int:
    from spira_tasks.governance import retention_policy

    policy = retention_policy.adopt(open_store(args), args.file, args.why)
    print(f"in force: {args.file} (sha256 {policy.digest[:12]})")
    print("what it means:  python -m spira_tasks retention plan")
    return 0


def _made(args: argparse.Namespace, now: float | None) -> tuple[Plan, Policy]:
    from spira_tasks.governance import retention, retention_policy
    from spira_tasks.runner import tracking_uri

    store = open_store(args)
    rules = retention_policy.read(store, args.policy)
    return retention.plan(store, tracking_uri(store), rules, now), rules


def _as_json(made: Plan, rules: Policy) -> dict[str, Any]:
    return {
        "policy": rules.digest,
        "classes": made.summary(),
        "n_recordings_expired": len(made.expired.records),
    }


def _print(made: Plan, rules: Policy, title: str) -> None:
    rows = []
    for row in made.summary():
        days = rules.days.get(row["class"])
        why = f"not used for {days} days" if days else "nothing refers to it"
        rows.append([row["class"], f"{row['n']:,}", f"{row['n_bytes']:,}", row["last_used"], why])
    if made.expired.records:
        n = f"{len(made.expired.records):,}"
        size = f"{len(made.expired.blobs):,} blobs"
        rows.append(["recordings", n, size, "", "their retention_until is over"])
    print_table(title, ["class", "how many", "bytes", "oldest use", "why"], rows)
    if not rows:
        print("nothing")
    print(f"policy: {rules.source}")


def _date(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write a day as 2028-01-31") from None


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()
