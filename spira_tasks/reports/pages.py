"""The pages of the governance site, from the facts of a run.

Every page is one file with its style and its charts, in Portuguese and in English.  The words are
in ``expectations.words``, the layout in ``templates``.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup

from expectations import plan
from expectations.words import LANGUAGES, UNKNOWN, Language, Words
from expectations.words import verdicts as in_words
from spira_tasks.contract.place import COMMAND, LAPTOP
from spira_tasks.contract.verdict import Verdict
from spira_tasks.intake.record_contract import COLUMNS
from spira_tasks.reports import charts, documents, figures, sentences, tripod
from spira_tasks.reports.documents import SECTIONS, Kind
from spira_tasks.reports.facts import (
    Change,
    Evaluation,
    Intake,
    ModelFacts,
    RunFacts,
    RunSummary,
    Tally,
    by_suite,
    setting,
    tone,
)
from spira_tasks.reports.questions import OF_MODEL, by_question
from spira_tasks.reports.tables import MIN_SLICE

PAGES = ("overview", "verdict", "data", "datasheet", "model-card", "provenance", "experiments")
INDEX = "index.html"  # the overview in Portuguese
N_COMPARED = 6  # runs side by side in the table of suites
HERE = Path(__file__).parent
Context = dict[str, Any]


def render(
    facts: RunFacts,
    runs: Sequence[RunSummary],
    folder: Path,
    *,
    links_to_runs: bool = True,
    pack: str = "",
    built_at: str = "",
) -> list[str]:
    """Write the pages of a run into an existing folder; return the names of the files.

    Parameters
    ----------
    links_to_runs : bool
        Whether to link to the sites of other runs, as ``../<run_id>/<file>``: the platform serves
        them there, and the pack of a single run lacks them.
    pack : str
        Address of the site as one file; empty for no link.
    built_at : str
        UTC, ISO 8601; now, by default.
    """
    built_at = built_at or datetime.now(UTC).isoformat(timespec="seconds")
    contexts: Mapping[str, Callable[[Words], Context]] = {
        "overview": lambda t: _overview(t, facts, runs, links_to_runs),
        "verdict": lambda t: _verdict(t, facts),
        "data": lambda t: _data(t, facts),
        "datasheet": lambda t: _datasheet(t, facts),
        "model-card": lambda t: _model_card(t, facts),
        "provenance": lambda t: _provenance(t, facts),
        "experiments": lambda t: {"experiments": [_experiment(t, e) for e in facts.experiments]},
    }
    names = []
    for language in LANGUAGES:
        t = Words(language)
        for page in PAGES:
            context = contexts[page](t) | {"pack": pack}
            template = charts.environment().get_template(f"{page}.html")
            text = template.render(
                t=t,
                language=language,
                other_language=next(other for other in LANGUAGES if other != language),
                page=page,
                pages=PAGES,
                title=t(f"title.{page}"),
                facts=facts,
                name=sentences.name_of(t, facts),
                command=COMMAND,
                built_at=built_at,
                waived=sentences.waived(t, facts),
                signed=sentences.signed(t, facts),
                **context,
            )
            is_first = (page, language) == (PAGES[0], LANGUAGES[0])
            for name in [f"{page}.{language}.html", *([INDEX] if is_first else [])]:
                (folder / name).write_text(text, encoding="utf-8")
                names.append(name)
    return sorted(names)


def _overview(
    t: Words, facts: RunFacts, runs: Sequence[RunSummary], links_to_runs: bool
) -> Context:
    newest: Sequence[RunSummary] = runs[::-1][:N_COMPARED]
    suites = dict.fromkeys(suite for run in newest for suite in run.by_suite)
    return {
        "in_use": sentences.in_use(t, facts),
        "runs": [(sentences.name_of(t, run), run) for run in runs[::-1]],
        "newest": newest,
        "suites": list(suites),
        "figures": figures.of_runs(t, runs),
        "links_to_runs": links_to_runs,
    }


def _verdict(t: Words, facts: RunFacts) -> Context:
    evaluation, gates = facts.evaluation, by_question(facts)
    of_gates = {one.id for verdicts in gates.values() for one in verdicts}
    return {
        "headline": sentences.headline(t, facts),
        "gates": [
            (question, t(f"question.{question}"), [_gate_row(t, facts, one) for one in verdicts])
            for question, verdicts in gates.items()
        ],
        "evaluation": evaluation,
        "words": sentences.in_words(t, evaluation) if evaluation else [],
        "figures": figures.of_evaluation(t, evaluation) if evaluation else [],
        "numbers": figures.evaluation_table(t, evaluation) if evaluation else None,
        "warnings": sentences.warnings(t, facts, but=of_gates),
        "who": _who(t, facts),
    }


def _who(t: Words, facts: RunFacts) -> list[tuple[str, str]]:
    model = facts.model
    version = t("who.version", name=model.name, version=model.version) if model else None
    pairs = [
        ("triggered_by", facts.triggered_by or UNKNOWN),
        ("started", t.instant(facts.started_at)),
        ("finished", t.instant(facts.finished_at)),
        ("model", version or t("who.no_model")),
    ]
    if model:
        pairs.append(("aliases", _roles(t, model)))
    pairs.append(("owner", sentences.owner(t, facts, t("owner.clinical lead"), "policy")))
    pairs.append(("code", facts.provenance["git"] or UNKNOWN))
    return [(t(f"who.{name}"), value) for name, value in pairs]


def _roles(t: Words, model: ModelFacts) -> str:
    """The aliases of a version, as the registry answered."""
    if model.aliases is None:
        return t("unknown")
    return ", ".join(t.name("alias", one) for one in model.aliases) or t("none")


def _data(t: Words, facts: RunFacts) -> Context:
    intake, refused = facts.intake, facts.quarantine
    tables = (
        (
            (refused.by_reason, "by-reason", ""),
            (refused.by_site, "by-site", t("refused.site")),
            (refused.by_site_and_reason, "by-site-reason", ""),
        )
        if refused
        else ()
    )
    drift = [one for one in facts.checks if one.suite == "drift"]
    return {
        "intake": _intake(t, intake),
        "by_task": figures.of_counts(t, intake.by_task, "by-task") if intake else None,
        "quarantine": [
            figures.of_counts(t, counts, name, title) for counts, name, title in tables if counts
        ],
        "refused_by_step": [
            (t.name("step", step), t.count(n))
            for step, n in (refused.n_by_step.items() if refused else ())
        ],
        "composition": [
            figures.of_counts(t, counts, "composition-" + "-".join(counts.by))
            for counts in facts.composition
        ],
        "signal": figures.of_signal(t, facts.signal_quality),
        "drift": figures.of_drift(t, drift),
        "suites": list(_suites(t, facts)),
        "releases": [
            (in_words.reason(one.reason or UNKNOWN, t.language), one.why, one.by, t.instant(one.at))
            for one in facts.releases
        ],
    }


def _intake(t: Words, intake: Intake | None) -> list[tuple[str, str]]:
    if intake is None:
        return []
    counts = [name for name in vars(intake) if name.startswith("n_")]
    pairs = [(t(f"intake.{name}"), t.count(getattr(intake, name))) for name in counts]
    return [*pairs, (t("intake.hours_of_audio"), t.number(intake.hours_of_audio, 1))]


def _suites(t: Words, facts: RunFacts) -> Iterator[Context]:
    """The checks of the data; those of the model are on the verdict page."""
    of_data = {step: found for step, found in facts.verdicts.items() if step not in OF_MODEL}
    for suite, found in by_suite(of_data).items():
        rows = [_verdict_row(t, facts, one) for one in found]
        tones = {row["tone"] for row in rows}
        yield {
            "title": t.name("suite", suite),
            "worst": next(one for one in ("block", "warn", "pass") if one in tones),
            "tally": Tally.of(found),
            "notable": [row for row in rows if row["tone"] != "pass"],
            "passed": [row for row in rows if row["tone"] == "pass"],
        }


def _verdict_row(t: Words, facts: RunFacts, verdict: Verdict) -> Context:
    language = t.language
    part = "policy" if t.has(f"gate.{verdict.id}.expected") else "suites"
    gate = UNKNOWN if verdict.suite else t("severity.gate")
    return {
        "title": in_words.title(verdict, language),
        "details": in_words.description(verdict, language),
        "found": "" if verdict.status == "pass" else in_words.found(verdict, language),
        "tone": tone(verdict),
        "mark": in_words.mark(verdict, language),
        "waived_by": in_words.waived_by(verdict, language),
        "owner": sentences.owner(t, facts, in_words.owner(verdict, language), part),
        "severity": t(f"severity.{verdict.severity}") if verdict.severity else gate,
        "observed": in_words.observed(verdict, language),
        "limit": in_words.limit(verdict, language),
        "n": in_words.n(verdict, language),
    }


def _gate_row(t: Words, facts: RunFacts, verdict: Verdict) -> Context:
    """A gate of the model, with its sentence whatever it says."""
    return _verdict_row(t, facts, verdict) | {
        "sentence": in_words.sentence(verdict, t.language),
        "observed": in_words.estimate(verdict, t.language),
    }


def _datasheet(t: Words, facts: RunFacts) -> Context:
    return _document("datasheet", t, facts) | {
        "subject": facts.dataset.digest if facts.dataset else "",
        "headline": None,
        "intake": _intake(t, facts.intake),
        "steps": [
            (t.name("step", step.name), t(f"state.{step.state}"), step.code[:12], step.key[:12])
            for step in facts.steps
            if step.outputs
        ],
    }


def _model_card(t: Words, facts: RunFacts) -> Context:
    model, evaluation = facts.model, facts.evaluation
    settings = {**model.feature, **model.training} if model else {}
    return _document("model_card", t, facts) | {
        "subject": model.version if model else "",
        "headline": sentences.headline(t, facts) if model else None,
        "settings": [(name, setting(value)) for name, value in sorted(settings.items())],
        "roles": _roles(t, model) if model else "",
        "not_validated": list(not_validated_for(t, facts)),
        "numbers": figures.evaluation_table(t, evaluation) if evaluation else None,
        "slices": _slice_rows(t, facts),
        "tripod": [(one.item, one.about(t.language), _places(t, one)) for one in tripod.items()],
        "calibration": _calibration(t, evaluation),
        "measured": figures.of_measured(t, evaluation) if evaluation else [],
        "benefits": figures.benefits(t, evaluation) if evaluation else [],
        "explained": figures.explained(t, evaluation) if evaluation else [],
        "explained_check": figures.explained_check(t, evaluation) if evaluation else "",
        "explained_png": b64encode(evaluation.explained_png).decode() if evaluation else "",
        "checks": [
            (
                t.name("step", step),
                in_words.title(one, t.language),
                in_words.mark(one, t.language),
                in_words.sentence(one, t.language),
            )
            for step, found in facts.verdicts.items()
            for one in found
            if one.status != "pass"
        ],
    }


def _places(t: Words, item: tripod.Item) -> list[tuple[str, str, str]]:
    """Where an item is answered: link, words, and whether nobody wrote that yet."""
    places = []
    for place in item.where:
        page, _, section = place.partition("#")
        if place.startswith("docs/"):
            places.append(("", place, ""))
            continue
        words = t(f"page.{page}")
        key = f"{page.replace('-', '_')}.{section}"
        if page in {"datasheet", "model-card"}:
            words += f": {t(key)}"
        link = f"{page}.{t.language}.html" + (f"#{section}" if section else "")
        places.append((link, words, t("tripod.unwritten") if tripod.unwritten(place) else ""))
    return places


def _calibration(t: Words, evaluation: Evaluation | None) -> list[tuple[str, str]]:
    """How far the probabilities can be believed."""
    if evaluation is None or not evaluation.is_published:
        return []
    rows = [
        (t("model_card.ece"), t.number(evaluation.expected_calibration_error, 3)),
        (t("model_card.brier"), t.number(evaluation.brier_score, 3)),
    ]
    measured = evaluation.measured.get("calibration", {})
    for name in ("slope", "intercept"):
        if name in measured:
            one = measured[name]
            value = t.interval(one["value"], one["low"], one["high"])
            rows.append((t(f"calibration.{name}"), value))
    if "recalibration" in measured:
        applied = "yes" if measured["recalibration"]["applied"] else "no"
        rows.append((t("calibration.recalibrated"), t(f"calibration.recalibrated.{applied}")))
    return rows


def _document(kind: Kind, t: Words, facts: RunFacts) -> dict[str, Any]:
    """What the templates of both documents use."""
    split = facts.dataset.by_split if facts.dataset else None
    people = [
        figures.of_counts(t, counts, f"people-{'-'.join(counts.by)}", t(f"people.{by}"))
        for counts in [*([split] if split else []), *facts.composition]
        for by in ["_".join(counts.by)]
    ]
    return {
        "kind": kind,
        "sections": SECTIONS[kind],
        "parts": {section: _part(kind, section, t.language) for section in SECTIONS[kind]},
        "gaps": [],
        "where": t("document.write_it" if COMMAND == LAPTOP else "document.write_it.images"),
        "people": people,
        "by_split": people[:1] if split else [],
        "of_counts": partial(figures.of_counts, t),
    }


def _part(kind: Kind, section: str, language: Language) -> tuple[Markup, str]:
    """The text that people wrote for a section, and its path where the language lacks it.

    A text that the language lacks is shown in the other one.
    """
    ordered = sorted(LANGUAGES, key=lambda one: one != language)
    texts = {one: documents.text(kind, section, one) for one in ordered}
    path = f"docs/governance/{kind}/{section}.{language}.md"
    text = next(filter(None, texts.values()), "")
    return markdown(text), "" if texts[language] else path


def markdown(text: str) -> Markup:
    """Convert to HTML without raw HTML, links and pictures; headings become h3."""
    reader = MarkdownIt("commonmark", {"html": False})
    reader.enable("table").disable(["link", "image", "autolink", "html_inline", "html_block"])
    tokens = reader.parse(text)
    for token in tokens:
        if token.type in {"heading_open", "heading_close"}:
            token.tag = "h3"
    rendered: str = reader.renderer.render(tokens, reader.options, {})
    return Markup(rendered)  # noqa: S704  (the reader escapes what is not Markdown)


def not_validated_for(t: Words, facts: RunFacts) -> Iterator[str]:
    """What the evaluation says nothing about, a sentence each."""
    if facts.evaluation is None:
        yield t("not_validated.anything")
        return
    if facts.synthetic:
        yield t("not_validated.people")
    task = str(facts.model.training.get("task", "")) if facts.model else ""
    others = ", ".join(t.name("task", name) for name in COLUMNS["task"].values if name != task)
    yield t("not_validated.tasks", task=t.name("task", task), others=others)
    for by, groups in sentences.too_few(facts).items():
        names = ", ".join(sentences.group_name(t, by, group) for group in groups)
        yield t("not_validated.groups", by=t(f"by.{by}").lower(), groups=names, n=MIN_SLICE)
    yield t("not_validated.elsewhere")


def _slice_rows(t: Words, facts: RunFacts) -> list[tuple[str, ...]]:
    """Groups of test subjects, their sizes and rates."""
    return [
        (
            f"{t(f'by.{one.by}')}: {sentences.group_name(t, one.by, one.group)}",
            t.cell(one.n_patients),
            t.cell(one.n_controls),
            *(
                t.interval(rate.value, rate.low, rate.high)
                if rate
                else t("model_card.insufficient")
                for rate in (one.sensitivity, one.specificity)
            ),
        )
        for one in (facts.evaluation.slices if facts.evaluation else ())
    ]


def _provenance(t: Words, facts: RunFacts) -> Context:
    made, model = facts.provenance, facts.model
    agreed = plan.read().plan
    pairs = [
        ("git", made["git"]),
        ("lock", made["lock"]),
        ("image", made["image"] or t("provenance.no_image")),
        ("python", made["python"]),
    ]
    if model:
        pairs += [("classifier", model.classifier), ("mlflow", model.mlflow_run)]
    digests = []
    for step in facts.steps:
        if step.key:
            digests.append((step.name, t("provenance.key"), step.key))
        if step.code:
            digests.append((step.name, t("provenance.code"), step.code))
        digests += [(step.name, name, digest) for name, digest in sorted(step.outputs.items())]
    configs = {"materialize": model.feature, "train": model.training} if model else {}
    settings = [
        (f"{step}.{name}", setting(value))
        for step, config in configs.items()
        for name, value in sorted(config.items())
    ]
    return {
        "made_with": [(t(f"provenance.{name}"), value or UNKNOWN) for name, value in pairs],
        "plan": agreed,
        "changes": [
            (
                t(f"plan.{name}"),
                [f"{one}: {_rule(t, rule)}" for one, rule in change.settings.items()],
                ", ".join(t(f"gate.{gate}.title") for gate in change.evidence),
                t(f"plan.rollback.{change.rollback}"),
            )
            for name, change in agreed.changes.items()
        ],
        "fixed": [(name, _rule(t, rule)) for name, rule in agreed.fixed.items()],
        "digests": digests,
        "settings": settings,
        "since": [_change(t, one) for one in facts.since.changes] if facts.since else [],
    }


def _rule(t: Words, rule: plan.Rule) -> str:
    """What a setting may be."""
    if isinstance(rule, plan.Range):
        return t("plan.range", low=t.digits(rule.low), high=t.digits(rule.high))
    if rule == "any":
        return t("plan.any")
    return ", ".join(setting(one) if one else t("plan.not_set") for one in rule)


def _experiment(t: Words, found: Mapping[str, Any]) -> Context:
    metric = found["metric"]
    people = (found[name] for name in ("n_subjects", "n_patients", "n_controls"))
    arms = {arm["name"]: t.name("arm", arm["name"]) for arm in found["arms"]}
    return {
        "name": found["name"],
        "question": found["question"],
        "synthetic": found["synthetic"],
        "optimistic": found["optimistic"],
        "about": [
            (t("experiments.owner"), found["owner"]),
            (t("experiments.ends"), t.day(found["ends"])),
            (t("experiments.people"), "; ".join(map(t.count, people))),
        ],
        "figures": figures.of_experiment(t, found),
        "costs": [
            (
                arms[arm["name"]],
                "; ".join(f"{s}: {t.number(v, 3)}" for s, v in arm.get("seeds", {}).items()),
                UNKNOWN if arm.get("spread") is None else t.number(arm["spread"], 3),
                str(arm.get("median_seed", UNKNOWN)),
                "; ".join(_published(t, *one) for one in arm["published"].items()) or UNKNOWN,
                t.duration(arm["costs"]["cpu_seconds"]),
                t.duration(arm["costs"]["gpu_seconds"]),
                t.number(arm["n_failed"], 0),
            )
            for arm in found["arms"]
        ],
        "pairs": [
            (
                f"{arms[pair['second']]} − {arms[pair['first']]}",
                t.interval(*(pair["differences"][metric][end] for end in ("value", "low", "high"))),
                t.digits(pair["n_only_second_right"]),
                t.digits(pair["n_only_first_right"]),
                t.digits(pair["p"], 2),
                t.digits(pair["p_holm"], 2),
            )
            for pair in found["pairs"]
        ],
        "metric": t(f"metric.{metric}"),
    }


def _published(t: Words, name: str, value: float) -> str:
    metric, _, of_controls = name.partition("_noise_")
    where = f" ({t(f'condition.noise_{of_controls}')})" if of_controls else ""
    return f"{t(f'metric.{metric}')}{where} {t.number(value, 2)}"


def _change(t: Words, one: Change) -> tuple[str, str, str]:
    before, now = (
        value or UNKNOWN if isinstance(value, str) else t.count(value)
        for value in (one.before, one.now)
    )
    same = one.before == one.now and bool(one.now)  # two hidden counts need not be the same
    what = t(f"since.{one.what}", name=t.name("step", one.name))
    return what, before, t("since.same") if same else now
