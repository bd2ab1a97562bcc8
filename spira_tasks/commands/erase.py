"""``erase``: remove a person from the store for good, and show what was erased."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from spira_tasks.commands import open_store, print_json, print_table

if TYPE_CHECKING:
    from spira_tasks.artifacts import Store
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


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    erase_ = commands.add_parser(
        "erase",
        parents=[common],
        help="erase a person from the store (LGPD art. 18)",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = erase_.add_mutually_exclusive_group(required=True)
    what.add_argument("subject", nargs="?", metavar="SUBJECT", help="pseudonym or tag")
    what.add_argument("--number", action="store_true", help="ask for hospital and number")
    what.add_argument("--list", action="store_true", help="print what was erased")
    what.add_argument("--certificate", metavar="TAG", help="print the certificate of an erasure")
    erase_.add_argument("--reason", help="why, in words that name nobody; kept for ever")
    erase_.add_argument("--yes", action="store_true", help="do not ask again")
    erase_.add_argument("--dry-run", action="store_true", help="only print what would go")
    erase_.add_argument(
        "--absent",
        action="store_true",
        help="go on where the store holds nothing of the subject: who comes later is refused",
    )
    erase_.add_argument(
        "--data",
        metavar="DIR",
        help="the folder or s3:// prefix that the recordings came from: with it, rows of theirs "
        "that were refused are found in quarantine too",
    )
    erase_.add_argument("--format", choices=["md", "html", "json"], default="md")
    erase_.add_argument("--json", action="store_true", help="of --list and --dry-run")
    erase_.set_defaults(command=erase)


def erase(args: argparse.Namespace) -> int:
    from spira_tasks.errors import ConfigError
    from spira_tasks.governance import certificates, decisions, erasure
    from spira_tasks.runner import tracking_uri

    store = open_store(args)
    if args.list:
        return list_erasures(store, args)
    if args.certificate:
        return show_certificate(store, args)
    if not args.reason and not args.dry_run:
        raise ConfigError('say why: --reason "…", in words that name nobody')
    subject = ask_for_subject() if args.number else args.subject
    tag = erasure.tag_of(subject)
    known = erasure.known_from(subject, records_in(args.data, tag) if args.data else ())
    if args.dry_run:
        return show_plan(store, known, tag, args)
    decisions.checked_reason(args.reason)
    if not args.yes and not is_confirmed(tag):
        print("nothing was erased", file=sys.stderr)
        return 1
    certificate, changed = erasure.erase(
        store, tracking_uri(store), known, tag, args.reason, absent=args.absent
    )
    if not changed:
        at = certificate["finished"]["at"]
        print(f"already erased, {at}: nothing was left to do", file=sys.stderr)
    print(certificates.as_markdown(certificate), end="")
    return 0


def ask_for_subject() -> str:
    """The pseudonym of who is named on the terminal or by two lines of stdin."""
    from getpass import getpass

    from spira_tasks.errors import ConfigError
    from spira_tasks.intake import pseudonyms

    if sys.stdin.isatty():
        hospital, number = input("hospital_id: "), getpass("hospital number (not shown): ")
    else:
        hospital, number = sys.stdin.readline(), sys.stdin.readline()
    if not hospital.strip() or not number.strip():
        raise ConfigError("hospital_id and the hospital number are needed, a line each")
    pseudonyms.warn_of_demo_key()
    subject = pseudonyms.subject_id(pseudonyms.key(), hospital.strip(), number.strip())
    return pseudonyms.rekey_map().get(subject, subject)


def records_in(data: str, tag: str) -> set[str]:
    """The subject's record ids in the hospital's own table, those that ingest refuses included."""
    from spira_tasks.artifacts import open_source
    from spira_tasks.governance.heeded import tombstone_tag
    from spira_tasks.intake import layouts, pseudonyms

    place = data if data.startswith(("s3://", "folder:")) else f"folder:{data}"
    secret = pseudonyms.key()
    rows = layouts.read(open_source(place), secret).rows
    people = pseudonyms.subject_ids(rows, secret).map(tombstone_tag, na_action="ignore")
    return set(rows.loc[people == tag, "record_id"].dropna())


def is_confirmed(tag: str) -> bool:
    from spira_tasks.errors import ConfigError

    if not sys.stdin.isatty():
        raise ConfigError("this deletes for good and nobody is here to ask: say --yes")
    return input(f"This deletes for good.  Type {tag[:6]} to go on: ").strip() == tag[:6]


def show_plan(store: Store, known: Holding, tag: str, args: argparse.Namespace) -> int:
    from spira_tasks.governance import erasure, inventory

    found = inventory.survey(store)
    held = inventory.find(store, found, erasure.identified(store, found, known, tag))
    size = sum(store.blobs.size(digest) or 0 for digest in held.blobs)
    plan = {
        "tag": tag,
        "n_recordings": len(held.records),
        "n_waveforms_and_features": len(held.blobs),
        "n_bytes_of_them": size,
        "n_tables": len(held.tables),
        "n_rows": sum(held.tables.values()),
        "n_reports_and_records": len(held.texts) + len(held.documents),
        "n_data_sets": len(held.datasets),
    }
    if args.json:
        print_json(plan)
    else:
        print_table("would go", ["what", "how much"], [[k, str(v)] for k, v in plan.items()])
    return 0


def list_erasures(store: Store, args: argparse.Namespace) -> int:
    from spira_tasks.governance import certificates, erasure
    from spira_tasks.runner import tracking_uri

    needs = erasure.versions_to_replace(tracking_uri(store))
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
        for one in certificates.known(store)
    ]
    rows += [
        {"tag": tag, "state": "not finished: erase again"} for tag in erasure.unfinished(store)
    ]
    if args.json:
        print_json({"erasures": rows, "champion_needs_retraining": bool(needs)})
        return 0
    if not rows:
        print(f"nobody was erased from {store.url}")
        return 0
    print_table(
        "",
        ["tag", "finished (UTC)", "by", "data sets", "model versions", "state"],
        [
            [
                row["tag"],
                row.get("finished_at", ""),
                row.get("by", ""),
                str(len(row.get("dataset_versions", ()))),
                ", ".join(row.get("model_versions", ())),
                row["state"],
            ]
            for row in rows
        ],
    )
    for version in needs:
        print(f"champion version {version} learned from an erased person: train again")
    return 0


def show_certificate(store: Store, args: argparse.Namespace) -> int:
    from spira_tasks.errors import ConfigError
    from spira_tasks.governance import certificates, erasure

    certificate = certificates.read(store, erasure.tag_of(args.certificate))
    if certificate is None:
        raise ConfigError(
            f"{store.url} has no certificate with this tag; see: python -m spira_tasks erase --list"
        )
    if args.format == "json":
        print_json(certificate)
    elif args.format == "html":
        print(certificates.as_html(certificate), end="")
    else:
        print(certificates.as_markdown(certificate), end="")
    return 0
