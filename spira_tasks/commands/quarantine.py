"""``quarantine``: list refused recordings; release one; run a pipeline again."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from typer import Argument, Option

from spira_tasks.commands import AsJson, Commands, OpenStore, Why, find_run, print_records
from spira_tasks.commands.runs import run_steps, steps_of
from spira_tasks.contract.place import COMMAND
from spira_tasks.governance import quarantine

EXAMPLES = """\
examples:
  python -m spira_tasks quarantine list
  python -m spira_tasks quarantine list --reason too_short --site site-b --json
  python -m spira_tasks quarantine release rec-0012 --why "short, but the whole sentence is there"
  python -m spira_tasks quarantine withdraw rec-0012 --why "it was another recording"
  python -m spira_tasks quarantine rerun latest        # the same run again, with the releases

A release is written to the audit log with its reason. It lifts one refusal of one recording: one
that is refused for something else stays in quarantine. Missing consent, personal data in a text
and unreadable audio cannot be lifted; they are corrected at the source of the data.
"""
Record = Annotated[str, Argument(help="record_id, as the list shows it")]
Reason = Annotated[str | None, Option(help="the code, where there are several")]

app = Commands("quarantine", "list, release and re-run what was refused", EXAMPLES)


@app.command("list")
def list_entries(
    store: OpenStore,
    reason: Annotated[str | None, Option(help="only this reason")] = None,
    site: Annotated[str | None, Option(help="only this site")] = None,
    state: Annotated[
        Literal["open", "released", "past"] | None, Option(help="only this state")
    ] = None,
    last: Annotated[int, Option(help="number of entries")] = 100,
    as_json: AsJson = False,
) -> None:
    """Print the ledger."""
    found = [
        entry
        for entry in quarantine.ledger(store)
        if reason in (None, entry.reason)
        and site in (None, entry.site)
        and state in (None, entry.state)
    ]
    n_shown = len(found) if as_json else max(0, min(last, len(found)))
    columns = ["record", "site", "task", "reason", "refused by", "version", "state"]
    print_records(
        found[len(found) - n_shown :],
        as_json=as_json,
        columns=[*columns, "first", "last", "released by"],
        row=_row,
        if_none=f"no entry of the ledger of {store.url} is to be shown",
    )
    if found and not as_json:
        states = Counter(entry.state for entry in found)
        print(", ".join(f"{n} {state}" for state, n in states.items()))
    if n_shown < len(found):
        print(f"{len(found) - n_shown} earlier ones are not shown: --last {len(found)}")


def _row(entry: Any) -> list[str]:
    return [
        *(entry.record, entry.site, entry.task, entry.reason, entry.step),
        f"{entry.suite or 'code'} {entry.suite_version}",
        entry.state,
        *(entry.first_seen[:10], entry.last_seen[:10]),
        f"{entry.released_by}: {entry.why}" if entry.released_by else "",
    ]


@app.command("release")
def release(store: OpenStore, record: Record, why: Why, reason: Reason = None) -> None:
    """Lift a refusal."""
    entry, meaning = quarantine.release(store, record, reason, why)
    if entry.released_by:
        when = f"by {entry.released_by} on {entry.released_at[:10]}: {entry.why}"
        print(f"{entry.record} is released from {entry.reason} already, {when}")
        return
    print(f"released {entry.record} from {entry.reason}: {meaning}")
    print(f"it counts from the next run on:  {COMMAND} quarantine rerun")


@app.command("withdraw")
def withdraw(store: OpenStore, record: Record, why: Why, reason: Reason = None) -> None:
    """Take a release back."""
    entry = quarantine.withdraw(store, record, reason, why)
    print(f"{entry.record} is refused for {entry.reason} again, from the next run on")


@app.command("rerun")
def rerun(
    store: OpenStore,
    run: Annotated[str, Argument(help="its id")] = "latest",
    run_id: Annotated[str | None, Option(help="name of the new run")] = None,
    as_json: AsJson = False,
) -> int:
    """Run a pipeline again."""
    return run_steps(steps_of(find_run(run, store), store), store, run_id, as_json=as_json)
