"""The pages that Airflow's server makes itself: the verdict of a step, before there is a report."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from spira.governance_pages import decide_page, step_page
from spira_tasks.contract.run import StepRecord
from spira_tasks.contract.verdict import Number, Verdict

RECORD = {
    "state": "done",
    "step": "promote",
    "stage": "promote",
    "finished_at": "2026-11-21T12:00:00+00:00",
    "seconds": 1.0,
    "verdicts": [
        Verdict(
            "contains_erased_subject", "block", observed=Number(3, "people"), severity="critical"
        ).to_dict(),
        Verdict("auc_above_chance", "pass", observed=Number(0.9, low=0.8, high=1.0)).to_dict(),
        Verdict("expect_<the>_moon", "block").to_dict(),
    ],
}


def test_a_check_is_described_in_the_readers_language_beside_its_id() -> None:
    record = StepRecord.from_json(json.dumps(RECORD))
    page, translated = step_page("first", record, "en"), step_page("first", record, "pt")
    for text in (
        "No erased person in the data of the model",
        "<code>contains_erased_subject</code>",
        "(LGPD art. 18): fewer than 5.",
    ):
        assert text in page
    for text in ("Nenhuma pessoa eliminada nos dados do modelo", "menos de 5."):
        assert text in translated
        assert text not in page
    assert "fewer" not in translated
    assert "Better than chance" in page.split("<details>")[1]
    assert "<code>expect_&lt;the&gt;_moon</code>" in page  # there are no words for it
    assert "<the>" not in page


def test_who_decides_reads_on_the_same_page_what_is_open_and_that_nobody_is_real() -> None:
    left_open = Verdict("slice_gap", "insufficient")
    choices: Any = SimpleNamespace(
        token="t", about={"version": "3"}, is_excluded=False, left_open=(left_open,), waivable=(),
        is_steward=False, is_synthetic=True,
    )  # fmt: skip
    page = decide_page("first", choices, "en")
    assert "Synthetic cohort:" in page
    assert page.index("not known whether one is worse off") < page.index(">Approve<")
