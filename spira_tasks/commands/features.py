"""``features``: what has been materialized, who reads it, whether it is right, what may go."""

from __future__ import annotations

from typing import Annotated, Any

from typer import Argument, Option

from spira_tasks.commands import AsJson, Commands, OpenStore, print_json, print_table
from spira_tasks.contract.exits import EXIT_REJECTED
from spira_tasks.contract.place import COMMAND
from spira_tasks.contract.verdict import MIN_CELL, few_or, is_small

EXAMPLES = """\
examples:
  python -m spira_tasks features list
  python -m spira_tasks features describe mfcc         # the newest of that name
  python -m spira_tasks features describe 3f9c         # by the first digits of its schema
  python -m spira_tasks features stats mfcc --json
  python -m spira_tasks features verify mfcc --sample 50
  python -m spira_tasks features gc                    # what would go
  python -m spira_tasks features gc --delete
"""
Name = Annotated[str, Argument(help="name, or first digits of the schema")]

app = Commands("features", "what features there are, and who reads them", EXAMPLES)


@app.command("list")
def show_list(store: OpenStore, as_json: AsJson = False) -> None:
    """List what has been materialized."""
    from spira_tasks.governance.catalogue import catalogue

    rows = [_described(one) for one in catalogue(store)]
    if as_json:
        print_json(rows)
    elif not rows:
        print("nothing has been materialized yet")
    else:
        columns = ["name", "schema", "owner", "n_recordings", "n_bytes", "n_runs", "models"]
        shown = [[_text(row[column]) for column in columns] for row in rows]
        print_table("", ["name", "schema", "owner", "recordings", "bytes", "runs", "models"], shown)


@app.command("describe")
def describe(store: OpenStore, name: Name, as_json: AsJson = False) -> None:
    """Print one: its parameters, where it is, and who reads it."""
    from spira_tasks.governance.catalogue import find

    row = _described(find(store, name))
    if as_json:
        print_json(row)
        return
    parameters = row.pop("parameters")
    print_table("", ["", ""], [[key, _text(value)] for key, value in row.items()])
    print_table("parameters", ["", ""], [[key, _text(value)] for key, value in parameters.items()])


@app.command("stats")
def stats(store: OpenStore, name: Name, as_json: AsJson = False) -> None:
    """Print how its numbers are spread over the recordings of the newest table."""
    from spira_tasks.governance import catalogue

    found = catalogue.find(store, name)
    n = int(found.tables[found.newest].metrics["n_recordings"])
    if n < MIN_CELL:
        print(f"there are {few_or(n)} recordings: so few numbers could tell of one person")
        return
    table = catalogue.statistics(store, found)
    if as_json:
        print_json(table.to_dict("index"))
        return
    rows = [[measure, *(f"{value:,.3f}" for value in row)] for measure, row in table.iterrows()]
    print_table(f"{n:,} recordings", ["", *table.columns], rows)


@app.command("verify")
def verify(
    store: OpenStore,
    name: Name,
    sample: Annotated[int, Option(min=1, help="how many recordings")] = 20,
    as_json: AsJson = False,
) -> int:
    """Compute some again, evenly spread, and compare; status 65 where one differs."""
    from expectations.limits import MAX_PARITY_DIFFERENCE
    from spira_tasks import corpus
    from spira_tasks.governance import catalogue
    from spira_tasks.speech.features import FeatureSpec

    found = catalogue.find(store, name)
    features, waveforms = catalogue.pairs(store, found)
    spec = FeatureSpec(**found.specification)
    differences = corpus.parity(features, waveforms, spec, store.blobs, sample).dropna()
    n_differing = int((differences > MAX_PARITY_DIFFERENCE).sum())
    largest = float(differences.max()) if len(differences) else 0.0
    n, n_again = len(features), len(differences)
    if as_json:
        shown = None if is_small(n) else n_again
        print_json({"n": shown, "n_differing": n_differing, "largest": largest})
    else:
        print(
            f"{few_or(n) if is_small(n) else n_again} of {few_or(n)} recordings computed again, "
            f"{n_differing} differ by more than {MAX_PARITY_DIFFERENCE:g} standard deviations "
            f"(largest {largest:.2g})"
        )
        if n_differing:
            print("the store holds other features than this code makes: run materialize again")
    return EXIT_REJECTED if n_differing else 0


@app.command("gc")
def collect(
    store: OpenStore,
    delete: Annotated[bool, Option("--delete", help="remove it; without, only say so")] = False,
    as_json: AsJson = False,
) -> None:
    """List, or remove, features that no run, model, hold or rule of retention needs."""
    from spira_tasks.governance import catalogue, retention

    policy = retention.read_policy(store)
    plan = catalogue.unneeded(store, policy)
    if delete:
        retention.apply(store, plan, policy)
    if as_json:
        print_json({"deleted": delete, "policy": policy.digest, "classes": plan.summary()})
        return
    rows = [
        [one["class"], f"{one['n']:,}", f"{one['n_bytes']:,}", one["last_used"]]
        for one in plan.summary()
    ]
    if not rows:
        print("every feature is needed, or younger than two days")
        return
    title = "removed" if delete else "would go"
    print_table(title, ["class", "how many", "bytes", "oldest use"], rows)
    if not delete:
        print(f"remove it:  {COMMAND} features gc --delete")


def _described(found: Any) -> dict[str, Any]:
    newest = found.tables[found.newest]
    return {
        "name": found.name,
        "schema": found.schema,
        "owner": found.owner,
        "newest": found.newest,
        "made_at": newest.finished_at,
        "n_recordings": None if is_small(len(found.matrices)) else len(found.matrices),
        "n_bytes": found.n_bytes,
        "n_runs": len(found.runs),
        "models": sorted(found.models, key=int),
        "declared_readers": list(found.declared),
        "read_by": sorted(found.readers),
        "undeclared_readers": sorted(found.undeclared),
        "parameters": found.specification,
    }


def _text(value: Any) -> str:
    if value is None:
        return few_or(1)
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
