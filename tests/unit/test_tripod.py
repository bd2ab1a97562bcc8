"""Each item of TRIPOD+AI is listed, and is answered where the list says."""

from __future__ import annotations

from pathlib import Path

import pytest
from reading_pages import read
from run_facts import AT, history, sound

from spira_tasks.provenance import ROOT
from spira_tasks.reports import pages, tripod


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    pages.render(sound(), history(), folder, built_at=AT)
    return folder


def test_every_item_of_the_guideline_is_there_once() -> None:
    listed = [one.item for one in tripod.items()]
    assert len(listed) == len(set(listed)) == 52
    assert {item.rstrip("abcdefg") for item in listed} == {str(n) for n in range(1, 28)}


def test_every_place_exists(site: Path) -> None:
    for place in {place for one in tripod.items() for place in one.where}:
        page, _, section = place.partition("#")
        if place.startswith("docs/"):
            assert (ROOT / place).is_file(), place
        else:
            ids = {attributes.get("id") for _, attributes in read(site / f"{page}.pt.html").tags}
            assert not section or section in ids, place


def test_the_page_says_what_nobody_wrote_and_what_only_the_study_can_say(site: Path) -> None:
    card = read(site / "model-card.en.html").text
    assert "Ethics approval and consent Datasheet: Collection process (not yet written)" in card
    assert "18a Funding not here: the report of the study has to" in card


def test_the_document_is_the_list_as_it_stands() -> None:
    written = (ROOT / "docs/tripod_ai.md").read_text()
    assert written == tripod.markdown(), "make document"
