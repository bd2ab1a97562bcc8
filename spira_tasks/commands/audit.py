"""``audit``: print the audit log; verify it, and the decisions and certificates in it."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated, Any

from typer import Option

from spira_tasks.commands import AsJson, Commands, OpenStore, Why, print_json, print_records
from spira_tasks.contract.exits import EXIT_REJECTED
from spira_tasks.contract.run import Anchor
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
verify finds:
  an event that was changed, inserted, or removed from the middle;
  a lost end of the log, if a record, decision or certificate in the store quotes it;
  a decision (waiver, release, tombstone of an erasure, approval, refusal, retention policy) or a
  certificate of erasure that was changed, removed, added by hand, or restored after its withdrawal;
  a wrong signature on a certificate;
  a result, memory or record of a run that was changed, or is not what the log has of its step;
  a file in audit/ that is no event;
  an alias of the model that was moved in MLflow, past every command.
Where a command was killed between the log and its decision, it says what to do.

Only an anchor that is kept elsewhere (--anchor; a report pack has one) shows that a person with the
store's keys rewrote the log and all that quotes it, or removed an end that nothing quotes.  No
check finds an event appended in another person's name: read the log (audit list).

exit status of verify: 0 nothing was changed, 65 something was, 78 there is no log
"""
SEALS = """\
examples:
  python -m spira_tasks audit seal --why "the store was made before version 0.3"

Results, memory, records of runs and the files of registered models carry a seal, a keyed hash
(SPIRA_SEALING_KEY). Steps use nothing without one. Type this once for a store that is older than
seals, after the key was replaced, or where the audit log was damaged and no backup is left: from
then on the log is checked from its newest event on. Look at audit verify before: you vouch for
what is there.

exit status: 0 all is sealed, 65 something was left as it is
"""
SHOWN = (  # of the details of an event, in this order
    *("run", "step", "state"),
    *("decision", "expectation", "reason", "tag", "version", "champion", "what", "why"),
)

app = Commands("audit", "read or verify the audit log", EXAMPLES)


@app.command("list")
def list_events(
    store: OpenStore,
    last: Annotated[int, Option(help="number of events")] = 50,
    action: Annotated[str | None, Option(help="only: gate, promotion, erasure, …")] = None,
    as_json: AsJson = False,
) -> None:
    """Print events."""
    found = [event for event in audit.events(store) if action in (None, event.action)]
    print_records(
        found[-last:] if last > 0 else [],
        as_json=as_json,
        columns=["number", "at (UTC)", "actor", "action", "about"],
        row=lambda one: [str(one.number), one.at, one.actor, one.action, _summary(one.details)],
        if_none=f"no event of the audit log of {store.url} is to be shown",
    )


@app.command("verify", examples=FINDS)
def verify(
    store: OpenStore,
    anchor: Annotated[
        list[str] | None,
        Option(metavar="NUMBER:HASH", help="an event noted elsewhere, to be found; repeatable"),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Find changes of the log, decisions and certificates."""
    from spira_tasks.governance import verification

    given = {f"--anchor {text[:20]}": _anchor(text) for text in anchor or ()}
    found = verification.verify(store, given)
    if not found.n_events and not found.problems:  # no document quotes a lost event either
        raise ConfigError(
            f"there is no audit log at {store.url}: no run has written there yet, or the store is "
            "another one; name it by --store or SPIRA_STORE"
        )
    if as_json:
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
            print("something is not as it was written")
        else:
            print("the log is whole; decisions, certificates and records are as it has them")
    return EXIT_REJECTED if found.problems else 0


@app.command("seal", examples=SEALS)
def seal(store: OpenStore, why: Why) -> int:
    """Accept the store as it stands: seal what has no seal of this key."""
    from spira_tasks.governance import sealing

    found = sealing.seal(store, why)
    print(f"sealed: {found['n_records']} records, {found['n_versions']} versions of the model")
    if found["n_changed"]:
        print(f"not sealed: {found['n_changed']} records that were changed (audit verify)")
    if found["n_versions_unknown"]:
        n = found["n_versions_unknown"]
        print(f"not sealed: {n} versions of the model whose classifier is not the store's")
    return EXIT_REJECTED if found["n_changed"] or found["n_versions_unknown"] else 0


def _anchor(text: str) -> Anchor:
    number, _, digest = text.partition(":")
    if not (number.isdecimal() and re.fullmatch(r"[0-9a-f]{64}", digest)):
        raise ConfigError(f"{text!r} is not an anchor; one looks like 12:<64 hex digits>")
    return Anchor(int(number), digest)


def _summary(details: Any) -> str:
    parts = [f"{name} {details[name]}" for name in SHOWN if details.get(name)]
    blocked = details.get("blocked_by") or []
    return ", ".join(parts + ([f"blocked by {len(blocked)}"] if blocked else []))
