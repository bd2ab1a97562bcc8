"""The governance site: whole, in two languages, for everybody, and silent towards other hosts."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from babel import Locale
from reading_pages import barriers, outside, read
from run_facts import AT, BY_REASON, BY_SITE, facts, history, sound, summary, verdict

import expectations.words
from expectations.words import LANGUAGES, Language, Words, texts
from expectations.words.catalogue import committed
from expectations.words.verdicts import gates, title
from spira_tasks.contract.pipelines import TRAINING
from spira_tasks.contract.verdict import Number, Waiver
from spira_tasks.intake.record_contract import COLUMNS
from spira_tasks.intake.releases import RELEASABLE
from spira_tasks.reports import documents, pages, tables
from spira_tasks.reports.facts import (
    Change,
    Counts,
    ModelFacts,
    Quarantine,
    Release,
    RunFacts,
    RunSummary,
    SignalQuality,
    Since,
    StepFacts,
    Tally,
)
from spira_tasks.reports.questions import QUESTIONS
from spira_tasks.stages.ingest import NOT_PERMITTED, UNNAMED

SCRIPT = "<script>alert(1)</script>"


def render(
    folder: Path, run: RunFacts | None = None, runs: list[RunSummary] | None = None, **options: Any
) -> Path:
    pages.render(
        run or facts(), history() if runs is None else runs, folder, built_at=AT, **options
    )
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("site"))


def bare() -> RunFacts:
    """A run that stopped before anything could be measured, of which the tables are gone."""
    return facts(
        outcome="running", started_at="", synthetic=None, triggered_by="", verdicts={},
        n_erasures=0, steps=(StepFacts("ingest", "waiting"),), releases=(), intake=None,
        quarantine=None, dataset=None, composition=(), signal_quality=(),
        evaluation=None, model=None, missing=("ingest.report",), since=None,
    )  # fmt: skip


def words(folder: Path, name: str) -> str:
    return read(folder / name).text


def test_every_page_is_there_in_both_languages_and_the_root_is_the_overview(tmp_path: Path) -> None:
    names = pages.render(facts(), history(), tmp_path)
    expected = {f"{page}.{language}.html" for page in pages.PAGES for language in LANGUAGES}
    assert set(names) == expected | {"index.html"} == {path.name for path in tmp_path.iterdir()}
    index, overview = (tmp_path / name for name in ("index.html", "overview.pt.html"))
    assert index.read_bytes() == overview.read_bytes()


@pytest.mark.parametrize("run", [facts(), bare()], ids=["whole", "bare"])
@pytest.mark.parametrize("runs", [history(), history(1), []], ids=["many", "one", "none"])
def test_no_page_shuts_anybody_out(tmp_path: Path, run: RunFacts, runs: list[RunSummary]) -> None:
    render(tmp_path, run, runs)
    found = {path.name: barriers(read(path)) for path in sorted(tmp_path.iterdir())}
    assert found == {name: [] for name in found}


def test_the_reader_of_pages_finds_barriers_where_there_are_some(
    tmp_path: Path, site: Path
) -> None:
    whole = (site / "data.en.html").read_text()
    for pattern, replacement in (
        ("<h2 ", "<h5 "), ('<html lang="en">', "<html>"), ("<caption", "<x-caption"),
        ('scope="col"', ""), ('role="img"', ""), ('id="intake"', 'id="signal"'), ("</figure>", ""),
    ):  # fmt: skip
        worse = tmp_path / "worse.html"
        worse.write_text(whole.replace(pattern, replacement, 1))
        assert barriers(read(worse)), pattern


def test_no_page_names_another_host(site: Path) -> None:
    assert {path.name: outside(path.read_text()) for path in site.iterdir()} == {
        path.name: [] for path in site.iterdir()
    }


@pytest.mark.parametrize(
    "hole",
    [
        '<link href="//fonts.example/a.css">',
        '<a href="https://example.org">x</a>',
        "<img src=x.png>",
        "<style>p{background:url(x.png)}</style>",
        '<a href="javascript:x()">x</a>',
        "<script></script>",
    ],
)
def test_the_reader_of_pages_finds_a_way_out(hole: str) -> None:
    assert outside(f"<html><body>{hole}</body></html>")


def test_links_lead_to_pages_of_the_site(site: Path) -> None:
    names = {path.name for path in site.iterdir()}
    for path in site.iterdir():
        page = read(path)
        targets = {link["href"] for link in page.all("a")}
        for name, _, fragment in (one.partition("#") for one in targets):
            if name in names and fragment:
                assert fragment in {a.get("id") for _, a in read(site / name).tags}, path.name
        targets = {one.partition("#")[0] or one for one in targets}
        ids = {attributes.get("id") for _, attributes in page.tags}
        inside = {target for target in targets if not target.startswith(("#", "../"))}
        assert inside <= names, path.name
        assert {target[1:] for target in targets if target.startswith("#")} <= ids, path.name


def test_each_page_leads_to_itself_in_the_other_language(site: Path) -> None:
    for page in pages.PAGES:
        for language, other in (("pt", "en"), ("en", "pt")):
            links = read(site / f"{page}.{language}.html").all("a")
            assert [a["href"] for a in links if "hreflang" in a] == [f"{page}.{other}.html"]


def test_other_runs_are_linked_where_their_sites_lie_beside(tmp_path: Path, site: Path) -> None:
    linked = {a["href"] for a in read(site / "overview.en.html").all("a")}
    assert {"../run-0/verdict.en.html", "../run-1/verdict.en.html"} <= linked
    render(tmp_path, links_to_runs=False)
    packed = {a["href"] for a in read(tmp_path / "overview.en.html").all("a")}
    assert not [href for href in packed if href.startswith("..")]


def test_a_run_of_airflow_is_linked_by_its_escaped_name(tmp_path: Path) -> None:
    name = "manual__2026-11-21T17:00:00+00:00"
    render(tmp_path, runs=[summary(name), summary("first")])
    hrefs = [a["href"] for a in read(tmp_path / "overview.pt.html").all("a")]
    assert "../manual__2026-11-21T17%3A00%3A00%2B00%3A00/verdict.pt.html" in hrefs


def test_nothing_in_the_facts_becomes_html(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = replace(BY_SITE, rows=(SCRIPT, "<img src=x onerror=alert(1)>", "other"))
    run = facts(
        run_id=SCRIPT, triggered_by=SCRIPT, composition=(evil,), missing=(SCRIPT,), steps=(
            StepFacts(SCRIPT, "failed", error=SCRIPT, message=SCRIPT, key=SCRIPT),
        ),
        quarantine=Quarantine({SCRIPT: 9}, replace(BY_REASON, rows=(SCRIPT, "x")), evil, evil),
        verdicts={SCRIPT: (
            verdict(SCRIPT, "block", suite=SCRIPT, names={SCRIPT: (SCRIPT,)}),
            verdict(SCRIPT, "warn", waiver=Waiver(SCRIPT, AT, SCRIPT)),
            verdict("approved_by_a_person", names={"version": (SCRIPT,), "by": (SCRIPT,),
                    "at": (AT,), "why": (SCRIPT,)}),
        )},
        releases=(Release(SCRIPT, SCRIPT, SCRIPT, AT),),
        since=Since(SCRIPT, (Change("setting", SCRIPT, SCRIPT, SCRIPT),)),
        model=ModelFacts(SCRIPT, SCRIPT, SCRIPT, (SCRIPT,), SCRIPT, {SCRIPT: SCRIPT}, {}),
    )  # fmt: skip
    written = f"{SCRIPT} [x](https://x.example) ![y](//z) <https://y.example>"
    write(tmp_path / "docs", "datasheet/uses.pt", written)
    write(tmp_path / "docs", "model_card/ethical.en", written)
    monkeypatch.setattr(documents, "FOLDER", tmp_path / "docs")
    site = tmp_path / "site"
    site.mkdir()
    runs = [summary(SCRIPT, version=SCRIPT, by_suite={SCRIPT: Tally(1, 0, 0)})]
    pages.render(run, runs, site)
    for path in site.iterdir():
        page = read(path)
        assert page.problems == [], path.name
        assert outside(path.read_text()) == [], path.name
        assert not any("onerror" in attributes for _, attributes in page.tags), path.name


def write(folder: Path, name: str, text: str) -> None:
    file = folder / f"{name}.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_what_people_wrote_is_markdown_below_the_sections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "docs", "datasheet/uses.pt", "# Título\n\nEscrito **à mão**.")
    monkeypatch.setattr(documents, "FOLDER", tmp_path / "docs")
    render(tmp_path)
    page = read(tmp_path / "datasheet.pt.html")
    assert ("h3", "Título") in page.words
    assert ("strong", "à mão") in page.words


def test_each_language_names_the_parts_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "docs", "datasheet/uses.en", "To learn.\n")
    write(tmp_path / "docs", "datasheet/distribution.pt", " \n")  # empty is as good as absent
    monkeypatch.setattr(documents, "FOLDER", tmp_path / "docs")
    render(tmp_path)
    missing: dict[Language, int] = {"pt": 7, "en": 6}
    for language, n_missing in missing.items():
        page = read(tmp_path / f"datasheet.{language}.html")
        paths = [word for tag, word in page.words if tag == "code" and word.endswith(".md")]
        other = {"pt": "en", "en": "pt"}[language]
        assert len(paths) == n_missing
        assert not any(path.endswith(f".{other}.md") for path in paths)
        assert "To learn." in page.text  # in the other language rather than not at all
        assert Words(language)("document.missing", n=n_missing) in page.text
    assert "docs/governance/datasheet/uses.pt.md" in words(tmp_path, "datasheet.pt.html")


def test_both_languages_have_every_text_with_the_same_places() -> None:
    for key, both in texts().items():
        assert set(both) == set(LANGUAGES), key
        places = [set(re.findall(r"{\w+}", both[language])) for language in LANGUAGES]
        assert places[0] == places[1], key
        assert all(text.strip() for text in both.values()), key


def test_whatever_a_run_can_name_has_a_name_for_people() -> None:
    t = Words("pt")
    gates = {step.config["gate"] for step in TRAINING if step.stage == "validate"}
    suites = {suite for suite, _ in committed()} | {f"{gate}_gate" for gate in gates}
    lacking = [
        key
        for kind, names in (
            ("step", [step.name for step in TRAINING]),
            ("suite", suites),
            ("reason", [*RELEASABLE, *NOT_PERMITTED, *UNNAMED]),
            ("measure", tables.MEASURES),
            ("measure_unit", tables.MEASURES),
            ("task", COLUMNS["task"].values),
            ("sex", COLUMNS["sex"].values),
            ("counts", ["_".join(by) for by in tables.COMPOSITION]),
            ("people", ["_".join(by) for by in tables.COMPOSITION]),
            ("datasheet", documents.SECTIONS["datasheet"]),
            ("model_card", documents.SECTIONS["model_card"]),
        )
        for name in names
        if not t.has(key := f"{kind}.{name}")
    ]
    assert lacking == []


def test_no_words_stand_in_the_templates_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    marked = {
        key: {language: f"⟦{text}⟧" if key != "html_language" else text
              for language, text in both.items()}
        for key, both in texts().items()
    }  # fmt: skip
    monkeypatch.setattr(expectations.words, "texts", lambda: marked)
    expectations.words.words_of.cache_clear()
    request.addfinalizer(expectations.words.words_of.cache_clear)
    names = [StepFacts("⟦s⟧", "done", 4.9, False, "⟦k⟧", AT, outputs={"⟦o⟧": "⟦d⟧"})]
    run = facts(
        run_id="⟦r⟧", triggered_by="⟦a⟧", missing=("⟦m⟧",),
        steps=tuple(names), verdicts={"⟦p⟧": (
            verdict("⟦v⟧", "warn", suite="⟦s⟧"),
            verdict("⟦v⟧", "warn", suite="⟦s⟧", waiver=Waiver("⟦b⟧", AT, "⟦w⟧")),
        )},
        releases=(Release("⟦x⟧", "⟦w⟧", "⟦b⟧", AT),),
    )  # fmt: skip
    runs = [summary("⟦r⟧", by_suite={"⟦s⟧": Tally(1, 0, 0)})]
    pages.render(run, runs, tmp_path)
    by_form = Locale("pt").months["format"]
    for page in ("overview", "verdict", "data", "provenance"):
        found = read(tmp_path / f"{page}.pt.html")
        read_aloud = [word for tag, word in found.words if tag != "code" and word[-1] != "…"]
        labels = [a.get("aria-label", "") for _, a in found.tags]
        text = " ".join(read_aloud + labels)
        while (shorter := re.sub("⟦[^⟦⟧]*⟧", "", text)) != text:
            text = shorter
        text = re.sub(r"\bSPIRA\b|\bUTC\b|(?<=\d\xa0)s\b", "", text)
        left = set(re.findall(r"\b[^\W\d_]{2,}\b", text))
        # a date is spelled by Babel, also that of today
        months = {name for form in ("wide", "abbreviated") for name in by_form[form].values()}
        months = {name.rstrip(".") for name in months}
        assert left <= {"epochs", "train", "materialize", "de"} | months, (page, left)


def test_numbers_are_written_as_the_language_has_them(site: Path) -> None:
    assert "0,52 (0,33–0,79)" in words(site, "verdict.pt.html")
    assert "0.52 (0.33–0.79)" in words(site, "verdict.en.html")
    assert "2026-11-21 17:00 UTC" in words(site, "verdict.en.html")
    assert "21 de novembro de 2026" in words(site, "verdict.pt.html")
    pt, en = Words("pt"), Words("en")
    assert (pt.number(1234567.5, 1), en.number(1234567.5, 1)) == ("1.234.567,5", "1,234,567.5")
    assert en.interval(-0.001, -0.494, 0.448) == "0.00 (−0.49 to 0.45)"
    assert (en.percent(-0.001), en.percent(-0.07)) == ("0\xa0%", "−7\xa0%")
    assert [en.digits(value) for value in (0.05, 0.6428, -0.125, 12345.6, 3e-9, 7.0, None)] == [
        "0.05", "0.643", "−0.125", "12,300", "3.0·10^−9", "7", "–"
    ]  # fmt: skip
    assert [pt.duration(seconds) for seconds in (0.27, 75, 3720)] == [
        "0,3\xa0s", "1\xa0min 15\xa0s", "1\xa0h 2\xa0min"
    ]  # fmt: skip


def test_a_run_is_called_by_its_time_and_person_and_its_id_stays_in_small_print(site: Path) -> None:
    page = read(site / "verdict.en.html")
    assert ("strong", "Run of 21 Nov 2026, 17:00 UTC, by maria") in page.words
    assert ("h1", "May this model serve?") in page.words
    assert "Id of the run first" in page.text
    assert "Execução de 21 nov. 2026, 17:00 UTC, por maria" in words(site, "verdict.pt.html")
    overview = words(site, "overview.en.html")
    assert "Run of 28 Nov 2026, 23:24 UTC, by admin run-0" in overview
    assert "153 passed · warnings: 3 · refusals: 3" in overview


def test_the_overview_calls_a_model_provisional_that_was_promoted_with_open_checks(
    tmp_path: Path,
) -> None:
    runs = [summary("run-1", outcome="promoted"), summary("first", outcome="promoted", n_open=2)]
    render(tmp_path, runs=runs)
    overview = read(tmp_path / "overview.en.html")
    states = [one["class"] for one in overview.all("span") if "state" in one.get("class", "")]
    assert [one for one in states if "pro" in one] == ["state provisional", "state promoted"]
    assert "Promoted provisionally" in words(tmp_path, "overview.en.html")


def test_the_data_page_has_the_checks_of_the_data_and_not_those_of_the_model(
    tmp_path: Path,
) -> None:
    gate = verdict("slice_gap", "insufficient", severity="warning")
    probe = verdict("channel_heard", "insufficient", severity="critical", suite="confounds")
    render(tmp_path, facts(verdicts={"check_confounds": (probe,), "promote": (gate,)}))
    on_data, on_verdict = (words(tmp_path, f"{page}.en.html") for page in ("data", "verdict"))
    of_gate = title(gate, "en")
    assert of_gate in on_verdict
    assert of_gate not in on_data
    assert title(probe, "en") in on_data


def test_the_overview_shows_running_runs_and_leaves_unfinished_ones_out_of_the_trends(
    tmp_path: Path,
) -> None:
    passed = {"metadata": Tally(3, 0, 0)}
    running, aborted = (
        summary(f"is-{outcome}", outcome=outcome, by_suite=passed, triggered_by="airflow:scheduler")
        for outcome in ("running", "failed")
    )
    render(tmp_path, runs=[running, aborted, summary("first")])
    text = words(tmp_path, "overview.en.html")
    assert "As of 2026-11-21 17:00 UTC" in text
    assert "by schedule is-running Not finished not finished; last step at 2026-11-21" in text
    assert "is-failed Failed" in text
    assert "100.0\xa0%" not in text.partition("Each run leads")[0].partition("96.2")[2]
    render(tmp_path, runs=[running, aborted])
    assert "nothing can be followed over the runs" in words(tmp_path, "overview.en.html")
    assert not read(tmp_path / "overview.en.html").all("figure")


@pytest.mark.parametrize(
    ("champion", "said"),
    [
        ("2", "In use when this page was made: spira, version 2."),
        ("", "No model is in use."),
        (None, "the registry did not answer"),
    ],
)
def test_the_verdict_says_which_model_is_in_use(
    tmp_path: Path, champion: str | None, said: str
) -> None:
    render(tmp_path, facts(champion=champion))
    assert said in words(tmp_path, "verdict.en.html")


def test_one_sentence_stands_for_charts_of_hidden_values(tmp_path: Path) -> None:
    hidden = Counts(("sex",), "subjects", ("F", "M"), (), ((None,), (None,)), (), (), None)
    device = SignalQuality("snr_db", "#1", None, None, None, None, None)
    render(
        tmp_path,
        facts(composition=(BY_SITE, hidden), signal_quality=(device,)),
        [summary("first", auc=None)],
    )
    data = read(tmp_path / "data.en.html")
    assert "every number in it is too small or would reveal one: By sex." in data.text
    assert "every number in it is too small or would reveal one: Voice above noise." in data.text
    assert not {"composition-sex", "signal-snr_db"} & {one.get("id") for one in data.all("figure")}
    assert "would reveal one: AUC on the test." in words(tmp_path, "overview.en.html")


def test_the_data_page_begins_with_what_was_refused_and_warned(site: Path) -> None:
    headings = [text for tag, text in read(site / "data.en.html").words if tag == "h2"]
    assert headings[:3] == [
        "What was refused, and why",
        "Checks of the data that stopped the run or warn",
        "What came in",
    ]


def test_the_model_card_says_what_it_is_for_before_how_it_was_trained(site: Path) -> None:
    card = read(site / "model-card.en.html")
    headings = [text for tag, text in card.words if tag == "h2"]
    assert headings[:2] == ["Intended use", "Model details"]
    assert ("summary", "Settings of the training (2)") in card.words


def test_each_gate_of_a_model_stands_under_its_question(tmp_path: Path) -> None:
    probe = verdict("noise_only_control", "block", observed=Number(0.8, low=0.7, high=0.9),
                    threshold=0.6, n=60, suite="confounds", severity="critical")  # fmt: skip
    render(tmp_path, facts(verdicts={"check_confounds": (probe,), **sound().verdicts}))
    page = words(tmp_path, "verdict.en.html")
    heard, right = page.index("Does it hear the illness"), page.index("How often is it right")
    for gate in ("ward_noise_counterfactual", "noise_only_control"):
        title = Words("en")(f"gate.{gate}.title")
        assert heard < page.index(title, heard) < right, title
    assert right < page.index("Finds the patients", right)


def test_every_gate_of_a_model_has_its_question() -> None:
    of_data = {
        *("drift_reference", "known_sites", "label_agreement", "quarantine_share"),
        *("quarantine_share_by_site", "rows_conserved", "second_opinion", "standard_limits"),
        "ward_noise_files",
    }
    placed = {id for ids in QUESTIONS.values() for id in ids}
    assert set(gates()) - of_data == placed


def test_the_model_card_shows_groups_calibration_benefit_and_what_changes_the_answer(
    tmp_path: Path,
) -> None:
    render(tmp_path, sound())
    card = words(tmp_path, "model-card.en.html")
    for shown in (
        "Sex: Men 0.70 (0.60–0.80)",
        "says 23\xa0% 0.10 (0.05–0.20)",
        "below, the model is too sure) 0.70 (0.60–0.80)",
        "no, it did not help",
        "Noise on everybody 0.10 (0.05–0.20)",
        "Opus and back 0.10 (0.05–0.20)",
        "10\xa0% 20\xa0% 10.00 (5.00–20.00) −12.5",
        "Patient patient 80\xa0% 31.0 −2.0 0.4",
        "These are recordings of invented people.",
    ):
        assert shown in card, shown
    assert "Sex: Women" not in card.partition("AUC in groups")[2].partition("What happens")[0]
    assert (
        "Where 10 of 100 people have the illness: of 100 whom it alarms, 70 have it (60–80)"
        in words(tmp_path, "verdict.en.html")
    )


def test_commands_are_those_of_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render(tmp_path)
    assert "python -m spira_tasks quarantine list" in words(tmp_path, "data.en.html")
    assert "make images" not in words(tmp_path, "datasheet.en.html")
    for module in (pages, expectations.words):
        monkeypatch.setattr(module, "COMMAND", "scripts/spira.sh")
    monkeypatch.setattr(documents, "FOLDER", tmp_path / "docs")
    render(tmp_path)
    for page in pages.PAGES:
        assert "python -m" not in words(tmp_path, f"{page}.en.html"), page
    assert "scripts/spira.sh quarantine list" in words(tmp_path, "data.en.html")
    assert "scripts/spira.sh audit verify" in words(tmp_path, "provenance.en.html")
    assert "run make images" in words(tmp_path, "datasheet.en.html")


def test_few_people_are_never_counted(site: Path) -> None:
    data = words(site, "data.en.html")
    assert "until now: <5." in data
    assert "Cells of 1 to 4, and those from which they could be computed, are hidden." in data
    assert data.count("hidden") >= 6  # too few, and what would tell of them


def test_a_synthetic_cohort_says_so_on_every_page_and_a_real_one_does_not(
    tmp_path: Path, site: Path
) -> None:
    said = "says nothing of medicine"
    assert all(said in words(site, f"{page}.en.html") for page in pages.PAGES)
    render(tmp_path, facts(synthetic=False))
    told = [page for page in pages.PAGES if said in words(tmp_path, f"{page}.en.html")]
    assert told == ["experiments"]  # one of which was on invented people


def test_every_page_says_that_nobody_signed_the_thresholds_and_what_it_was_made_of(
    site: Path,
) -> None:
    for page in pages.PAGES:
        text = words(site, f"{page}.en.html")
        assert "not yet signed by a clinician" in text
        assert f"10:{'2d' * 32}" in text


def test_the_style_reaches_the_contrast_that_eyes_need() -> None:
    style = (pages.HERE / "style.css").read_text()
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", part))
                   for part in style.split("@media (prefers-color-scheme: dark)")[:2])  # fmt: skip
    assert light.keys() == dark.keys()
    for colours in (light, dark):
        for ground in ("ground", "panel"):
            for ink in ("ink", "quiet", "link", "good", "care", "stop", "wait"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
            for number in range(1, 7):
                assert contrast(colours[f"c{number}"], colours[ground]) >= 3, (number, ground)
        for tone in ("good", "care", "stop", "wait"):
            for ink in (tone, "ink", "link", "quiet"):
                assert contrast(colours[ink], colours[f"{tone}-ground"]) >= 4.5, (ink, tone)


def contrast(one: str, other: str) -> float:
    """As WCAG 2.2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_an_experiment_shows_intervals_tests_and_cost_and_no_count_of_few(site: Path) -> None:
    text = words(site, "experiments.en.html")
    for shown in (
        "Chosen by the search",
        "0.70 (0.60–0.80)",
        "0.70 (0.60–0.80) – – – –",
        "2\xa0min 0\xa0s",
        "Accuracy 0.92; F1 0.91",
    ):
        assert shown in text
    assert "Escolhidos pela busca" in words(site, "experiments.pt.html")


def test_without_an_experiment_the_page_says_so(tmp_path: Path) -> None:
    render(tmp_path, facts(experiments=()))
    assert "No experiment of this store" in words(tmp_path, "experiments.en.html")


def test_the_model_card_shows_the_maps_of_answers_and_whether_to_trust_them(tmp_path: Path) -> None:
    run = sound()
    assert run.evaluation is not None
    picture = b64encode(b"a picture").decode()
    shown = render(
        tmp_path, replace(run, evaluation=replace(run.evaluation, explained_png=b"a picture"))
    )
    for language in LANGUAGES:
        content = (shown / f"model-card.{language}.html").read_text()
        assert f'<img src="data:image/png;base64,{picture}" alt="' in content
    said = words(shown, "model-card.en.html")
    assert "rank correlation of 0.03" in said
    assert not barriers(read(shown / "model-card.en.html"))
