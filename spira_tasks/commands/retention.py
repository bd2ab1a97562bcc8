"""``retention``: list and remove what is no longer needed."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

from typer import Argument, BadParameter, Option

from spira_tasks.artifacts import Store
from spira_tasks.commands import AsJson, Commands, OpenStore, Why, print_json, print_table
from spira_tasks.contract.place import COMMAND
from spira_tasks.governance import retention
from spira_tasks.governance.retention import Plan, Policy

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

app = Commands("retention", "remove what is no longer needed, by a policy", EXAMPLES)


def _date(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise BadParameter(f"{text!r}: write a day as 2028-01-31") from None


@app.command("plan")
def show_plan(
    store: OpenStore,
    policy: Annotated[str | None, Option(help="TOML, instead of the policy in force")] = None,
    on: Annotated[
        datetime | None, Option(parser=_date, metavar="DATE", help="as it will be on this day")
    ] = None,
    each: Annotated[bool, Option("--each", help="list every file")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what would be removed, and why."""
    plan, rules = _plan(store, policy, on.timestamp() if on else None)
    if as_json:
        print_json(_as_json(plan, rules) | {"items": [asdict(item) for item in plan.items]})
        return
    _print(plan, rules, "would go")
    if each:
        rows = [
            [item.kind, item.name, f"{item.size:,}", retention.day(item.last_used)]
            for item in plan.items
        ]
        print_table("each", ["class", "name", "bytes", "last used"], rows)


@app.command("apply")
def apply(store: OpenStore, as_json: AsJson = False) -> None:
    """Remove it."""
    plan, rules = _plan(store)
    retention.apply(store, plan, rules)
    if as_json:
        print_json(_as_json(plan, rules))
    else:
        _print(plan, rules, "removed")


@app.command("adopt")
def adopt(store: OpenStore, file: Annotated[str, Argument(help="TOML")], why: Why) -> None:
    """Put a policy into force."""
    policy = retention.adopt_policy(store, file, why)
    print(f"in force: {file} (sha256 {policy.digest[:12]})")
    print(f"what it means:  {COMMAND} retention plan")


def _plan(store: Store, policy: str | None = None, now: float | None = None) -> tuple[Plan, Policy]:
    rules = retention.read_policy(store, policy)
    return retention.plan(store, rules, now), rules


def _as_json(plan: Plan, rules: Policy) -> dict[str, Any]:
    return {
        "policy": rules.digest,
        "classes": plan.summary(),
        "n_recordings_expired": len(plan.expired.records),
    }


def _print(plan: Plan, rules: Policy, title: str) -> None:
    rows = []
    for row in plan.summary():
        days = rules.days.get(row["class"])
        why = f"not used for {days} days" if days else "nothing refers to it"
        rows.append([row["class"], f"{row['n']:,}", f"{row['n_bytes']:,}", row["last_used"], why])
    if plan.expired.records:
        n = f"{len(plan.expired.records):,}"
        size = f"{len(plan.expired.blobs):,} blobs"
        rows.append(["recordings", n, size, "", "their retention_until is over"])
    print_table(title, ["class", "how many", "bytes", "oldest use", "why"], rows)
    if not rows:
        print("nothing")
    print(f"policy: {rules.source}")
