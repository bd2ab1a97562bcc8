"""``policy``: show the files of limits and who signed them; sign one."""

from __future__ import annotations

from typing import Annotated

from typer import Argument

from spira_tasks.commands import Commands, OpenStore, Why, print_table
from spira_tasks.errors import ConfigError
from spira_tasks.governance import signatures
from spira_tasks.provenance import ROOT

EXAMPLES = """\
examples:
  python -m spira_tasks policy show
  python -m spira_tasks policy sign policy --why "the floors of our triage protocol, 2026"
  python -m spira_tasks policy withdraw policy --why "the floor of sensitivity is under review"

policy: what a model must show to be promoted (expectations/policy.yaml)
plan: what a retraining may change (expectations/pccp.yaml)
suites: what must hold of the data (expectations/words/catalogue.json, docs/expectations.md)

Read the file first: a signature says that a clinician answers for its limits. It is on the digest
of the file, so a file that is changed has to be signed again. Pages say who signed, or that nobody
did; nothing is promoted by it.
"""
Part = Annotated[signatures.Part, Argument(help="which file")]

app = Commands("policy", "show the files of limits and who signed them; sign one", EXAMPLES)


@app.command("show")
def show(store: OpenStore) -> None:
    """Print each file, its digest, and who signed it as it stands here."""
    digests = {part: signatures.digest(part) for part in signatures.FILES}
    signed = signatures.signatures(store, digests)
    rows = []
    for part, file in signatures.FILES.items():
        one = signed.get(part)
        by = f"{one.by}, {one.at[:10]}: {one.why}" if one else "not yet signed"
        rows.append([part, str(file.relative_to(ROOT)), digests[part][:16], by])
    print_table("", ["", "file", "digest", "signed by"], rows)


@app.command("sign")
def sign(store: OpenStore, part: Part, why: Why) -> None:
    """State that you answer for the limits in a file."""
    decision, new = signatures.sign(store, part, why)
    print(f"{'signed' if new else 'it was signed already'}: {part} by {decision.by}")
    print(f"digest: {decision.about['digest']}")


@app.command("withdraw")
def withdraw(store: OpenStore, part: Part, why: Why) -> None:
    """Take the signature on a file back."""
    if not signatures.withdraw(store, part, why):
        raise ConfigError(f"{part} is not signed as it stands here; see: policy show")
    print(f"not signed any more: {part}")
