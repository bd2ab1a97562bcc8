"""``waive``: let a run go on although a check of the data blocks it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from spira_tasks.commands import open_store, print_json, print_table

if TYPE_CHECKING:
    from spira_tasks.artifacts import Store

EXAMPLES = """\
examples:
  python -m spira_tasks waive list
  python -m spira_tasks waive check training_set "expect_…(device_model)" --why "one telephone yet"
  python -m spira_tasks waive withdraw training_set "expect_…(device_model)" --why "two by now"

Name the check as the verdict does (python -m spira_tasks show RUN). A waived one still warns,
on every page and in the model card. What a model has to show to be promoted cannot be waived.
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    waive = commands.add_parser(
        "waive",
        help="let a run go on although a check of the data blocks it",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = waive.add_subparsers(required=True, metavar="ACTION")
    show = actions.add_parser("list", parents=[common], help="print the waivers in force")
    show.add_argument("--json", action="store_true")
    show.set_defaults(command=list_waivers)
    for name, help_, command in (
        ("check", "waive a check", waive_check),
        ("withdraw", "take a waiver back", withdraw),
    ):
        action = actions.add_parser(name, parents=[common], help=help_)
        action.add_argument("suite", help="name of its suite")
        action.add_argument("name", help="name of the check, as the verdict has it")
        action.add_argument("--why", required=True, help="a written reason, without names")
        action.set_defaults(command=command)


def list_waivers(args: argparse.Namespace) -> int:
    from spira_tasks.governance import decisions

    store = open_store(args)
    found = decisions.known(store, "waivers")
    if args.json:
        print_json([asdict(one) for one in found])
        return 0
    if not found:
        print(f"no check is waived in {store.url}")
        return 0
    rows = [
        [one.about["suite"], one.about["expectation"], one.by, one.at[:10], one.why]
        for one in found
    ]
    print_table("", ["suite", "check", "by", "since", "why"], rows)
    return 0


def waive_check(args: argparse.Namespace) -> int:
    from spira_tasks.errors import ConfigError
    from spira_tasks.governance import decisions

    store = open_store(args)
    known = _checks(store)
    if (args.suite, args.name) not in known:
        blocked = sorted(f"{suite} {name!r}" for (suite, name), state in known.items() if state)
        raise ConfigError(
            f"no run was held against {args.name!r} of the suite {args.suite!r}; "
            f"what blocked the newest runs: {', '.join(blocked) or 'nothing'}"
        )
    if is_firm(args.name):
        raise ConfigError(
            f"{args.name!r} protects people or shows a fault of the platform: nobody may waive it; "
            "mend what it found"
        )
    about = {"suite": args.suite, "expectation": args.name}
    _, new = decisions.decide(store, "waivers", about, args.why)
    print(f"{'waived' if new else 'it was waived already'}: {args.name} of {args.suite}")
    print("it counts from the next run on:  python -m spira_tasks quarantine rerun")
    return 0


def withdraw(args: argparse.Namespace) -> int:
    from spira_tasks.errors import ConfigError
    from spira_tasks.governance import decisions

    about = {"suite": args.suite, "expectation": args.name}
    if not decisions.withdraw(open_store(args), "waivers", about, args.why):
        raise ConfigError(
            f"{args.name!r} of the suite {args.suite!r} is not waived; see: waive list"
        )
    print(f"{args.name} of {args.suite} blocks again, from the next run on")
    return 0


def is_firm(name: str) -> bool:
    """Whether a gate would not heed a waiver of this check."""
    from expectations import catalogue
    from spira_tasks.stages.validate import CONSERVED

    known = [entry.firm for (_, key), entry in catalogue.committed().items() if key == name]
    kind, _, rest = name.removesuffix(")").partition("(")
    firm = any(known) if known else catalogue.is_firm(kind, (rest.partition(", ")[0],))
    return firm or name == CONSERVED


def _checks(store: Store) -> dict[tuple[str, str], bool]:
    """Every check that a run was held against, and whether it blocked one of the newest ten."""
    found: dict[tuple[str, str], bool] = {}
    for run_id in store.run_ids()[-10:]:
        for step in store.record_names(run_id):
            record = store.read_record(run_id, step) or {}
            for verdict in record.get("verdicts", ()):
                if verdict.get("suite"):
                    key = (verdict["suite"], verdict["name"])
                    found[key] = found.get(key, False) or verdict["verdict"] == "block"
    return found
