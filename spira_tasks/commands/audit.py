"""``audit``: print the log of what was done; verify it and the documents that quote it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from typer import Option

from spira_tasks.commands import AsJson, Commands, StoreUrl, open_store, print_json, print_records
from spira_tasks.contract.exits import EXIT_REJECTED
from spira_tasks.errors import ConfigError
from spira_tasks.governance import audit

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
SHOWN = (  # of the details of an event, in this order
    *("run", "step", "state"),
    *("decision", "expectation", "reason", "tag", "version", "champion", "what", "why"),
)

app = Commands("audit", "read or verify the audit log", EXAMPLES)


@app.command("list")
def list_events(
    last: Annotated[int, Option(help="number of events")] = 50,
    action: Annotated[str | None, Option(help="only: gate, promotion, erasure, …")] = None,
    as_json: AsJson = False,
    store: StoreUrl = None,
) -> None:
    """Print events."""
    opened = open_store(store)
    found = [event for event in audit.events(opened) if action in (None, event.action)]
    print_records(
        found[-last:] if last > 0 else [],
        as_json=as_json,
        columns=["number", "at (UTC)", "actor", "action", "about"],
        row=lambda one: [str(one.number), one.at, one.actor, one.action, _summary(one.details)],
        if_none=f"no event of the audit log of {opened.url} is to be shown",
    )


@app.command("verify", examples=FINDS)
def verify(
    anchor: Annotated[
        list[str] | None,
        Option(metavar="NUMBER:HASH", help="an event noted elsewhere, to be found; repeatable"),
    ] = None,
    as_json: AsJson = False,
    store: StoreUrl = None,
) -> int:
    """Find changes of the log, decisions and certificates."""
    opened = open_store(store)
    given = {f"--anchor {text[:20]}": audit.anchor_from(text) for text in anchor or ()}
    found = audit.verify(opened, given)
    if not found.n_events and not found.problems:  # nothing even quotes an event that is gone
        raise ConfigError(
            f"there is no audit log at {opened.url}: no run has written there yet, or the store is "
            "another one; name it by --store or SPIRA_STORE"
        )
    if as_json:
        print_json(asdict(found))
    else:
        n = f"{found.n_events} events, {found.n_anchors} anchors"
        print(f"{opened.url}: {n}, {found.n_documents} decisions and certificates")
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
    parts = [f"{name} {details[name]}" for name in SHOWN if details.get(name)]
    blocked = details.get("blocked_by") or []
    return ", ".join(parts + ([f"blocked by {len(blocked)}"] if blocked else []))
