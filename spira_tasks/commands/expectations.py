"""``expectations``: read, compare and propose what must hold of the data."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expectations import document
from spira_tasks.commands import open_store, print_json, print_table
from spira_tasks.errors import ConfigError

if TYPE_CHECKING:
    from expectations.catalogue import Entry, Suite
    from expectations.plain import Language, Plain

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


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    expectations = commands.add_parser(
        "expectations",
        help="list, show, compare or propose what must hold of the data",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = expectations.add_subparsers(required=True, metavar="ACTION")
    told = argparse.ArgumentParser(add_help=False)
    told.add_argument("--language", choices=("en", "pt"), default="en", help="default: en")
    table = argparse.ArgumentParser(add_help=False, parents=[told])
    table.add_argument("--json", action="store_true")

    every = actions.add_parser("list", parents=[common, table], help="one line an expectation")
    every.add_argument("suite", nargs="?", metavar="SUITE")
    every.set_defaults(command=list_all)
    one = actions.add_parser("show", parents=[common, table], help="whole sentences, and why")
    one.add_argument("name", metavar="NAME|SUITE", help="of an expectation, a gate or a suite")
    one.set_defaults(command=show)
    two = actions.add_parser("diff", parents=[common, table], help="what changed between two")
    for name in ("a", "b"):
        two.add_argument(
            name, metavar=name.upper(), help="a file of `list --json`, the id of a run, or `now`"
        )
    two.set_defaults(command=diff)
    draft = actions.add_parser(
        "propose", parents=[common], help="suggest ranges from a cohort, for a person to edit"
    )
    draft.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help="folder or s3://bucket/prefix of recordings, as `pipeline` takes it",
    )
    draft.add_argument("--audio", action="store_true", help="listen to the files too")
    draft.add_argument("--out", type=Path, metavar="FILE", help="default: print it")
    draft.set_defaults(command=propose)
    page = actions.add_parser("document", parents=[common, told], help="print them as Markdown")
    page.set_defaults(command=print_page)


def list_all(args: argparse.Namespace) -> int:
    found = _suites(args.suite)
    if args.json:
        print_json([asdict(suite) for suite in found])
        return 0
    from expectations import plain

    words = plain.load(args.language)
    rows = [
        [
            suite.name,
            _told(entry, suite, args.language).title,
            words["severities"][entry.severity],
            words["actions"][entry.action],
            plain.limit(entry, args.language),
            entry.name,
        ]
        for suite in found
        for entry in suite.expectations
    ]
    print_table("", words["list_columns"], rows)
    for suite in found:
        n = len(suite.expectations)
        print(f"{suite.name}: version {suite.version or '-'}, {n} expectations, {suite.digest}")
    return 0


def show(args: argparse.Namespace) -> int:
    """A suite, all expectations of a name, or a gate."""
    from expectations import plain

    words = plain.load(args.language)
    if args.name in words["gates"]:
        gate = plain.describe(args.name, args.language)
        if args.json:
            print_json([{"name": args.name, "told": asdict(gate)}])
        else:
            _print_facts(gate, {"name": args.name}, args.language)
        return 0
    every = _suites()
    told = [
        (suite, entry, _told(entry, suite, args.language))
        for suite in every
        for entry in suite.expectations
        if args.name in (suite.name, entry.name)
    ]
    if not told:
        raise ConfigError(
            f"there is no expectation, gate or suite {args.name!r}. The suites are "
            f"{', '.join(suite.name for suite in every)}; `expectations list` has the names of "
            "the expectations"
        )
    if args.json:
        print_json([{"suite": s.name} | asdict(e) | {"told": asdict(p)} for s, e, p in told])
    elif args.name in {suite.name for suite in every}:
        rows = [document.row(entry, suite.name, args.language) for suite, entry, _ in told]
        print_table(args.name, words["document"]["columns"], rows)
    else:
        for suite, entry, one in told:
            facts = {
                "severity": words["severities"][entry.severity],
                "action": words["actions"][entry.action],
                "suite": f"{suite.name} {suite.version}".strip(),
                "name": entry.name,
                "parameters": json.dumps(entry.parameters, ensure_ascii=False),
            }
            _print_facts(one, facts, args.language)
    return 0


def _print_facts(told: Plain, facts: dict[str, str], language: Language) -> None:
    from expectations import plain

    names = plain.load(language)["facts"]
    facts = {part: getattr(told, part) for part in ("sentence", "rationale", "owner")} | facts
    print_table(told.title, ["", ""], [[names[key], text] for key, text in facts.items()])


def diff(args: argparse.Namespace) -> int:
    """What was added, removed and changed from A to B."""
    from expectations import catalogue

    before, after = _version(args.a, args), _version(args.b, args)
    of_runs = any(side[1] for side in (before, after))
    changes = catalogue.diff(before[0], after[0], of_one_table=not of_runs)
    if args.json:
        print_json([asdict(change) for change in changes])
        return 0
    rows = [[c.suite, c.name, c.what, c.before, c.after] for c in changes]
    if rows:
        print_table("", ["suite", "expectation", "what", args.a, args.b], rows)
    else:
        print("no difference")
    if of_runs:
        print(
            "A run's suites are made for its own table: thresholds that follow its size are not "
            "compared, and expectations on columns that it lacks are absent."
        )
    return 0


def print_page(args: argparse.Namespace) -> int:
    sys.stdout.write(document.page(_suites(), args.language))
    return 0


def propose(args: argparse.Namespace) -> int:
    from spira_tasks import proposal

    text = proposal.propose(args.data, audio=args.audio)
    if args.out is None:
        sys.stdout.write(text)
        return 0
    try:
        args.out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{args.out} could not be written: {error.strerror}") from error
    print(f"wrote {args.out}: a proposal, for a person to edit", file=sys.stderr)
    return 0


def _suites(name: str | None = None) -> list[Suite]:
    """The suites of the code as it is, or the one of this name."""
    from spira_tasks import suites

    every = suites.current()
    if name is None:
        return every
    found = [suite for suite in every if suite.name == name]
    if not found:
        known = ", ".join(suite.name for suite in every)
        raise ConfigError(f"there is no suite {name!r}; the suites are {known}")
    return found


def _told(entry: Entry, suite: Suite, language: Language) -> Plain:
    from expectations import plain

    try:
        return plain.tell(entry, suite.name, language)
    except KeyError as error:
        raise ConfigError(
            f"expectations/plain_{language}.json lacks {error.args[0]}: add it, and to the other "
            "language too"
        ) from error


def _version(text: str, args: argparse.Namespace) -> tuple[list[Suite], bool]:
    """The suites that ``text`` names, and whether they are those of a run."""
    from expectations import catalogue
    from spira_tasks import suites

    if text == "now":
        return suites.current(), False
    if Path(text).is_file():
        try:
            return catalogue.from_json(Path(text).read_text(encoding="utf-8")), False
        except ValueError as error:
            raise ConfigError(
                f"{text} is not what `expectations list --json` writes: make it again"
            ) from error
    store = open_store(args)
    if text not in store.run_ids():
        raise ConfigError(
            f"{text!r} is no file, not `now`, and no run of {store.url}; name one of these"
        )
    found = []
    for step in store.record_names(text):
        record = store.read_record(text, step) or {}
        report = (record.get("outputs") or {}).get("report")
        if record.get("stage") != "validate" or not report:
            continue
        files = store.directory(report)
        if "gx.json" in files.names:
            found += suites.of_gate(
                json.loads(files.read("validation.json")), json.loads(files.read("gx.json"))
            )
    if not found:
        raise ConfigError(
            f"run {text!r} keeps no suites: no gate of it came to an end, or it is "
            "older than the keeping of them; name a newer run"
        )
    return sorted(found, key=lambda suite: suite.name), True
