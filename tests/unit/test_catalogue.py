"""People who read no code can read every expectation and every gate, in two languages."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from expectations import document
from expectations.words import LANGUAGES, Language, texts
from expectations.words import verdicts as words_of_verdicts
from expectations.words.catalogue import COMMITTED, Entry, Suite, committed, from_json, to_json
from expectations.words.suites import describe, title_of_reason
from expectations.words.verdicts import describe_gate, description
from spira_tasks import quality
from spira_tasks.contract.verdict import Verdict
from spira_tasks.suites import current, diff, template

ROOT = Path(__file__).parents[2]
AGAIN = "\nmake document, and look at the changes"


@pytest.fixture(scope="module")
def suites() -> list[Suite]:
    return current()


def test_the_committed_catalogue_is_that_of_the_code(suites: list[Suite]) -> None:
    changes = diff(list(from_json(COMMITTED.read_text())), suites)
    assert to_json(suites) == COMMITTED.read_text(), f"{changes[:5]}{AGAIN}"


@pytest.mark.parametrize(
    ("language", "name"), [("en", "expectations.md"), ("pt", "expectations.pt.md")]
)
def test_the_pages_are_those_of_the_code(
    suites: list[Suite], language: Language, name: str
) -> None:
    assert document.page(suites, language) == (ROOT / "docs" / name).read_text(), AGAIN


def test_every_column_of_the_template_is_filled() -> None:
    assert not template().isna().any().any()


def test_the_catalogue_has_every_expectation_that_a_gate_tells(suites: list[Suite]) -> None:
    """By the names that verdicts have: a run is explained by the catalogue."""
    from expectations.suites import audio

    table = template(40)
    made = {verdict.id for verdict in quality.check(table, audio.suite(table)).verdicts}
    (listed,) = (suite for suite in suites if suite.name == "audio")
    assert made == {entry.name for entry in listed.expectations}


def test_every_expectation_says_why_and_who_answers(suites: list[Suite]) -> None:
    silent = [
        (suite.name, entry.name)
        for suite in suites
        for entry in suite.expectations
        if not (entry.rationale and entry.owner)
    ]
    assert silent == []


def missing_texts() -> list[str]:
    """Keys that expectations of the committed catalogue need and the texts lack."""
    missing = []
    for (suite, name), entry in committed().items():
        try:
            for language in LANGUAGES:
                describe(entry, suite, language)
        except KeyError as error:
            missing.append(f"{error.args[0]} ({suite}: {name})")
    return missing


def test_every_expectation_has_words_in_both_languages() -> None:
    assert missing_texts() == []


def test_a_missing_text_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(texts(), "rationale.no consent, no use")
    assert any(text.startswith("rationale.no consent, no use") for text in missing_texts())


def test_no_two_expectations_of_a_suite_read_alike(suites: list[Suite]) -> None:
    for suite in suites:
        for language in LANGUAGES:
            reported = [describe(e, suite.name, language).sentence for e in suite.expectations]
            assert sorted(reported) == sorted(set(reported)), (suite.name, language)


def test_no_sentence_has_a_hole(suites: list[Suite]) -> None:
    for suite in suites:
        for entry in suite.expectations:
            for language in LANGUAGES:
                reported = describe(entry, suite.name, language)
                texts = [reported.title, reported.sentence, reported.rationale, reported.owner]
                assert all(texts), entry.name
                assert reported.sentence.endswith("."), entry.name
                for text in texts:
                    assert not {"{", "}", "  ", " ,", " .", "None"} & {
                        text[i : i + n] for n in (1, 2, 4) for i in range(len(text))
                    }, (entry.name, text)


def gates() -> set[str]:
    """Names of verdicts that the code makes without Great Expectations."""
    found = set()
    packages = ("spira_tasks/**", "spira_services/**", "expectations")
    for file in [file for package in packages for file in ROOT.glob(f"{package}/*.py")]:
        module = ast.parse(file.read_text())
        constants = {
            node.targets[0].id: node.value
            for node in module.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in ast.walk(module):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Verdict"):
                continue
            given = [keyword.value for keyword in node.keywords if keyword.arg == "id"]
            for value in given or node.args[:1]:
                known = constants.get(value.id) if isinstance(value, ast.Name) else value
                if isinstance(known, ast.Constant):
                    found.add(str(known.value))
    return found | {f"{metric}_floor" for metric in ("sensitivity", "specificity")}


def test_every_gate_has_words_in_both_languages() -> None:
    assert gates() <= set(words_of_verdicts.gates())
    for language in LANGUAGES:
        for name in words_of_verdicts.gates():
            assert all(vars(describe_gate(name, language)).values()), name


def test_no_reason_is_translated_that_nobody_gives(suites: list[Suite]) -> None:
    given = {entry.rationale for suite in suites for entry in suite.expectations}
    translated = {key.partition(".")[2] for key in texts() if key.startswith("rationale.")}
    assert translated == given


def test_an_expectation_is_described_with_the_numbers_of_its_run() -> None:
    name = "expect_column_values_to_be_between(clipping_fraction, typical)"
    verdict = Verdict(name, "pass", threshold=0.15, suite="audio")
    described = {language: description(verdict, language) for language in LANGUAGES}
    assert described["en"] is not None
    assert described["en"].sentence == (
        "In at least 85 % of the recordings, the share of clipped samples (distorted because too "
        "loud) is 0.1 % or less."
    )
    assert described["pt"] is not None
    assert described["pt"].sentence == (
        "Em pelo menos 85 % das gravações, a fração de amostras saturadas (distorcidas por excesso "
        "de volume) é de 0,1 % ou menos."
    )


def test_a_column_of_a_hospital_is_described_by_its_name() -> None:
    (name,) = (name for suite, name in committed() if suite == "metadata" and "x_extra" in name)
    entry = committed()["metadata", name]
    own = Verdict(
        name.replace("x_extra", "x_shift"), "pass", suite="metadata",
        kind=entry.type, columns=("x_shift",), aspect=entry.aspect,
    )  # fmt: skip
    described = description(own, "pt")
    assert described is not None
    assert "x_shift" in described.sentence
    assert "x_extra" not in described.sentence + described.title


def test_a_feature_that_the_catalogue_does_not_list_is_described_as_its_kind_is() -> None:
    """Which features are compared, a run decides."""
    kind = "expect_feature_to_be_as_before"
    verdict = Verdict(
        f"{kind}(resp_rate)", "warn", suite="drift", kind=kind, columns=("resp_rate",)
    )
    described = description(verdict, "pt")
    assert described is not None
    assert "“frequência respiratória”" in described.sentence
    unknown = replace(verdict, id=f"{kind}(shoe_size)", columns=("shoe_size",))
    assert description(unknown, "pt") is None


def test_a_reason_of_the_quarantine_is_described_by_its_expectation() -> None:
    assert title_of_reason("expect_column_values_to_be_between:age", "en").startswith("Age")
    assert title_of_reason("expect_nothing:age", "en") == "expect_nothing:age"


def test_words_need_babel_and_the_contract_only() -> None:
    """Airflow's image has nothing else of ours."""
    code = (
        "import sys; from expectations.words import verdicts; "
        "name = 'expect_column_values_to_be_between(age, possible)'; "
        "from spira_tasks.contract.verdict import Verdict; "
        "assert verdicts.sentence(Verdict(name, 'warn'), 'pt'); "
        "allowed = ('spira_tasks.contract', 'expectations.words'); "
        "ours = {n for n in sys.modules if n.startswith(('spira_tasks.', 'expectations.'))}; "
        "others = {n for n in ours if not n.startswith(allowed)}; "
        "sys.exit(' '.join(others | {'great_expectations', 'pandas'} & set(sys.modules)) or 0)"
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
    (change,) = diff(before, after)
    assert (change.what, change.before, change.after) == expected
    assert diff(before, before) == []


def test_a_difference_says_what_came_and_went() -> None:
    before = [Suite("s", "1", "sha256:0", (entry(),))]
    after = [Suite("s", "1", "sha256:0", (entry(name="m"),))]
    assert [(c.name, c.what) for c in diff(before, after)] == [("m", "added"), ("n", "removed")]


def test_what_follows_the_table_is_left_out_where_the_tables_differ() -> None:
    before, after = (
        [Suite("s", "1", "sha256:0", (entry(parameters={"mostly": share}),))]
        for share in (0.9, 0.8)
    )
    assert diff(before, after, of_one_table=False) == []
