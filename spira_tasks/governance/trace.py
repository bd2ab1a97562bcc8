"""Where something came from, and what came of it: from a model to every recording, and back.

The graph is read from what every run left: which step read which artifacts, with which
configuration, code, lock file and image, and what it made.  A node is a step of a run; two nodes
are joined where one reads what the other made.
"""

from __future__ import annotations

import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from spira_tasks.artifacts import Store
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.errors import ArtifactCorrupt, ConfigError, ServiceUnavailable
from spira_tasks.governance import audit
from spira_tasks.governance.inventory import read_file
from spira_tasks.governance.lineage import Kind, Node, Trace, decided_by_persons

if TYPE_CHECKING:
    import pandas as pd

    from spira_tasks.tracking import Registered

ORDER = {step.name: number for number, step in enumerate(TRAINING)}
SUBJECT = re.compile(r"[0-9a-f]{64}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MODEL = re.compile(r"(?:\w+/|v)(\d+)|\w+@(champion|challenger)")
COLUMNS = ("record_id", "subject_id", "split", "task", "label", "waveform", "features")


class Lineage:
    """The graph of a store, read once.

    Parameters
    ----------
    store : Store
    tracking_uri : str
        Where MLflow is: it knows the aliases.  When it does not answer they are left out.
    """

    def __init__(self, store: Store, tracking_uri: str) -> None:
        self.store = store
        self.tracking_uri = tracking_uri
        self.nodes: dict[tuple[str, str], Node] = {}
        self.reads: dict[tuple[str, str], dict[str, set[tuple[str, str]]]] = {}
        makers: dict[str, set[tuple[str, str]]] = defaultdict(set)
        references: dict[tuple[str, str], Mapping[str, str]] = {}
        for run_id in store.run_ids():
            for name in store.record_names(run_id):
                record = store.read_record(run_id, name)
                if record is None:
                    continue
                node = self._node(run_id, record, store)
                self.nodes[node.id] = node
                references[node.id] = record["inputs"]
                for digest in node.outputs.values():
                    makers[digest].add(node.id)
        for id_, inputs in references.items():
            # what a step read by name it had from its own run; what by digest, from any
            self.reads[id_] = {
                name: {(id_[0], reference.partition(".")[0])} & self.nodes.keys()
                if ":" not in reference
                else makers.get(reference, set()) - {id_}
                for name, reference in inputs.items()
            }

    def trace(self, name: str) -> Trace:
        """Find out what ``name`` is, and all that is tied to it.

        Raises
        ------
        ConfigError
            When nothing of that name is known.
        """
        if name in {node.run for node in self.nodes.values()}:
            return self._of_nodes("run", name, [n.id for n in self.nodes.values() if n.run == name])
        if DIGEST.fullmatch(name):
            return self._of_artifact(name)
        if SUBJECT.fullmatch(name):
            return self._of_people("subject", name, "subject_id")
        if MODEL.fullmatch(name):
            return self._of_model(name)
        return self._of_people("recording", name, "record_id")

    def upstream(self, start: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """The nodes themselves, and all that what they read came from."""
        found: set[tuple[str, str]] = set()
        pending = list(start)
        while pending:
            id_ = pending.pop()
            if id_ not in found:
                found.add(id_)
                pending += [maker for makers in self.reads[id_].values() for maker in makers]
        return found

    def downstream(self, start: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """The nodes themselves, and all that came of what they made."""
        found: set[tuple[str, str]] = set()
        pending = list(start)
        while pending:
            id_ = pending.pop()
            if id_ not in found:
                found.add(id_)
                pending += self._readers.get(id_, ())
        return found

    @cached_property
    def _readers(self) -> dict[tuple[str, str], set[tuple[str, str]]]:
        readers: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
        for id_, inputs in self.reads.items():
            for makers in inputs.values():
                for maker in makers:
                    readers[maker].add(id_)
        return readers

    @cached_property
    def _versions(self) -> list[tuple[Node, Mapping[str, Any]]]:
        """Every registration that a run made or found, with the node that did."""
        found: list[tuple[Node, Mapping[str, Any]]] = []
        for node in self.nodes.values():
            if node.stage == "register" and "registration" in node.outputs:
                registration = self._json(node.outputs["registration"], "registration.json")
                if registration:
                    found.append((node, registration))
        return found

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table of recordings by the digest of its artifact; columns of ``COLUMNS``."""
        import pandas as pd
        import pyarrow.parquet as pq

        found: dict[str, pd.DataFrame] = {}
        digests = {digest for node in self.nodes.values() for digest in node.outputs.values()}
        for digest in sorted(digests):
            for content in self._parquet(digest):
                present = [c for c in COLUMNS if c in pq.read_schema(io.BytesIO(content)).names]
                if "record_id" in present:
                    found[digest] = pd.read_parquet(io.BytesIO(content), columns=present)
        return found

    def _parquet(self, digest: str) -> list[bytes]:
        """The tables of an artifact, without the rows of the erased; none past its retention."""
        try:
            names = [name for name in self.store.files(digest) if name.endswith(".parquet")]
            return [read_file(self.store, digest, name) for name in names]
        except (ArtifactCorrupt, ConfigError):
            return []

    def _json(self, digest: str, name: str) -> dict[str, Any]:
        try:
            return dict(json.loads(self.store.directory(digest).read(name)))
        except (ArtifactCorrupt, ConfigError):
            return {}

    def _of_artifact(self, digest: str) -> Trace:
        ids = [
            node.id
            for node in self.nodes.values()
            if digest in node.outputs.values() or digest in node.inputs.values()
        ]
        if not ids:
            blobs = {"waveform": digest, "features": digest}
            rows = [
                table[table[column] == value]
                for table in self.tables.values()
                for column, value in blobs.items()
                if column in table and (table[column] == value).any()
            ]
            if not rows:
                raise ConfigError(f"nothing in {self.store.url} has the digest {digest}")
            return self._of_people("recording", str(rows[0]["record_id"].iloc[0]), "record_id")
        made = [id_ for id_ in ids if digest in self.nodes[id_].outputs.values()]
        around = self.upstream(made or ids) | self.downstream(ids)
        return self._of_nodes("artifact", digest, around)

    def _of_model(self, name: str) -> Trace:
        match = MODEL.fullmatch(name)
        version, alias = match.groups() if match else (None, None)
        if alias:
            version = next((v.version for v in self._registered if alias in v.aliases), None)
        nodes = [node for node, known in self._versions if str(known["version"]) == version]
        if not nodes:
            known = sorted({f"{k['name']}/{k['version']}" for _, k in self._versions})
            raise ConfigError(
                f"{self.store.url} has no model {name!r}; known are: "
                f"{', '.join(known) or 'none yet'}"
            )
        around = self.upstream(node.id for node in nodes)
        around |= self.downstream(node.id for node in nodes)
        return self._of_nodes("model", name, around)

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
        self,
        kind: Kind,
        name: str,
        ids: Iterable[tuple[str, str]],
        only: set[str] | None = None,
    ) -> Trace:
        chosen = set(ids)
        nodes = sorted(
            (self.nodes[id_] for id_ in chosen),
            key=lambda node: (node.run, ORDER.get(node.step, 99), node.finished_at),
        )
        edges = sorted(
            (maker, id_, what)
            for id_ in chosen
            for what, makers in self.reads[id_].items()
            for maker in makers & chosen
        )
        runs = {node.run for node in nodes}
        decided = [n for n in nodes if "decision" in n.outputs]
        log = list(audit.events(self.store))
        models = self._models(nodes)
        classifiers = {str(model["classifier"]) for model in models}
        return Trace(
            kind,
            name,
            tuple(nodes),
            tuple(edges),
            recordings=tuple(self._recordings(nodes, only)),
            models=tuple(models),
            decisions=tuple(
                {"run": n.run, **self._json(n.outputs["decision"], "decision.json")}
                for n in decided
            ),
            events=tuple(
                {"number": e.number, "at": e.at, "actor": e.actor, "action": e.action, **e.details}
                for e in log
                if e.details.get("run") in runs or e.details.get("classifier") in classifiers
            ),
            by_persons=tuple(decided_by_persons(nodes, log, classifiers)),
        )

    def _recordings(self, nodes: list[Node], only: set[str] | None) -> list[Mapping[str, Any]]:
        """Every recording in the tables of these nodes, with the closest role it has in any."""
        import pandas as pd

        known: dict[str, dict[str, Any]] = {}
        trained = {n.run for n in nodes if n.stage == "train"}
        for node in nodes:
            for name, digest in node.outputs.items():
                if digest not in self.tables:
                    continue
                table = self.tables[digest].dropna(subset="record_id")
                table = table if only is None else table[table["record_id"].isin(only)]
                for row in table.to_dict("records"):
                    entry = known.setdefault(row["record_id"], {"role": "refused"})
                    entry.update({k: v for k, v in row.items() if not pd.isna(v)})
                    if name != "quarantine":
                        entry["role"] = "taken in"
        roles = {"train": "trained on", "validation": "validated on", "test": "tested on"}
        for entry in known.values():
            # only what became features is ever shown to a network
            if trained and "features" in entry and entry.get("label") is not None:
                entry["role"] = roles.get(entry.get("split", ""), entry["role"])
        return [known[record] for record in sorted(known)]

    def _models(self, nodes: list[Node]) -> list[Mapping[str, Any]]:
        ids = {node.id for node in nodes}
        found: dict[str, dict[str, Any]] = {}
        registered = {v.classifier: v for v in self._registered}
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

    @cached_property
    def _registered(self) -> list[Registered]:
        from spira_tasks import tracking

        try:  # whoever only reads makes no registry where there is none
            return [version for version, _ in tracking.versions(self.tracking_uri)]
        except ServiceUnavailable:
            return []

    def _node(self, run_id: str, record: Mapping[str, Any], store: Store) -> Node:
        inputs = {}
        for name, reference in record["inputs"].items():
            if ":" in reference:
                inputs[name] = reference
                continue
            step, _, output = reference.partition(".")
            maker = store.read_record(run_id, step) or {}
            inputs[name] = maker.get("outputs", {}).get(output, reference)
        return Node(
            run=run_id,
            step=record["step"],
            stage=record["stage"],
            state=record["state"],
            key=record.get("key", ""),
            finished_at=record["finished_at"],
            inputs=inputs,
            outputs=record.get("outputs", {}),
            config=record.get("config", {}),
            verdicts=tuple(record.get("verdicts", ())),
            provenance=record.get("provenance", {}),
            heeded=record.get("heeded", {}),
            event=record.get("audit", {}).get("number"),
        )
