"""What a snapshot's sheet says of its labels."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from expectations.words.verdicts import sentence
from spira_services.labels.quality import agreement, second_opinion
from spira_services.labels.reliability import Agreement
from spira_services.labels.store import LabelEvent, Source

DAY = datetime(2024, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("n_items", "alpha", "status"),
    [
        (40, 0.61, "pass"),
        (40, 0.59, "warn"),
        (19, 0.9, "insufficient"),
        (40, float("nan"), "insufficient"),
    ],
)
def test_agreement_is_judged_where_enough_sessions_have_two_labels(
    n_items: int, alpha: float, status: str
) -> None:
    verdict = agreement(Agreement(n_items, 2 * n_items, 0.1, alpha))
    assert verdict.status == status
    assert (str(alpha) in sentence(verdict, "en")) == (status != "insufficient")


def says(session: str, source: Source = "clinician", annotator: str = "ana") -> LabelEvent:
    given = {"valid_from": DAY, "recorded_at": DAY + timedelta(days=3)}
    about = {"item_kind": "session", "item_id": session, "label": 1, "unique_key": session}
    return LabelEvent(**about, **given, source=source, annotator=annotator)  # type: ignore[arg-type]


def test_labels_that_rest_on_nobody_or_one_person_are_counted() -> None:
    both = [says(str(n), annotator=who) for n in range(6) for who in ("ana", "bia")]
    judged = [says("6", "adjudication", "judge")]
    alone = [says("7"), says("7"), says("8")]
    found = second_opinion([*both, *judged, *alone], 10)
    assert found.observed is not None
    assert (found.observed.value, found.status) == (0.3, "pass")
    assert second_opinion(alone, 40).status == "warn"
