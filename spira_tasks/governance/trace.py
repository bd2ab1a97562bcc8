"""Where something came from, and what came of it: from a model to every recording, and back.

The graph is read from the records of runs.  A node is a step of a run; an edge leads from the step
that made an artifact to a step that read it.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Literal, get_args

from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import DIGEST
from spira_tasks.contract.run import StepRecord
from spira_tasks.contract.verdict import Status
from spira_tasks.errors import ConfigError, ServiceUnavailable
from spira_tasks.governance import audit
from spira_tasks.governance.audit import Event
from spira_tasks.governance.inventory import find_file, read_columns

if TYPE_CHECKING:
    import pandas as pd

    from spira_tasks.tracking import Registered

SUBJECT = re.compile(r"[0-9a-f]{64}")
MODEL = re.compile(r"(?:\w+/|v)(\d+)|\w+@(champion|challenger)")
COLUMNS = (
    *("record_id", "subject_id", "session_id", "app", "device_model", "collector_pid"),
    *("split", "task", "label", "audio_sha256", "waveform", "features"),
)
ROLES = {"train": "trained on", "validation": "validated on", "test": "tested on"}
NOT_ABOUT = {"decision", "document", "why"}  # details of a decision's event besides its subject

PICTURE = Path(__file__).with_name("picture.svg.jinja")
BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, MARGIN, HEAD, LINE = 150, 58, 34, 26, 24, 30, 16
UNDER = 60  # room below the boxes for arrows that skip some of them
MIN_WIDTH = 640
MAX_RUNS, MAX_DECISIONS, MAX_CHARACTERS = 12, 12, 110  # more cannot be read; the JSON has all

Kind = Literal["recording", "subject", "artifact", "run", "model"]
NodeId = tuple[str, str]  # run and step


@dataclass(frozen=True)
class Node(StepRecord):
    """A step of a run; its inputs are digests."""

    run: str = ""

    @property
    def id(self) -> NodeId:
        return self.run, self.step

    @property
    def verdict_counts(self) -> str:
        """Such as ``"12 pass, 1 warn"``."""
        counts = Counter(verdict.status for verdict in self.verdicts)
        return ", ".join(
            f"{counts[status]} {status}" for status in get_args(Status) if counts[status]
        )


@dataclass(frozen=True)
class PersonsDecision:
    """What a person decided, as the audit log has it, withdrawn or not."""

    action: str  # "release", "waiver", "erasure", "approval" or "refusal"
    about: Mapping[str, str]  # what it concerns, without the recording: the log names none
    by: str
    at: str
    why: str
    withdrawn: str  # when, by whom and why; empty while it holds
    steps: tuple[str, ...]  # "<run>/<step>" of those that applied it

    @property
    def what(self) -> str:
        hidden = {"classifier", "side", "limit"}  # of few rows a limit reveals how many
        shown = {name: value for name, value in self.about.items() if name not in hidden}
        return ", ".join(f"{name} {value}" for name, value in shown.items())


@dataclass(frozen=True)
class Trace:
    """All that is tied to one thing."""

    kind: Kind
    name: str
    nodes: tuple[Node, ...]  # in the order of the pipeline, run after run
    edges: tuple[tuple[NodeId, NodeId, str], ...]  # maker, reader, the reader's name of the input
    # COLUMNS and "role": "trained on", "validated on", "tested on", "taken in" or "refused"
    recordings: tuple[Mapping[str, Any], ...] = ()
    models: tuple[Mapping[str, Any], ...] = ()  # versions: "version", "aliases", "runs", "outcome"
    decisions: tuple[Mapping[str, Any], ...] = ()  # on promotion, by the runs
    events: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)  # of a run or the model
    by_persons: tuple[PersonsDecision, ...] = ()  # applied by a step or about a model, oldest first


class Lineage:
    """The graph of a store, read once; without aliases of models where MLflow does not answer."""

    def __init__(self, store: Store) -> None:
        self.store = store
        runs = sorted(store.runs, key=lambda run: run.run_id)
        self.nodes = {
            (run.run_id, step): Node(
                **vars(record) | {"inputs": run.inputs(step), "run": run.run_id}
            )
            for run in runs
            for step, record in run.steps.items()
        }
        makers: dict[str, set[NodeId]] = defaultdict(set)
        for node in self.nodes.values():
            for digest in node.outputs.values():
                makers[digest].add(node.id)
        # what a step read by name was made in its own run; what it read by digest, in any
        self.edges = sorted(
            (maker, (run.run_id, step), name)
            for run in runs
            for step, record in run.steps.items()
            for name, reference in record.inputs.items()
            for maker in (
                makers[reference] - {(run.run_id, step)}
                if ":" in reference
                else {(run.run_id, reference.partition(".")[0])} & self.nodes.keys()
            )
        )

    def trace(self, name: str) -> Trace:
        """Find out what ``name`` is, and all that is tied to it; ConfigError when it is unknown."""
        if of_run := [node.id for node in self.nodes.values() if node.run == name]:
            return self._of_nodes("run", name, of_run)
        if DIGEST.fullmatch(name):
            return self._of_artifact(name)
        if SUBJECT.fullmatch(name):
            return self._of_people("subject", name, "subject_id")
        if model := MODEL.fullmatch(name):
            return self._of_model(name, *model.groups())
        return self._of_people("recording", name, "record_id")

    def upstream(self, start: Iterable[NodeId]) -> set[NodeId]:
        """The nodes themselves, and all that they came from."""
        return _reached(start, ((reader, maker) for maker, reader, _ in self.edges))

    def downstream(self, start: Iterable[NodeId]) -> set[NodeId]:
        """The nodes themselves, and all that came of them."""
        return _reached(start, ((maker, reader) for maker, reader, _ in self.edges))

    @cached_property
    def _versions(self) -> list[tuple[Node, Mapping[str, Any]]]:
        """Every registration that a run made or found, with the node that did."""
        return [
            (node, registration)
            for node in self.nodes.values()
            if node.stage == "register" and "registration" in node.outputs
            if (registration := self._json(node.outputs["registration"], "registration.json"))
        ]

    @cached_property
    def _registered(self) -> list[Registered]:
        from spira_tasks import tracking

        try:  # a reader makes no registry where there is none
            return [version for version, _ in tracking.versions(self.store.tracking_uri)]
        except ServiceUnavailable:
            return []

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table of recordings by the digest of its artifact; columns of ``COLUMNS``."""
        digests = {digest for node in self.nodes.values() for digest in node.outputs.values()}
        files = ((digest, find_file(self.store, digest, ".parquet")) for digest in sorted(digests))
        tables = ((digest, read_columns(content, COLUMNS)) for digest, content in files if content)
        return {digest: table for digest, table in tables if "record_id" in table}

    def _json(self, digest: str, name: str) -> dict[str, Any]:
        return dict(json.loads(find_file(self.store, digest, name) or b"{}"))

    def _of_artifact(self, digest: str) -> Trace:
        nodes = self.nodes.values()
        made = [node.id for node in nodes if digest in node.outputs.values()]
        read = [node.id for node in nodes if digest in node.inputs.values()]
        if made or read:
            around = self.upstream(made or read) | self.downstream([*made, *read])
            return self._of_nodes("artifact", digest, around)
        for table in self.tables.values():
            rows = table[table.filter(["waveform", "features"]).eq(digest).any(axis=1)]
            if len(rows):
                return self._of_people("recording", str(rows["record_id"].iloc[0]), "record_id")
        raise ConfigError(f"nothing in {self.store.url} has the digest {digest}")

    def _of_model(self, name: str, version: str | None, alias: str | None) -> Trace:
        if alias:
            version = next((v.version for v in self._registered if alias in v.aliases), None)
        ids = [node.id for node, known in self._versions if str(known["version"]) == version]
        if not ids:
            known = sorted({f"{k['name']}/{k['version']}" for _, k in self._versions})
            raise ConfigError(
                f"{self.store.url} has no model {name!r}; known are: "
                f"{', '.join(known) or 'none yet'}"
            )
        return self._of_nodes("model", name, self.upstream(ids) | self.downstream(ids))

    def _of_people(self, kind: Kind, name: str, column: str) -> Trace:
        records = {
            record
            for table in self.tables.values()
            if column in table
            for record in table["record_id"][table[column] == name].dropna()
        }
        digests = {d for d, table in self.tables.items() if table["record_id"].isin(records).any()}
        if not digests:
            raise ConfigError(
                f"{name!r} is no run, artifact, model, subject or recording of {self.store.url}; "
                "a model is spira/<version> or spira@champion, a subject its 64 hex digits, an "
                "artifact sha256:<64 hex digits>"
            )
        makers = [n.id for n in self.nodes.values() if digests & set(n.outputs.values())]
        return self._of_nodes(kind, name, self.downstream(makers), records)

    def _of_nodes(
        self, kind: Kind, name: str, ids: Iterable[NodeId], only: set[str] | None = None
    ) -> Trace:
        chosen = set(ids)
        nodes = [node for id_, node in self.nodes.items() if id_ in chosen]
        edges = tuple(edge for edge in self.edges if chosen.issuperset(edge[:2]))
        runs = {node.run for node in nodes}
        log = list(audit.events(self.store))
        models = self._models(chosen)
        classifiers = {str(model["classifier"]) for model in models}
        return Trace(
            kind,
            name,
            tuple(nodes),
            edges,
            recordings=tuple(self._recordings(nodes, only)),
            models=tuple(models),
            decisions=tuple(
                {"run": node.run, **self._json(node.outputs["decision"], "decision.json")}
                for node in nodes
                if "decision" in node.outputs
            ),
            events=tuple(
                {"number": e.number, "at": e.at, "actor": e.actor, "action": e.action, **e.details}
                for e in log
                if e.details.get("run") in runs or e.details.get("classifier") in classifiers
            ),
            by_persons=tuple(_decisions_of_persons(nodes, log, classifiers)),
        )

    def _recordings(self, nodes: list[Node], only: set[str] | None) -> list[Mapping[str, Any]]:
        """Every recording in the tables of these nodes, with the closest role it has in any."""
        import pandas as pd

        known: dict[str, dict[str, Any]] = {}
        outputs = [
            (name, self.tables[digest])
            for node in nodes
            for name, digest in node.outputs.items()
            if digest in self.tables
        ]
        for name, whole in outputs:
            table = whole if only is None else whole[whole["record_id"].isin(only)]
            for row in table.dropna(subset="record_id").to_dict("records"):
                entry = known.setdefault(row["record_id"], {"role": "refused"})
                entry.update({k: v for k, v in row.items() if not pd.isna(v)})
                if name != "quarantine":
                    entry["role"] = "taken in"
        if any(node.stage == "train" for node in nodes):
            for entry in known.values():
                # only what became features is ever shown to a network
                if "features" in entry and entry.get("label") is not None:
                    entry["role"] = ROLES.get(entry.get("split", ""), entry["role"])
        return [known[record] for record in sorted(known)]

    def _models(self, ids: set[NodeId]) -> list[Mapping[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        registered = {version.classifier: version for version in self._registered}
        for node, known in self._versions:
            if node.id not in ids:
                continue
            version = registered.get(known["classifier"])
            entry = found.setdefault(
                str(known["version"]),
                {
                    "name": known["name"],
                    "version": str(known["version"]),
                    "classifier": known["classifier"],
                    "aliases": list(version.aliases) if version else [],
                    "outcome": version.tags.get("spira.outcome", "") if version else "",
                    "contains_erased": bool(version and version.contains_erased),
                    "runs": [],
                },
            )
            entry["runs"].append(node.run)
        return [found[version] for version in sorted(found, key=int)]


def _reached(start: Iterable[NodeId], pairs: Iterable[tuple[NodeId, NodeId]]) -> set[NodeId]:
    neighbours: dict[NodeId, set[NodeId]] = defaultdict(set)
    for one, other in pairs:
        neighbours[one].add(other)
    found, pending = set[NodeId](), set(start)
    while pending:
        id_ = pending.pop()
        found.add(id_)
        pending |= neighbours[id_] - found
    return found


def _decisions_of_persons(
    nodes: Iterable[Node], log: Iterable[Event], classifiers: set[str]
) -> Iterator[PersonsDecision]:
    """The decisions that some steps applied, and approvals and refusals of some classifiers."""
    decided = [event for event in log if "decision" in event.details]
    history: dict[str, list[Event]] = defaultdict(list)  # decided and withdrawn, in turn
    for event in decided:
        history[event.details["decision"]].append(event)
    steps: dict[int, list[str]] = defaultdict(list)
    for node in nodes:
        for id_ in chain.from_iterable(node.decisions.values()):
            # decided anew after it was withdrawn: what stood when the step ended
            made = [
                event.number
                for event in history[id_]
                if event.action != "withdrawal"
                and (node.audit is None or event.number < node.audit.number)
            ]
            if made:
                steps[made[-1]].append(f"{node.run}/{node.step}")
    for event in decided:
        classifier = event.details.get("classifier")
        is_tied = event.number in steps if classifier is None else classifier in classifiers
        if event.action == "withdrawal" or not is_tied:
            continue
        later = [e for e in history[event.details["decision"]] if e.number > event.number]
        withdrawn = ""
        if later and later[0].action == "withdrawal":
            withdrawn = f"{later[0].at} by {later[0].actor}: {later[0].details['why']}"
        about = {name: value for name, value in event.details.items() if name not in NOT_ABOUT}
        why, applied_by = str(event.details["why"]), tuple(steps[event.number])
        yield PersonsDecision(
            event.action, about, event.actor, event.at, why, withdrawn, applied_by
        )


def draw(trace: Trace) -> str:
    """The graph as an SVG document: a row of boxes a run, left to right; no value of a patient."""
    from jinja2 import StrictUndefined, Template

    runs = list(dict.fromkeys(node.run for node in trace.nodes))
    shown = runs[-MAX_RUNS:]
    lines: list[tuple[float, str, str]] = []
    places: dict[NodeId, tuple[float, float]] = {}
    top = MARGIN + HEAD * 2
    for run in shown:
        lines.append((top + 14, "run", f"run {run}"))
        filled: Counter[int] = Counter()
        for id_, column in _columns(trace, run).items():
            y = top + HEAD + filled[column] * (BOX_HEIGHT + GAP_Y)
            places[id_] = (MARGIN + column * (BOX_WIDTH + GAP_X), y)
            filled[column] += 1
        top += HEAD + max(filled.values()) * (BOX_HEIGHT + GAP_Y) + UNDER + GAP_Y
    if trace.by_persons:
        lines.append((top + 14, "run", "decisions of people"))
        for number, text in enumerate(_drawn_decisions(trace)):
            lines.append((top + HEAD + number * LINE, "small", text))
        top = int(lines[-1][0]) + LINE
    hidden = f"; {len(runs) - len(shown)} earlier runs are not drawn" if runs != shown else ""
    template = Template(
        PICTURE.read_text("utf-8"), autoescape=True, trim_blocks=True, undefined=StrictUndefined
    )
    picture = template.render(
        title=f"{trace.kind} {trace.name}",
        about=f"{len(trace.nodes)} steps of {len(runs)} runs, {len(trace.recordings)} recordings, "
        f"{len(trace.models)} model versions, {len(trace.by_persons)} decisions of people{hidden}",
        lines=lines,
        arrows=[
            (*places[maker], *places[reader], what)
            for maker, reader, what in trace.edges
            if maker in places and reader in places
        ],
        boxes=[(*places[node.id], node) for node in trace.nodes if node.id in places],
        width=max([MIN_WIDTH, *(x + BOX_WIDTH + MARGIN for x, _ in places.values())]),
        height=top + MARGIN,
        margin=MARGIN,
        box_width=BOX_WIDTH,
        box_height=BOX_HEIGHT,
        gap=GAP_X,
        under=UNDER,
    )
    return str(picture)


def _drawn_decisions(trace: Trace) -> list[str]:
    """One line each, the newest; the reason is cut where it is long."""
    lines = []
    for one in trace.by_persons[-MAX_DECISIONS:]:
        withdrawn = "; withdrawn since" if one.withdrawn else ""
        text = f"{one.action}, {one.what}, by {one.by} on {one.at[:10]}{withdrawn}: {one.why}"
        lines.append(shorten(text, MAX_CHARACTERS, placeholder=" …"))
    n_earlier = len(trace.by_persons) - len(lines)
    return lines + ([f"and {n_earlier} earlier ones"] if n_earlier else [])


def _columns(trace: Trace, run: str) -> dict[NodeId, int]:
    """How far to the right each node of a run stands: one further than all that it reads."""
    columns: dict[NodeId, int] = {}
    for node in trace.nodes:  # in the order of the pipeline, so makers come first
        if node.run == run:
            makers = [maker for maker, reader, _ in trace.edges if reader == node.id]
            before = [columns.get(maker, -1) for maker in makers if maker[0] == run]
            columns[node.id] = max(before, default=-1) + 1
    return columns
