"""``trace``: where something came from, and what came of it."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spira_tasks.commands import open_store, print_json, print_table

if TYPE_CHECKING:
    from spira_tasks.governance.lineage import Trace

EXAMPLES = """\
examples:
  python -m spira_tasks trace spira@champion     # what is behind a model: recordings, gates
  python -m spira_tasks trace spira/3 --json
  python -m spira_tasks trace rec-0012           # what a recording is in: artifacts, runs, models
  python -m spira_tasks trace 5b1f…(64 digits)   # a subject, by the pseudonym
  python -m spira_tasks trace sha256:9f86…       # an artifact, a waveform or a feature matrix
  python -m spira_tasks trace RUN --picture run.svg
"""
FEW = 20


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    trace = commands.add_parser(
        "trace",
        parents=[common],
        help="follow a recording, subject, artifact, run or model",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    trace.add_argument("id", help="what to follow")
    trace.add_argument("--json", action="store_true", help="all of it, for a program")
    trace.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw the graph")
    trace.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    from spira_tasks.governance.picture import draw
    from spira_tasks.governance.trace import Lineage
    from spira_tasks.runner import tracking_uri

    store = open_store(args)
    found = Lineage(store, tracking_uri(store)).trace(args.id)
    if args.picture:
        args.picture.parent.mkdir(parents=True, exist_ok=True)
        args.picture.write_text(draw(found))
    if args.json:
        content = asdict(found)
        content["edges"] = [
            {"from": "/".join(maker), "to": "/".join(reader), "what": what}
            for maker, reader, what in found.edges
        ]
        print_json(content)
    else:
        _print(found)
    if args.picture and not args.json:
        print(f"\npicture: {args.picture}")
    return 0


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
            _verdicts(node.verdicts),
            ", ".join(f"{k} {v[7:15]}" for k, v in sorted(node.outputs.items())),
        ]
        for node in found.nodes
    ]
    columns = ["run", "step", "state", "key", "code", "image", "verdicts", "made"]
    print_table("steps", columns, steps)
    for decision in found.decisions:
        blocked = [v["name"] for v in decision.get("verdicts", ()) if v["verdict"] == "block"]
        why = f": {', '.join(blocked)}" if blocked else ""
        print(f"decision in run {decision['run']}: {decision.get('outcome', 'not kept')}{why}")
    if found.by_persons:
        rows = [
            [
                *(one.action, one.what, one.by, one.at[:16], one.why),
                ", ".join(dict.fromkeys(step.rpartition("/")[2] for step in one.steps)),
                f"withdrawn {one.withdrawn}" if one.withdrawn else "",
            ]
            for one in found.by_persons[-FEW:]
        ]
        columns = ["decision", "about", "by", "at (UTC)", "why", "heeded by", ""]
        print_table("decisions of people", columns, rows)
        if len(found.by_persons) > FEW:
            print(f"and {len(found.by_persons) - FEW} earlier ones: --json has all")
    if found.events:
        actors = Counter(str(event["actor"]) for event in found.events)
        who = ", ".join(f"{n} by {actor}" for actor, n in actors.items())
        print(
            f"audit log: {len(found.events)} events ({who}); see: python -m spira_tasks audit list"
        )
    roles = Counter(str(recording["role"]) for recording in found.recordings)
    print("recordings: " + (", ".join(f"{n} {role}" for role, n in roles.items()) or "none"))
    rows = [
        [
            str(recording["record_id"]),
            str(recording.get("subject_id") or "")[:12],
            str(recording.get("task") or ""),
            str(recording.get("split") or ""),
            str(recording["role"]),
        ]
        for recording in found.recordings[:FEW]
    ]
    print_table("", ["record", "subject", "task", "split", "role"], rows)
    if len(found.recordings) > FEW:
        print(f"and {len(found.recordings) - FEW} more: --json has all")


def _verdicts(verdicts: tuple[Any, ...]) -> str:
    counts = Counter(verdict["verdict"] for verdict in verdicts)
    return ", ".join(f"{counts[name]} {name}" for name in ("pass", "warn", "block") if counts[name])
