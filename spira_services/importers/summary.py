"""What became of an import, in counts: of outcomes, fields and rules, never of values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from spira_services.importers.door import Outcome, Status
from spira_tasks.intake.audio_reader import OPTIONAL_DECODER

TITLES: dict[Status, str] = {
    "accepted": "accepted",
    "there": "there already",
    "refused": "refused, and kept",
    "conflict": "accepted before with another content, left as it was",
    "not_taken": "not taken",
}
WHOLE: tuple[Status, ...] = ("accepted", "there")


def is_whole(outcomes: Sequence[Outcome]) -> bool:
    """Whether everything of the source is in the collection."""
    return all(one.status in WHOLE for one in outcomes)


def as_text(outcomes: Sequence[Outcome]) -> str:
    """The summary for a terminal."""
    counts = Counter(one.status for one in outcomes)
    lines = [f"{len(outcomes)} sessions"]
    for status, title in TITLES.items():
        if not counts[status]:
            continue
        lines.append(f"  {counts[status]:5} {title}")
        reasons = Counter(r for one in outcomes if one.status == status for r in one.reasons)
        lines += [f"        {n:5} {field} {rule}" for (field, rule), n in reasons.most_common()]
    taken = [one for one in outcomes if one.status in WHOLE]
    lines.append(f"  {sum(one.has_label for one in taken):5} with a label of the source")
    if n_pending := sum(one.is_pending for one in taken):
        lines.append(f"  {n_pending:5} whose consent is pending: give it by --consent")
    left_out = Counter(name for one in taken for name in one.left_out)
    if left_out:
        named = ", ".join(f"{name} ({n})" for name, n in left_out.most_common())
        lines.append(f"without a place, and left out: {named}")
    if any(rule == "unsupported_container" for one in outcomes for _, rule in one.reasons):
        lines.append(f"more kinds of files are read after: {OPTIONAL_DECODER}; import again then")
    return "\n".join(lines)
