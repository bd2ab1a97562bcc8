"""The pages that Airflow's server makes itself: what a step said, before there is a report."""

from __future__ import annotations

from spira.governance_pages import step_page

RECORD = {
    "state": "done",
    "verdicts": [
        {
            "name": "sensitivity_floor",
            "verdict": "warn",
            "reason": "3 of 8 patients",
            "threshold": 0.8,
        },
        {"name": "auc_above_chance", "verdict": "pass", "reason": ""},
        {"name": "expect_<the>_moon", "verdict": "block", "reason": "it is away"},
    ],
}


def test_a_check_is_told_in_plain_words_beside_its_code() -> None:
    page = step_page("first", "promote", RECORD)
    for words in ("Finds the patients", "Encontra os pacientes", "<code>sensitivity_floor</code>"):
        assert words in page
    assert "Better than chance" in page.split("<details>")[1]
    assert "<td><code>expect_&lt;the&gt;_moon</code>" in page  # nobody has words for it
    assert "3 of 8" not in page
