"""``waive``: let a run go on although a check blocks it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from typer import Argument, Option

from spira_tasks.commands import AsJson, Commands, OpenStore, Why, find_run, print_records
from spira_tasks.contract.place import COMMAND
from spira_tasks.errors import ConfigError
from spira_tasks.governance import decisions, waivers
from spira_tasks.governance.waivers import DAYS, MAX_DAYS

EXAMPLES = """\
examples:
  python -m spira_tasks waive list
  python -m spira_tasks waive check training_set "expect_…(device_model)" --why "one telephone yet"
  python -m spira_tasks waive check training_set "expect_…(device_model)" --limit 0.6 --days 30 \\
    --why "one telephone yet, the second comes next month"
  python -m spira_tasks waive check promotion sensitivity_floor --why "only for the pilot in ward 2"
  python -m spira_tasks waive withdraw training_set "expect_…(device_model)" --why "two by now"

Name the check as the verdict does (python -m spira_tasks show RUN). A waiver excuses what the run
showed and nothing worse, and ends by itself. A waived check still warns, on every page and in the
model card. The gates of promotion are the suite "promotion"; a version that needs a waiver is
promoted only once a person approved it (in production another person than the one who signed).
The policy names what nobody may waive.
"""
Suite = Annotated[str, Argument(help="name of its suite")]
Name = Annotated[str, Argument(help="name of the check, as the verdict has it")]

app = Commands("waive", "let a run go on although a check blocks it", EXAMPLES)


@app.command("list")
def list_waivers(store: OpenStore, as_json: AsJson = False) -> None:
    """Print the waivers, also those that ended."""
    print_records(
        decisions.known(store, "waivers"),
        as_json=as_json,
        columns=["suite", "check", "excuses", "until", "by", "since", "why"],
        row=lambda one: [
            *(one.about["suite"], one.about["expectation"], _limit(one.about), _until(one.about)),
            *(one.by, one.at[:10], one.why),
        ],
        if_none=f"no check is waived in {store.url}",
    )


def _limit(about: Mapping[str, str]) -> str:
    if "limit" not in about:
        return "nothing"
    side = {"above": "at most ", "below": "at least "}.get(about["side"], "")
    return f"{side}{float(about['limit']):.4g}"


def _until(about: Mapping[str, str]) -> str:
    until = about.get("until", "")
    if not until:
        return "sign it again"
    return until if until >= decisions.today() else f"{until} (over)"


@app.command("check")
def waive_check(
    store: OpenStore,
    suite: Suite,
    name: Name,
    why: Why,
    run: Annotated[str | None, Option(help="the run that was blocked (default: the last)")] = None,
    limit: Annotated[
        float | None, Option(help="the worst value that is excused (default: the run's)")
    ] = None,
    days: Annotated[int, Option(help=f"today and this many days more, ≤ {MAX_DAYS}")] = DAYS,
) -> None:
    """Waive a check."""
    run_id = find_run(run, store) if run else ""
    signed, new = waivers.sign(store, suite, name, why, run=run_id, limit=limit, days=days)
    print(f"{'waived' if new else 'it was waived already'}: {name} of {suite}")
    print(f"it excuses {_limit(signed.about)}, until {signed.about['until']} (UTC)")
    print(f"it counts from the next run on:  {COMMAND} quarantine rerun")


@app.command("withdraw")
def withdraw(store: OpenStore, suite: Suite, name: Name, why: Why) -> None:
    """Take a waiver back."""
    signed = [
        one
        for one in decisions.known(store, "waivers")
        if (one.about["suite"], one.about["expectation"]) == (suite, name)
    ]
    if not signed:
        raise ConfigError(f"{name!r} of the suite {suite!r} is not waived; see: waive list")
    for one in signed:
        decisions.withdraw(store, "waivers", one.about, why)
    print(f"{name} of {suite} blocks again, from the next run on")
