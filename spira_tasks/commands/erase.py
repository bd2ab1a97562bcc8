"""``erase``: remove a person from the store for good, and show what was erased."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, BadParameter, Option

from spira_tasks.artifacts import Store, open_source
from spira_tasks.commands import AsJson, Commands, OpenStore, print_json, print_table
from spira_tasks.contract.place import COMMAND
from spira_tasks.errors import ConfigError
from spira_tasks.governance import decisions
from spira_tasks.intake import pseudonyms
from spira_tasks.intake.pseudonyms import tombstone_tag

if TYPE_CHECKING:
    import pandas as pd

    from spira_tasks.governance.inventory import Holding

EXAMPLES = """\
examples:
  python -m spira_tasks erase --number --reason "asked for it in writing, form 12"
  python -m spira_tasks erase 3f0c… --reason "asked for it in writing, form 12" --dry-run
  python -m spira_tasks erase --list
  python -m spira_tasks erase --certificate 3f0c… --format html > certificate.html

SUBJECT is the pseudonym (64 hex digits) or its tag (32).  --number asks for hospital and number
instead, or reads them as two lines from a pipe, so that they are in no history of commands.
"""

app = Commands()


@app.command("erase", examples=EXAMPLES)
def erase(
    store: OpenStore,
    subject: Annotated[str, Argument(help="pseudonym or tag")] = "",
    number: Annotated[bool, Option("--number", help="ask for hospital and number")] = False,
    listed: Annotated[bool, Option("--list", help="print what was erased")] = False,
    certificate: Annotated[str, Option(help="print the certificate of an erasure")] = "",
    reason: Annotated[str, Option(help="why, without names; kept for ever")] = "",
    yes: Annotated[bool, Option("--yes", help="do not ask again")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="only print what would go")] = False,
    absent: Annotated[
        bool, Option("--absent", help="also where nothing is held: refuse later recordings")
    ] = False,
    data: Annotated[
        str, Option(help="source of the recordings: finds the subject's refused rows too")
    ] = "",
    form: Annotated[Literal["md", "html", "json"], Option("--format")] = "md",
    as_json: AsJson = False,
) -> int:
    """Erase a person from the store (LGPD article 18)."""
    from spira_tasks.governance import erasure

    if sum(map(bool, (subject, number, listed, certificate))) != 1:
        raise BadParameter("name one of SUBJECT, --number, --list and --certificate")
    if listed:
        return list_erasures(store, as_json=as_json)
    if certificate:
        return show_certificate(store, certificate, form)
    if not reason and not dry_run:
        raise ConfigError('say why, without names: --reason "…"')
    person = ask_for_subject() if number else subject
    tag = erasure.tag_of(person)
    known = erasure.known_from(person, records_in(data, tag) if data else ())
    if dry_run:
        return show_plan(store, known, tag, as_json=as_json)
    decisions.checked_reason(reason)
    if not yes and not is_confirmed(tag):
        print("nothing was erased", file=sys.stderr)
        return 1
    issued, changed = erasure.erase(store, known, tag, reason, absent=absent)
    if not changed:
        at = issued["finished"]["at"]
        print(f"already erased, {at}: nothing was left to do", file=sys.stderr)
    print(erasure.as_markdown(issued), end="")
    return 0


def ask_for_subject() -> str:
    """Return the pseudonym of the person named on the terminal or by two lines of stdin."""
    from getpass import getpass

    if sys.stdin.isatty():
        hospital, number = input("hospital_id: "), getpass("hospital number (not shown): ")
    else:
        hospital, number = sys.stdin.readline(), sys.stdin.readline()
    named = hospital.strip(), number.strip()
    if not named[0] or not pseudonyms.canonical_number(named[1]):
        raise ConfigError(
            "hospital_id and the hospital number are needed, a line each; a placeholder such as "
            "S/N is no number"
        )
    pseudonyms.warn_of_demo_key()
    return pseudonyms.known_as(pseudonyms.key(), *named)


def records_in(data: str, tag: str) -> set[str]:
    """Return the subject's record ids in the hospital's own table, also those of refused rows."""
    secret = pseudonyms.key()
    rows = read_recordings(data, secret)
    people = pseudonyms.subject_ids(rows, secret).map(tombstone_tag, na_action="ignore")
    return set(rows.loc[people == tag, "record_id"].dropna())


def read_recordings(place: str, key: bytes) -> pd.DataFrame:
    """Read the rows of a folder of recordings, as ingest reads them with this key."""
    from spira_tasks.intake import layouts

    reference = place if place.startswith(("s3://", "folder:")) else f"folder:{place}"
    return layouts.read(open_source(reference), key).rows


def is_confirmed(tag: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("this deletes for good, and there is no terminal to ask at: say --yes")
    return input(f"This deletes for good.  Type {tag[:6]} to go on: ").strip() == tag[:6]


def show_plan(store: Store, known: Holding, tag: str, *, as_json: bool) -> int:
    from spira_tasks.governance import erasure
    from spira_tasks.governance.inventory import Survey

    survey = Survey(store)
    held = survey.find(erasure.identified(survey, known, tag))
    plan = {
        "tag": tag,
        **held.counts,
        "n_bytes_of_them": sum(store.blobs.size(digest) or 0 for digest in held.blobs),
        "n_data_sets": len(held.datasets),
    }
    if as_json:
        print_json(plan)
    else:
        print_table("would go", ["what", "how much"], [[k, str(v)] for k, v in plan.items()])
    return 0


def list_erasures(store: Store, *, as_json: bool) -> int:
    from spira_tasks.governance import erasure

    needs = erasure.versions_to_replace(store)
    rows = [
        {
            "tag": one["tag"],
            "finished_at": one["finished"]["at"],
            "by": one["requested"]["by"],
            "why": one["requested"]["why"],
            "dataset_versions": [dataset["digest"] for dataset in one["dataset_versions"]],
            "model_versions": [model["version"] for model in one["model_versions"]],
            "state": "finished",
        }
        for one in erasure.certificates(store)
    ]
    rows += [
        {"tag": tag, "state": "not finished: erase again"} for tag in erasure.unfinished(store)
    ]
    if as_json:
        print_json({"erasures": rows, "champion_needs_retraining": bool(needs)})
        return 0
    if not rows:
        print(f"no person was erased from {store.url}")
        return 0
    cells = [
        [
            *(row["tag"], row.get("finished_at", ""), row.get("by", "")),
            str(len(row.get("dataset_versions", ()))),
            ", ".join(row.get("model_versions", ())),
            row["state"],
        ]
        for row in rows
    ]
    columns = ["tag", "finished (UTC)", "by", "data sets", "model versions", "state"]
    print_table("", columns, cells)
    for version in needs:
        print(f"champion version {version} learned from an erased person: train again")
    return 0


def show_certificate(store: Store, tag: str, form: str) -> int:
    from spira_tasks.governance import erasure

    certificate = erasure.certificate_of(store, erasure.tag_of(tag))
    if certificate is None:
        raise ConfigError(
            f"{store.url} has no certificate with this tag; see: {COMMAND} erase --list"
        )
    if form == "json":
        print_json(certificate)
    elif form == "html":
        print(erasure.as_html(certificate), end="")
    else:
        print(erasure.as_markdown(certificate), end="")
    return 0
