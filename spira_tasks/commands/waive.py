"""``waive``: let a run go on although a check of the data blocks it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from spira_tasks.commands import find_run, open_store, print_json, print_table

if TYPE_CHECKING:
    from spira_tasks.artifacts import Store
    from spira_tasks.contract.verdict import Verdict

DAYS, MOST_DAYS = 90, 366

EXAMPLES = """\
examples:
  python -m spira_tasks waive list
  python -m spira_tasks waive check training_set "expect_…(device_model)" --why "one telephone yet"
  python -m spira_tasks waive check training_set "expect_…(device_model)" --limit 0.6 --days 30 \\
    --why "one telephone yet, the second comes next month"
  python -m spira_tasks waive withdraw training_set "expect_…(device_model)" --why "two by now"

Name the check as the verdict does (python -m spira_tasks show RUN). A waiver excuses what the run
showed and nothing worse, and ends by itself. A waived check still warns, on every page and in the
model card. What a model has to show to be promoted cannot be waived.
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    waive = commands.add_parser(
        "waive",
        help="let a run go on although a check of the data blocks it",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = waive.add_subparsers(required=True, metavar="ACTION")
    show = actions.add_parser(
        "list", parents=[common], help="print the waivers, also those that ended"
    )
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
        if name == "check":
            _add_terms(action)


def _add_terms(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--run", help="the run whose verdict is set aside (default: the last one that it held back)"
    )
    action.add_argument(
        "--limit",
        type=float,
        metavar="NUMBER",
        help="the worst value that is excused (default: the one of that run)",
    )
    action.add_argument(
        "--days",
        type=int,
        default=DAYS,
        metavar="N",
        help=f"it counts today and N days more, {MOST_DAYS} at most (default: {DAYS})",
    )


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
        [
            *(one.about["suite"], one.about["expectation"], _limit(one.about), _until(one.about)),
            *(one.by, one.at[:10], one.why),
        ]
        for one in found
    ]
    print_table("", ["suite", "check", "excuses", "until", "by", "since", "why"], rows)
    return 0


def _limit(about: Mapping[str, str]) -> str:
    if "limit" not in about:
        return "nothing any more"
    most = {"above": "at most ", "below": "at least "}.get(about["side"], "")
    return f"{most}{float(about['limit']):.4g}"


def _until(about: Mapping[str, str]) -> str:
    from spira_tasks.governance import decisions

    until = about.get("until", "")
    if not until:
        return "sign it again"
    return until if until >= decisions.today() else f"{until} (over)"


def waive_check(args: argparse.Namespace) -> int:
    from spira_tasks.errors import ConfigError
    from spira_tasks.governance import decisions, heeded

    store = open_store(args)
    runs = store.run_ids()[-10:] if args.run is None else [find_run(args, store)]
    held_back = _held_back(store, runs)
    verdict = held_back.get((args.suite, args.name))
    if verdict is None:
        others = ", ".join(sorted(f"{suite} {name!r}" for suite, name in held_back))
        which = "none of the newest runs" if args.run is None else f"not the run {args.run!r}"
        raise ConfigError(
            f"{args.name!r} of the suite {args.suite!r} held back {which}; "
            f"what did: {others or 'nothing'}"
        )
    if verdict.firm:
        raise ConfigError(
            f"{args.name!r} protects people or shows a fault of the platform: nobody may waive it; "
            "mend what it found"
        )
    if not 0 <= args.days <= MOST_DAYS:
        raise ConfigError(f"--days is 0 to {MOST_DAYS}: whoever wants longer signs again")
    until = date.fromisoformat(decisions.today()) + timedelta(days=args.days)
    about = heeded.waiver_of(verdict, until.isoformat(), args.limit)
    if about is None:
        raise ConfigError(
            f"{args.name!r} measured {verdict.observed and verdict.observed.value} against "
            f"{verdict.threshold}: a waiver would excuse "
            + ("everything" if args.limit is None else "less than that with this --limit")
        )
    _, new = decisions.decide(store, "waivers", about, args.why)
    print(f"{'waived' if new else 'it was waived already'}: {args.name} of {args.suite}")
    print(f"it excuses {_limit(about)}, until {about['until']} (UTC)")
    print("it counts from the next run on:  python -m spira_tasks quarantine rerun")
    return 0


def withdraw(args: argparse.Namespace) -> int:
    from spira_tasks.errors import ConfigError
    from spira_tasks.governance import decisions

    store = open_store(args)
    signed = [
        one
        for one in decisions.known(store, "waivers")
        if (one.about["suite"], one.about["expectation"]) == (args.suite, args.name)
    ]
    if not signed:
        raise ConfigError(
            f"{args.name!r} of the suite {args.suite!r} is not waived; see: waive list"
        )
    for one in signed:
        decisions.withdraw(store, "waivers", one.about, args.why)
    print(f"{args.name} of {args.suite} blocks again, from the next run on")
    return 0


def _held_back(store: Store, runs: Iterable[str]) -> dict[tuple[str, str], Verdict]:
    """The last verdict of every check that blocked a run, or would have but for a waiver."""
    return {
        (verdict.suite, verdict.id): verdict
        for run_id in runs
        for record in store.runs.read(run_id).steps.values()
        for verdict in record.verdicts
        if verdict.suite and (verdict.stops or verdict.waiver)
    }
