"""The pages in a real browser without a network: nothing asked for, nothing cut, nothing on top."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import optional
import pytest
from browser import NEEDS_CHROMIUM, Page, chromium
from run_facts import AT, BY_LABEL, BY_SITE, endings, facts, history, verdict

from expectations.words import LANGUAGES
from spira_tasks.contract.verdict import Number
from spira_tasks.reports import pages
from spira_tasks.reports.facts import SignalQuality

pytestmark = NEEDS_CHROMIUM

PHONE, DESK = 360, 1280
NAMES = [f"{page}.{language}.html" for page in pages.PAGES for language in ("pt", "en")]
AXE = "tests/requirements-axe.txt"
AXE_SHA256 = "84494fec757e4710dc751c8d7a636e457f4532f08f85c86dc9070133fbff53bc"  # axe-core 4.12.1
SERIOUS = """
axe.run({resultTypes: ['violations']}).then(r => r.violations
  .filter(v => ['serious', 'critical'].includes(v.impact))
  .map(v => v.id + ': ' + v.nodes.map(n => n.target.join(' ')).join(', ')))"""
ANSWERED = """
Math.max(...['outcome', 'why', 'whom', 'next'].map(
  id => document.getElementById(id).parentElement.getBoundingClientRect().bottom))"""
LONG = "a device whose maker gave it a name that no phone is wide enough for, 2026 edition"
# Words of charts whose boxes share more than a pixel, and words that leave the chart's box.
COLLISIONS = """
(() => { const found = [];
  for (const svg of document.querySelectorAll('svg.chart')) {
    const whole = svg.getBoundingClientRect();
    const boxes = [...svg.querySelectorAll('text')].map(t => {
      const b = t.getBBox(), m = t.getScreenCTM();
      return {t: t.lastChild.textContent, l: b.x + m.e, r: b.x + b.width + m.e, y: b.y + m.f + 2,
              b: b.y + b.height + m.f - 2}; });
    boxes.forEach((p, i) => {
      if (p.l < whole.left - 2 || p.r > whole.right + 2) found.push(p.t + ' leaves the chart');
      boxes.slice(i + 1).forEach(q => {
        if (p.l < q.r - 1 && q.l < p.r - 1 && p.y < q.b && q.y < p.b)
          found.push(p.t + ' meets ' + q.t); }); });
  } return found; })()"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages with many categories, long names and wide numbers."""
    rows = tuple(f"{LONG} {number}" for number in range(12))
    cells = tuple((10_000 + number,) for number in range(12))
    run = facts(
        composition=(
            BY_LABEL,
            replace(BY_SITE, columns=(LONG, LONG)),
            replace(BY_LABEL, rows=rows, cells=cells, total=120_066),
        ),
        signal_quality=tuple(
            SignalQuality("bandwidth_hz", name, 9, 9, 7000.0, 7400.0 + number, 7900.0)
            for number, name in enumerate(rows)
        ),
        verdicts={
            "check_drift": tuple(
                verdict(name, "warn", observed=Number(0.4), threshold=0.2, n=61, suite="drift")
                for name in rows
            )
        },
    )
    folder = tmp_path_factory.mktemp("site")
    pages.render(run, history(40), folder, built_at=AT)
    return folder


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages of a run of each ending."""
    folder = tmp_path_factory.mktemp("endings")
    for name, run in endings().items():
        (folder / name).mkdir()
        pages.render(run, history(), folder / name, built_at=AT)
    return {name: folder / name for name in endings()}


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        page.call(
            "Network.emulateNetworkConditions",
            offline=True, latency=0, downloadThroughput=0, uploadThroughput=0,
        )  # fmt: skip
        yield page


@pytest.fixture
def seen(tab: Page) -> Iterator[Page]:
    """The tab as a test finds it: nothing emulated, nothing asked for yet."""
    tab.requested.clear()
    yield tab
    tab.call("Emulation.setEmulatedMedia", media="", features=[])
    tab.call("Emulation.clearDeviceMetricsOverride")


def wide(tab: Page, width: int, height: int = 800) -> None:
    tab.call(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=height, deviceScaleFactor=1, mobile=width < DESK,
    )  # fmt: skip


def test_no_page_asks_for_anything_but_itself(seen: Page, site: Path) -> None:
    for name in [*NAMES, pages.INDEX]:
        seen.open((site / name).as_uri())
        assert "SPIRA" in seen.text(), name
        assert seen.run("getComputedStyle(document.querySelector('nav ul')).display") == "flex"
    assert {url for url in seen.requested if not url.startswith("data:")} == {
        (site / name).as_uri() for name in [*NAMES, pages.INDEX]
    }


def test_a_page_that_asks_another_host_is_caught(seen: Page, site: Path, tmp_path: Path) -> None:
    leaky = tmp_path / "leaky.html"
    text = (site / "verdict.en.html").read_text().replace("default-src 'none'; ", "")
    text = text.replace("img-src data:;", "")
    leaky.write_text(text.replace("<main", '<img src="http://outside.example/x.png"><main', 1))
    seen.open(leaky.as_uri())
    assert "http://outside.example/x.png" in seen.requested


def test_the_pages_themselves_forbid_what_they_do_not_need(
    seen: Page, site: Path, tmp_path: Path
) -> None:
    forged = tmp_path / "forged.html"
    script = "<script>document.title = 'owned'</script>"
    forged.write_text((site / "verdict.en.html").read_text().replace("<main", f"{script}<main", 1))
    seen.open(forged.as_uri())
    assert str(seen.run("document.title")).startswith("Verdict")


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_words_of_charts_never_meet_and_no_page_is_wider_than_the_screen(
    seen: Page, site: Path, width: int
) -> None:
    wide(seen, width)
    found: dict[str, Any] = {}
    for name in NAMES:
        seen.open((site / name).as_uri())
        page = "document.documentElement"
        if seen.run(f"{page}.scrollWidth") > width:
            found[f"{name} is wider"] = seen.run(f"{page}.scrollWidth")
        if collisions := seen.run(COLLISIONS):
            found[name] = collisions
    assert found == {}


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_the_first_screen_says_whether_it_may_serve_why_for_whom_not_and_what_next(
    seen: Page, verdicts: dict[str, Path], width: int, height: int
) -> None:
    wide(seen, width, height)
    below = {}
    for name, folder in verdicts.items():
        for language in LANGUAGES:
            seen.open((folder / f"verdict.{language}.html").as_uri())
            if (end := seen.run(ANSWERED)) > height:
                below[name, language] = end
    assert below == {}


def test_axe_finds_nothing_serious_on_any_page(
    seen: Page, site: Path, verdicts: dict[str, Path]
) -> None:
    with optional.installed(AXE):
        script = optional.folder_of(AXE) / "axe_playwright_python/axe.min.js"
        assert sha256(script.read_bytes()).hexdigest() == AXE_SHA256
        files = [site / name for name in NAMES]
        files += [folder / "verdict.pt.html" for folder in verdicts.values()]
        found = {}
        for scheme in ("light", "dark"):
            media = [{"name": "prefers-color-scheme", "value": scheme}]
            seen.call("Emulation.setEmulatedMedia", features=media)
            for file in files if scheme == "light" else files[-len(verdicts) :]:
                seen.open(file.as_uri())
                seen.run(script.read_text() + ";0")
                worst = seen.run(SERIOUS)
                if worst:
                    found[scheme, file.parent.name, file.name] = worst
        assert found == {}
        seen.run("document.querySelector('html').removeAttribute('lang')")
        assert "html-has-lang" in str(seen.run(SERIOUS))


def test_words_that_meet_are_caught(seen: Page, site: Path) -> None:
    wide(seen, PHONE)
    seen.open((site / "data.en.html").as_uri())
    seen.run("document.querySelectorAll('svg.chart text').forEach(t => t.setAttribute('x', '30%'))")
    assert seen.run(COLLISIONS)


def test_paper_shows_what_the_screen_folds_away(seen: Page, site: Path) -> None:
    seen.open((site / "data.pt.html").as_uri())
    hidden = (
        "[...document.querySelectorAll('details table')]"
        ".filter(t => t.checkVisibility({contentVisibilityAuto: true}) === false).length"
    )
    assert seen.run(hidden) > 5
    seen.call("Emulation.setEmulatedMedia", media="print")
    seen.wait(f"{hidden} === 0")  # unfolded by the next frame, not by the change of medium itself
    assert seen.run("getComputedStyle(document.querySelector('header nav')).display") == "none"


def test_a_reader_who_wants_the_dark_gets_it(seen: Page, site: Path) -> None:
    seen.open((site / "verdict.pt.html").as_uri())
    ground = "getComputedStyle(document.body).backgroundColor"
    light = seen.run(ground)
    seen.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    assert (light, seen.run(ground)) == ("rgb(251, 250, 247)", "rgb(18, 23, 28)")


def test_the_keyboard_reaches_the_content_first_and_can_see_where_it_is(
    seen: Page, site: Path
) -> None:
    seen.open((site / "verdict.pt.html").as_uri())
    for kind in ("keyDown", "keyUp"):
        seen.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab",
                  windowsVirtualKeyCode=9)  # fmt: skip
    focused = "document.activeElement"
    assert seen.run(f"{focused}.getAttribute('href')") == "#content"
    assert seen.run(f"{focused}.getBoundingClientRect().left") >= 0
    assert seen.run(f"getComputedStyle({focused}).outlineStyle") == "solid"
