"""``reproduce``: build a version of the model again, and compare."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import Annotated

from typer import Argument

from spira_tasks.commands import AsJson, Commands, OpenStore, print_json, print_table
from spira_tasks.contract.exits import EXIT_REJECTED

EXAMPLES = """\
examples:
  python -m spira_tasks reproduce 3

Features, network and classifier are computed anew on the processor, from the recordings that the
record names, and compared with what is registered. The exit status is 65 where they differ.
"""

app = Commands()


@app.command("reproduce", examples=EXAMPLES)
def reproduce(
    store: OpenStore,
    version: Annotated[str, Argument(help="its number, as `model list` shows it")],
    as_json: AsJson = False,
) -> int:
    """Build a version of the model again from its record, and compare digests."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch is loaded
    from spira_tasks.reproduction import reproduce as rebuilt_of

    found = []
    for one in rebuilt_of(store, version):
        found.append(one)
        print(f"{one.step}: {'the same' if one.is_same else 'other'}", file=sys.stderr)
    is_same = all(one.is_same for one in found)
    if as_json:
        print_json({"is_same": is_same, "steps": [asdict(one) for one in found]})
        return 0 if is_same else EXIT_REJECTED
    rows = [
        [one.step, name, digest[7:19], one.rebuilt.get(name, "")[7:19]]
        for one in found
        for name, digest in one.recorded.items()
    ]
    print_table(f"run {found[0].run}", ["step", "output", "recorded", "rebuilt"], rows)
    for one in (one for one in found if not one.is_same):
        print(f"{one.step} comes to another result: {', '.join(one.differing)} differ")
        if one.changed:
            print(f"  what runs is not what ran then: {', '.join(one.changed)}")
        if one.used_gpu:
            print("  it was computed on a GPU, which gives other last digits")
    if is_same:
        print(f"version {version} was built again from its record, bit for bit")
    return 0 if is_same else EXIT_REJECTED
