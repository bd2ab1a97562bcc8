"""What a person waived is on the pages."""

from __future__ import annotations

from pathlib import Path

from reading_pages import barriers, outside, read
from run_facts import AT, facts, history, verdict, waived

from expectations.words import LANGUAGES, Words
from spira_tasks.reports import pages
from spira_tasks.reports.facts import RunFacts

VERDICTS = {"check_training_set": (waived(),), "promote": (verdict("calibration", "warn"),)}


def words(folder: Path, name: str) -> str:
    return read(folder / name).text


def render(run: RunFacts, folder: Path) -> Path:
    pages.render(run, history(), folder, built_at=AT)
    return folder


def test_a_waived_check_stands_right_below_the_headline_and_wherever_checks_are_listed(
    tmp_path: Path,
) -> None:
    render(facts(outcome="promoted", verdicts=VERDICTS), tmp_path)
    for language in LANGUAGES:
        t = Words(language)
        page = words(tmp_path, f"verdict.{language}.html")
        block, after = t("verdict.waived", n="1"), t("verdict.gates")
        assert page.index(t("answer.promoted")) < page.index(block) < page.index(after)
        for name in ("verdict", "data", "model-card"):
            reported = words(tmp_path, f"{name}.{language}.html")
            assert "cli:ana" in reported, name
            assert "one telephone yet" in reported, name
    assert (
        "waived by cli:ana on 21 November 2026 (last day: 19 February 2027): one telephone yet"
    ) in words(tmp_path, "data.en.html")
    assert "Waived by a person" in words(tmp_path, "model-card.en.html")


def test_every_page_names_what_was_waived_and_until_when(tmp_path: Path) -> None:
    render(facts(outcome="promoted", verdicts=VERDICTS), tmp_path)
    for page in pages.PAGES:
        said = words(tmp_path, f"{page}.en.html")
        assert "“device model” (last day: 19 February 2027)" in said, page
    render(facts(), tmp_path)
    assert "last day" not in words(tmp_path, "overview.en.html")


def test_only_the_releases_are_said_to_be_those_of_the_day_of_the_report(tmp_path: Path) -> None:
    render(facts(verdicts={"check_training_set": (waived(),)}), tmp_path)
    page = words(tmp_path, "data.en.html")
    waivers, releases = page[page.rindex("Decisions of people") :].split(
        "Releases from quarantine in force when this report was made", 1
    )
    assert "one telephone yet" in waivers
    assert "heard it: usable" in releases


def test_the_block_of_waivers_shuts_nobody_out_and_names_no_host(tmp_path: Path) -> None:
    render(facts(verdicts={"check_training_set": (waived(),)}), tmp_path)
    for path in tmp_path.iterdir():
        assert barriers(read(path)) == [], path.name
        assert outside(path.read_text()) == [], path.name


def test_without_a_waiver_nothing_is_said_to_be_waived(tmp_path: Path) -> None:
    render(facts(), tmp_path)
    for name in ("verdict", "model-card"):
        assert "aived by a person" not in words(tmp_path, f"{name}.en.html"), name
    assert "No check of this run was waived." in words(tmp_path, "data.en.html")
