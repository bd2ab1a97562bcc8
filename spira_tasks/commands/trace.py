"""``trace``: where something came from, and what was made of it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from spira_tasks.commands import AsJson, Commands, OpenStore, print_json, print_table
from spira_tasks.contract.place import COMMAND
from spira_tasks.contract.typed import typed
from spira_tasks.contract.verdict import Verdict
from spira_tasks.governance.trace import Lineage, Trace, draw

EXAMPLES = """\
examples:
  python -m spira_tasks trace spira@champion     # what is behind a model: recordings, gates
  python -m spira_tasks trace spira/3 --json
  python -m spira_tasks trace rec-0012           # what a recording is in: artifacts, runs, models
  python -m spira_tasks trace 5b1f…(64 digits)   # a subject, by the pseudonym
  python -m spira_tasks trace sha256:9f86…       # an artifact, a waveform or a feature matrix
  python -m spira_tasks trace RUN --picture run.svg
"""
MAX_ROWS = 20
OF_COLLECTION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # a session that it took

app = Commands()


@app.command("trace", examples=EXAMPLES)
def trace(
    store: OpenStore,
    name: Annotated[str, Argument(help="what to follow")],
    picture: Annotated[Path | None, Option(help="draw the graph")] = None,
    as_json: AsJson = False,
) -> None:
    """Follow a recording, subject, artifact, run or model."""
    found = Lineage(store).trace(name)
    if picture:
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_text(draw(found))
    if as_json:
        content = asdict(found)
        content["edges"] = [
            {"from": "/".join(maker), "to": "/".join(reader), "what": what}
            for maker, reader, what in found.edges
        ]
        print_json(content)
        return
    _print(found)
    if picture:
        print(f"\npicture: {picture}")


def _print(found: Trace) -> None:
    print(f"{found.kind} {found.name}\n")
    if found.models:
        rows = [
            [
                f"{model['name']}/{model['version']}",
                ", ".join(model["aliases"]) or "-",
                model["outcome"] or "-",
                "contains erased people" if model["contains_erased"] else "",
                ", ".join(model["runs"]),
            ]
            for model in found.models
        ]
        print_table("models", ["model", "aliases", "outcome", "", "runs"], rows)
    steps = [
        [
            *(node.run, node.step, node.state, node.key[:12]),
            node.provenance.get("git", "")[:13] or "-",
            (node.provenance.get("image", "").partition(" ")[2] or "-")[:19],
            node.verdict_counts,
            ", ".join(f"{k} {v[7:15]}" for k, v in sorted(node.outputs.items())),
        ]
        for node in found.nodes
    ]
    columns = ["run", "step", "state", "key", "code", "image", "verdicts", "made"]
    print_table("steps", columns, steps)
    for decision in found.decisions:
        verdicts = typed(decision.get("verdicts", ()), tuple[Verdict, ...], "verdicts")
        blocked = [verdict.id for verdict in verdicts if verdict.stops]
        why = f": {', '.join(blocked)}" if blocked else ""
        print(f"decision in run {decision['run']}: {decision.get('outcome', 'not kept')}{why}")
    if found.by_persons:
        rows = [
            [
                *(one.action, one.what, one.by, one.at[:16], one.why),
                ", ".join(dict.fromkeys(step.rpartition("/")[2] for step in one.steps)),
                f"withdrawn {one.withdrawn}" if one.withdrawn else "",
            ]
            for one in found.by_persons[-MAX_ROWS:]
        ]
        columns = ["decision", "about", "by", "at (UTC)", "why", "applied by", ""]
        print_table("decisions of people", columns, rows)
        if len(found.by_persons) > MAX_ROWS:
            print(f"and {len(found.by_persons) - MAX_ROWS} earlier ones: --json has all")
    if found.events:
        actors = Counter(str(event["actor"]) for event in found.events)
        who = ", ".join(f"{n} by {actor}" for actor, n in actors.items())
        print(f"audit log: {len(found.events)} events ({who}); see: {COMMAND} audit list")
    roles = Counter(str(recording["role"]) for recording in found.recordings)
    print("recordings: " + (", ".join(f"{n} {role}" for role, n in roles.items()) or "none"))
    rows = [
        [
            str(recording["record_id"]),
            str(recording.get("subject_id") or "")[:12],
            *(str(recording.get(column) or "") for column in ("task", "split")),
            str(recording["role"]),
        ]
        for recording in found.recordings[:MAX_ROWS]
    ]
    print_table("", ["record", "subject", "task", "split", "role"], rows)
    if len(found.recordings) > MAX_ROWS:
        print(f"and {len(found.recordings) - MAX_ROWS} more: --json has all")
    sessions = (str(recording.get("session_id")) for recording in found.recordings)
    if any(map(OF_COLLECTION.fullmatch, sessions)):
        print("submissions and devices: python -m spira_services trace RECORD")
