"""``expectations``: list, show, compare or propose what must hold of the data."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from expectations import document
from expectations.words import Language as Code
from expectations.words import verdicts, words_of
from expectations.words.catalogue import Entry, Suite, from_json
from expectations.words.suites import Description, describe, limit
from spira_tasks.artifacts import Store
from spira_tasks.commands import AsJson, Commands, OpenStore, print_json, print_records, print_table
from spira_tasks.errors import ConfigError

EXAMPLES = """\
examples:
  python -m spira_tasks expectations list
  python -m spira_tasks expectations list audio --language pt
  python -m spira_tasks expectations show "expect_column_values_to_be_between(age, possible)"
  python -m spira_tasks expectations list --json > before.json
  python -m spira_tasks expectations diff before.json now
  python -m spira_tasks expectations diff RUN_A RUN_B
  python -m spira_tasks expectations propose --data .spira/cohort --out proposal.py
  python -m spira_tasks expectations propose --data s3://hospital/2026-11
  python -m spira_tasks expectations document --language pt > docs/expectations.pt.md

Thresholds depend on how many recordings there are: list, show and document have those for a table
of 1,000 recordings of 250 people with every column filled in.
"""
Language = Annotated[Code, Option()]
Side = Annotated[str, Argument(help="a file of `list --json`, the id of a run, or `now`")]

app = Commands(
    "expectations", "list, show, compare or propose what must hold of the data", EXAMPLES
)


@app.command("list")
def list_all(
    suite: Annotated[str | None, Argument()] = None,
    language: Language = "en",
    as_json: AsJson = False,
) -> None:
    """Print one line for each expectation."""
    found = _suites(suite)
    if as_json:
        print_json([asdict(suite) for suite in found])
        return
    words = words_of(language)
    rows = [
        [
            suite.name,
            _described(entry, suite, language).title,
            words(f"severity.{entry.severity}"),
            words(f"action.{entry.action}"),
            limit(entry, language),
            entry.name,
        ]
        for suite in found
        for entry in suite.expectations
    ]
    names = ("suite", "expectation", "severity", "action", "limit", "name")
    print_table("", [words(f"suites_list.column.{name}") for name in names], rows)
    for each in found:
        n = len(each.expectations)
        print(f"{each.name}: version {each.version or '-'}, {n} expectations, {each.digest}")


@app.command("show")
def show(
    name: Annotated[str, Argument(help="of an expectation, a gate or a suite")],
    language: Language = "en",
    as_json: AsJson = False,
) -> None:
    """Print whole sentences, and why, of a suite, the expectations of a name, or a gate."""
    words = words_of(language)
    if name in verdicts.gates():
        gate = verdicts.describe_gate(name, language)
        if as_json:
            print_json([{"name": name, "words": asdict(gate)}])
        else:
            _print_facts(gate, {"name": name}, language)
        return
    every = _suites()
    found = [
        (suite, entry, _described(entry, suite, language))
        for suite in every
        for entry in suite.expectations
        if name in (suite.name, entry.name)
    ]
    if not found:
        raise ConfigError(
            f"there is no expectation, gate or suite {name!r}. The suites are "
            f"{', '.join(suite.name for suite in every)}; `expectations list` has the names of "
            "the expectations"
        )
    if as_json:
        print_json([{"suite": s.name} | asdict(e) | {"words": asdict(p)} for s, e, p in found])
    elif name in {suite.name for suite in every}:
        rows = [document.row(entry, suite.name, language) for suite, entry, _ in found]
        print_table(name, document.columns(language), rows)
    else:
        for suite, entry, described in found:
            facts = {
                "severity": words(f"severity.{entry.severity}"),
                "action": words(f"action.{entry.action}"),
                "suite": f"{suite.name} {suite.version}".strip(),
                "name": entry.name,
                "parameters": json.dumps(entry.parameters, ensure_ascii=False),
            }
            _print_facts(described, facts, language)


def _print_facts(described: Description, facts: dict[str, str], language: Code) -> None:
    words = words_of(language)
    facts = {part: getattr(described, part) for part in ("sentence", "rationale", "owner")} | facts
    rows = [[words(f"fact.{key}"), text] for key, text in facts.items()]
    print_table(described.title, ["", ""], rows)


@app.command("diff")
def diff(store: OpenStore, a: Side, b: Side, as_json: AsJson = False) -> None:
    """Print what was added, removed and changed from A to B."""
    from spira_tasks import suites

    (before, is_run_a), (after, is_run_b) = _version(a, store), _version(b, store)
    of_runs = is_run_a or is_run_b
    changes = suites.diff(before, after, of_one_table=not of_runs)
    print_records(
        changes,
        as_json=as_json,
        columns=["suite", "expectation", "what", a, b],
        row=lambda change: [change.suite, change.name, change.what, change.before, change.after],
        if_none="no difference",
    )
    if of_runs and not as_json:
        print(
            "A run's suites are made for its own table: thresholds that follow its size are not "
            "compared, and expectations on columns that it lacks are absent."
        )


@app.command("document")
def print_document(language: Language = "en") -> None:
    """Print all of them as Markdown."""
    sys.stdout.write(document.page(_suites(), language))


@app.command("propose")
def propose(
    data: Annotated[str, Option(help="folder or s3://bucket/prefix of recordings")],
    audio: Annotated[bool, Option("--audio", help="read the audio files too")] = False,
    out: Annotated[Path | None, Option(help="default: print it")] = None,
) -> None:
    """Suggest ranges from a cohort, for a person to edit."""
    from spira_tasks import proposal

    text = proposal.propose(data, audio=audio)
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out} could not be written: {error.strerror}") from error
    print(f"wrote {out}: a proposal, for a person to edit", file=sys.stderr)


def _suites(name: str | None = None) -> list[Suite]:
    """Return the suites of the code as it is, or the suite of this name."""
    from spira_tasks import suites

    every = suites.current()
    found = [suite for suite in every if name in (None, suite.name)]
    if not found:
        known = ", ".join(suite.name for suite in every)
        raise ConfigError(f"there is no suite {name!r}; the suites are {known}")
    return found


def _described(entry: Entry, suite: Suite, language: Code) -> Description:
    try:
        return describe(entry, suite.name, language)
    except KeyError as error:
        raise ConfigError(
            f"expectations/words/expectations.json lacks {error.args[0]}: add it in both languages"
        ) from error


def _version(text: str, store: Store) -> tuple[list[Suite], bool]:
    """Return the suites that ``text`` names, and whether they are those of a run."""
    from spira_tasks import suites

    if text == "now":
        return suites.current(), False
    if Path(text).is_file():
        try:
            return from_json(Path(text).read_text(encoding="utf-8")), False
        except ValueError as error:
            raise ConfigError(
                f"{text} is not what `expectations list --json` writes: make it again"
            ) from error
    if text not in store.runs.ids():
        raise ConfigError(
            f"{text!r} is no file, not `now`, and no run of {store.url}; name one of these"
        )
    found = []
    for record in store.runs.read(text).steps.values():
        if record.stage != "validate" or "report" not in record.outputs:
            continue
        files = store.directory(record.outputs["report"])
        if "gx.json" in files.names:
            found += suites.of_gate(
                json.loads(files.read("validation.json")), json.loads(files.read("gx.json"))
            )
    if not found:
        raise ConfigError(
            f"run {text!r} has no stored suites: none of its gates finished, or it is from before "
            "suites were stored; name a newer run"
        )
    return sorted(found, key=lambda suite: suite.name), True
