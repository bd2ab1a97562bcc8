"""``model``: list the versions of the model; approve or refuse one, or go back to one."""

from __future__ import annotations

from typing import Annotated, Any

from typer import Argument, Option

from spira_tasks.commands import AsJson, Commands, OpenStore, Why, print_records
from spira_tasks.contract.place import COMMAND
from spira_tasks.governance import applied, approval

EXAMPLES = """\
examples:
  python -m spira_tasks model list
  python -m spira_tasks model approve 3 --why "read the model card; fit for the pilot in ward 2"
  python -m spira_tasks model refuse 3 --why "misses too many patients who wear a mask"
  python -m spira_tasks model rollback --why "many more positives since this morning"

A refused version is not promoted; if it is the champion, the champion before it takes its place.
An approval lifts a refusal. It overrides no gate: what a gate blocks, or what learned from a person
who was erased, stays blocked. A provisional version, which too few people tested, is promoted only
once it is approved (expectations/policy.yaml).

A rollback puts the version before the champion back into use, or the one named by --to. What was
rolled back is promoted by no run; only a rollback to it brings it back.
"""
VERSION = Argument(help="its number, as the list shows it")

DECIDED = {"refusals": "refused", "rollbacks": "rolled back", "approvals": "approved"}

app = Commands("model", "list, approve, refuse or roll back versions of the model", EXAMPLES)


@app.command("list")
def list_versions(store: OpenStore, as_json: AsJson = False) -> None:
    """Print every version."""
    print_records(
        approval.standings(store),
        as_json=as_json,
        columns=["version", "aliases", "outcome", "blocked by", "", "by a person", "who and why"],
        row=_row,
        if_none=f"the registry of {store.url} has no version of the model",
    )


def _row(standing: Any) -> list[str]:
    version = standing.registered
    decision = standing.refusal or standing.rollback or standing.approval
    return [
        version.version,
        ", ".join(version.aliases) or "-",
        version.tags.get("spira.outcome", "-"),
        version.tags.get("spira.blocked_by", ""),
        "contains erased people" if version.contains_erased else "",
        DECIDED[decision.kind] if decision else "",
        f"{decision.by}, {decision.at[:10]}: {decision.why}" if decision else "",
    ]


@app.command("approve")
def approve(store: OpenStore, version: Annotated[str, VERSION], why: Why) -> None:
    """State that a version may serve."""
    from spira_tasks.tracking import CHAMPION

    standing, new = approval.approve(store, version, why)
    registered = standing.registered
    print(f"{'approved' if new else 'it was approved already'}: version {registered.version}")
    if standing.refusal:
        print(f"the refusal of {standing.refusal.at[:10]} is lifted")
    blocked_by = registered.tags.get("spira.blocked_by", "")
    if registered.contains_erased:
        print("it stays blocked: it learned from people who had their data erased")
    elif blocked_by not in ("", applied.REFUSED):
        print(f"it stays blocked by {blocked_by}: an approval overrides no gate")
    elif CHAMPION not in registered.aliases:
        print(f"it counts from the next run on:  {COMMAND} quarantine rerun RUN")


@app.command("refuse")
def refuse(store: OpenStore, version: Annotated[str, VERSION], why: Why) -> None:
    """State that a version may not serve, and stop it."""
    from spira_tasks.tracking import CHAMPION

    standing, new, instead = approval.refuse(store, version, why)
    registered = standing.registered
    print(f"{'refused' if new else 'it was refused already'}: version {registered.version}")
    if CHAMPION not in registered.aliases:
        print("it was not the champion: what serves is as before")
    elif instead:
        print(f"the champion is version {instead} again")
    else:
        print("there is no champion now: no earlier one may serve; train again")


@app.command("rollback")
def rollback(
    store: OpenStore,
    why: Annotated[str, Option("--why", "--reason", help="a written reason, without names")],
    to: Annotated[
        str, Option(metavar="VERSION", help="the version that is to serve; by default the previous")
    ] = "",
) -> None:
    """Take the champion out of use, and put an earlier version in its place."""
    from spira_tasks.governance.approval import roll_back

    done = roll_back(store, to, why)
    print(f"{'rolled back' if done.new else 'it was rolled back already'}: version {done.version}")
    print(f"the champion is version {done.champion}; before it: {done.previous or 'none'}")
    if not done.new:
        print("to go back further, give another reason")
