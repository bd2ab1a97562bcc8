"""People who read no code can read every expectation and every gate, in two languages."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from expectations import catalogue, document, plain, promotion
from expectations.catalogue import Entry, Suite
from spira_tasks import quality
from spira_tasks.contract.verdict import Verdict
from spira_tasks.suites import current, template

ROOT = Path(__file__).parents[2]
AGAIN = "\nmake document, and look at the changes"


@pytest.fixture(scope="module")
def suites() -> list[Suite]:
    return current()


def test_the_committed_catalogue_is_that_of_the_code(suites: list[Suite]) -> None:
    changes = catalogue.diff(list(catalogue.from_json(catalogue.COMMITTED.read_text())), suites)
    assert catalogue.to_json(suites) == catalogue.COMMITTED.read_text(), f"{changes[:5]}{AGAIN}"


@pytest.mark.parametrize(
    ("language", "name"), [("en", "expectations.md"), ("pt", "expectations.pt.md")]
)
def test_the_pages_are_those_of_the_code(
    suites: list[Suite], language: plain.Language, name: str
) -> None:
    assert document.page(suites, language) == (ROOT / "docs" / name).read_text(), AGAIN


def test_every_column_of_the_template_is_filled() -> None:
    assert not template().isna().any().any()


def test_the_catalogue_has_every_expectation_that_a_gate_tells(suites: list[Suite]) -> None:
    """By the names that verdicts have: a run is explained by the catalogue."""
    from expectations.suites import audio

    table = template(40)
    told = {verdict.name for verdict in quality.check(table, audio.suite(table)).verdicts}
    (listed,) = (suite for suite in suites if suite.name == "audio")
    assert told == {entry.name for entry in listed.expectations}


def test_every_expectation_says_why_and_who_answers(suites: list[Suite]) -> None:
    silent = [
        (suite.name, entry.name)
        for suite in suites
        for entry in suite.expectations
        if not (entry.rationale and entry.owner)
    ]
    assert silent == []


def test_every_expectation_is_told_in_both_languages() -> None:
    assert plain.untold() == []


def test_a_missing_word_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    words = json.loads(json.dumps(plain.load("pt")))
    del words["rationales"]["no consent, no use"]
    monkeypatch.setattr(plain, "load", lambda _: words)
    assert any("rationales: no consent, no use" in text for text in plain.untold())


def test_no_two_expectations_of_a_suite_read_alike(suites: list[Suite]) -> None:
    for suite in suites:
        for language in plain.LANGUAGES:
            told = [plain.tell(e, suite.name, language).sentence for e in suite.expectations]
            assert sorted(told) == sorted(set(told)), (suite.name, language)


def test_no_sentence_has_a_hole(suites: list[Suite]) -> None:
    for suite in suites:
        for entry in suite.expectations:
            for language in plain.LANGUAGES:
                told = plain.tell(entry, suite.name, language)
                texts = [told.title, told.sentence, told.rationale, told.owner]
                assert all(texts), entry.name
                assert told.sentence.endswith("."), entry.name
                for text in texts:
                    assert not {"{", "}", "  ", " ,", " .", "None"} & {
                        text[i : i + n] for n in (1, 2, 4) for i in range(len(text))
                    }, (entry.name, text)


def gates() -> set[str]:
    """Names of verdicts that the code makes without Great Expectations."""
    found = set()
    for file in [*ROOT.glob("spira_tasks/**/*.py"), *ROOT.glob("expectations/*.py")]:
        module = ast.parse(file.read_text())
        constants = {
            node.targets[0].id: node.value
            for node in module.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in ast.walk(module):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Verdict"):
                continue
            given = [keyword.value for keyword in node.keywords if keyword.arg == "name"]
            for value in given or node.args[:1]:
                known = constants.get(value.id) if isinstance(value, ast.Name) else value
                if isinstance(known, ast.Constant):
                    found.add(str(known.value))
    return found | {f"{metric}_floor" for metric in ("sensitivity", "specificity")}


def test_every_gate_is_told_in_both_languages() -> None:
    for language in plain.LANGUAGES:
        words = plain.load(language)
        lacking = gates() - set(words["gates"])
        assert not lacking, f"plain_{language}.json lacks the gates {sorted(lacking)}"
        for name in words["gates"]:
            told = plain.describe(name, language)
            assert all((told.title, told.sentence, told.rationale, told.owner)), name


def test_no_reason_is_translated_that_nobody_gives(suites: list[Suite]) -> None:
    given = {entry.rationale for suite in suites for entry in suite.expectations}
    assert set(plain.load("pt")["rationales"]) - given == set()


def test_both_languages_have_the_same_words() -> None:
    en, pt = plain.load("en"), plain.load("pt")
    assert set(en) == set(pt)
    for part in set(en) - {"rationales"}:  # in English the code's own words may do
        if isinstance(en[part], dict):
            assert set(en[part]) == set(pt[part]), part
    assert set(en["rationales"]) <= set(pt["rationales"])


def test_a_verdict_is_told_with_the_numbers_of_its_run() -> None:
    name = "expect_column_values_to_be_between(clipping_fraction, typical)"
    verdict = {"suite": "audio", "threshold": 0.15, "reason": "…"}
    assert plain.describe(name, "en", verdict).sentence == (
        "In at least 85 % of the recordings, the share of clipped samples (distorted because too "
        "loud) is 0.1 % or less."
    )
    assert plain.describe(name, "pt", verdict).sentence == (
        "Em pelo menos 85 % das gravações, a fração de amostras saturadas (distorcidas por excesso "
        "de volume) é de 0,1 % ou menos."
    )


def test_a_gate_is_told_with_its_limit() -> None:
    verdict = promotion.compare(
        {
            "champion": 3,
            "gain": {"value": 0.1, "low": 0.0, "high": 0.2},
            "confidence": 0.9,
            "sensitivity_loss": 0.0,
            "n_subjects": 40,
        }
    )
    told = plain.describe(verdict.name, "pt", {"threshold": verdict.threshold})
    assert told.sentence.endswith("(limite: 80 %).")
    assert "limite" not in plain.describe(verdict.name, "pt").sentence


def test_a_column_of_a_hospital_is_told_by_its_name() -> None:
    (name,) = (
        name for suite, name in catalogue.committed() if suite == "metadata" and "x_extra" in name
    )
    told = plain.describe(name.replace("x_extra", "x_shift"), "pt", {"suite": "metadata"})
    assert "x_shift" in told.sentence
    assert "x_extra" not in told.sentence + told.title


def test_a_feature_that_the_catalogue_does_not_list_is_told_as_its_kind_is() -> None:
    """Which features are compared, a run decides."""
    told = plain.describe("expect_feature_to_be_as_before(resp_rate)", "pt", {"suite": "drift"})
    assert "“frequência respiratória”" in told.sentence
    unknown = "expect_feature_to_be_as_before(shoe_size)"
    assert plain.describe(unknown, "pt", {"suite": "drift"}).title == unknown


def test_a_name_of_long_ago_is_told_by_the_reason_of_its_verdict() -> None:
    verdict = Verdict("expect_nothing(age)", "warn", reason="2 of 9 rows are unexpected in age")
    told = plain.describe(verdict.name, "pt", {"reason": verdict.reason})
    assert told == plain.Plain(verdict.name, verdict.reason, "", "")


def test_words_need_no_great_expectations() -> None:
    """Pages of reports are made where it is not loaded."""
    code = (
        "import sys; from expectations import plain; "
        "name = 'expect_column_values_to_be_between(age, possible)'; "
        "assert plain.describe(name, 'pt').rationale; "
        "sys.exit(' '.join({'great_expectations', 'pandas'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def entry(**changes: object) -> Entry:
    given = {
        "name": "n",
        "type": "t",
        "columns": ("age",),
        "parameters": {"mostly": 0.9, "max_value": 9},
        "severity": "critical",
        "action": "block",
        "rationale": "why",
        "owner": "who",
        "aspect": "",
    }
    return Entry(**(given | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"severity": "warning"}, ("severity", "critical", "warning")),
        ({"action": "annotate"}, ("action", "block", "annotate")),
        ({"rationale": "because"}, ("rationale", "why", "because")),
        ({"parameters": {"mostly": 0.9, "max_value": 8}}, ("max_value", "9", "8")),
        ({"parameters": {"mostly": 0.8, "max_value": 9}}, ("mostly", "0.9", "0.8")),
    ],
)
def test_a_difference_says_what_changed(
    changes: dict[str, object], expected: tuple[str, str, str]
) -> None:
    before, after = ([Suite("s", "1", "sha256:0", (one,))] for one in (entry(), entry(**changes)))
    (change,) = catalogue.diff(before, after)
    assert (change.what, change.before, change.after) == expected
    assert catalogue.diff(before, before) == []


def test_a_difference_says_what_came_and_went() -> None:
    before = [Suite("s", "1", "sha256:0", (entry(),))]
    after = [Suite("s", "1", "sha256:0", (entry(name="m"),))]
    assert [(c.name, c.what) for c in catalogue.diff(before, after)] == [
        ("m", "added"),
        ("n", "removed"),
    ]


def test_what_follows_the_table_is_left_out_where_the_tables_differ() -> None:
    before, after = (
        [Suite("s", "1", "sha256:0", (entry(parameters={"mostly": share}),))]
        for share in (0.9, 0.8)
    )
    assert catalogue.diff(before, after, of_one_table=False) == []
