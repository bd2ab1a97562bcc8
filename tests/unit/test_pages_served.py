"""The site as it is served: it leads to the same as one file, which in turn leads nowhere."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from reading_pages import barriers, outside, read
from run_facts import facts, history

from spira.store import PACK as NAME_OF_PACK
from spira_tasks.artifacts import Store
from spira_tasks.reports import pack, pages, site


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The site to be sent away and the one to be served."""
    monkeypatch.setattr(site, "gather", lambda *_: facts())
    monkeypatch.setattr(site, "history", lambda _: history())
    alone, served = tmp_path / "alone", tmp_path / "served"
    alone.mkdir()
    served.mkdir()
    site.build(Store(str(tmp_path / "store")), "first", alone, served)
    return alone, served


def hrefs(page: Path) -> set[str]:
    return {link["href"] for link in read(page).all("a")}


def test_every_served_page_leads_to_the_pack(folders: tuple[Path, Path]) -> None:
    alone, served = folders
    names = [f"{page}.{language}.html" for page in pages.PAGES for language in ("pt", "en")]
    for name in names:
        assert "pack" in hrefs(served / name), name
        assert "pack" not in hrefs(alone / name), name
        assert barriers(read(served / name)) == [], name
        assert outside((served / name).read_text()) == [], name


def test_the_pack_beside_the_served_pages_is_whole_and_is_the_site_that_is_sent_away(
    folders: tuple[Path, Path],
) -> None:
    alone, served = folders
    (file,) = served.glob("*.zip")
    assert NAME_OF_PACK.fullmatch(file.name)
    assert pack.verify(file).problems == []
    with zipfile.ZipFile(file) as archive:
        packed = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    assert packed == {
        path.relative_to(alone).as_posix(): path.read_bytes()
        for path in alone.rglob("*")
        if path.is_file()
    }
