"""The few pages that are made while they are asked for: of a run without a report, and of a step.

They show what the records of steps hold: states, verdicts, reasons and counts, the small ones in
words, and no value of a patient.  In English and in Portuguese, without a script.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any
from urllib.parse import quote

from spira_records import explanation, summary

from expectations.words import Language
from expectations.words import verdicts as words
from spira_tasks.contract.verdict import Verdict

MESSAGES = {
    "login": ("Please log in to Airflow.", "Entre no Airflow."),
    "forbidden": (
        "You may not read the runs of spira_continuous_training. Ask whoever manages Airflow's "
        "users for a role that may.",
        "Você não pode ler as execuções de spira_continuous_training. Peça uma função que possa a "
        "quem administra os usuários do Airflow.",
    ),
    "not_found": (
        "There is nothing here: no run of this store has left this page. A step leaves its verdict "
        "when it ends.",
        "Não há nada aqui: nenhuma execução deixou esta página. Uma etapa deixa seu veredito ao "
        "terminar.",
    ),
    "no_report": (
        "There is no report yet. One is made at the end of every run of spira_continuous_training; "
        "the DAG spira_governance_report makes one of an older run.",
        "Ainda não há relatório. Um é feito ao fim de cada execução de spira_continuous_training; "
        "o DAG spira_governance_report faz o de uma execução anterior.",
    ),
    "away": (
        "The store does not answer. Try again in a minute; if that does not help, ask the "
        "platform's operators.",
        "O armazenamento não responde. Tente de novo em um minuto; se não adiantar, avise quem "
        "opera a plataforma.",
    ),
    "damaged": (
        "A file of this report is missing or damaged and is not shown. Run the DAG "
        "spira_governance_report again; if that does not help, restore the store from a backup.",
        "Um arquivo deste relatório falta ou está danificado e não é mostrado. Execute o DAG "
        "spira_governance_report de novo; se não adiantar, restaure o armazenamento de uma cópia.",
    ),
}
VERDICTS = {
    "block": ("blocked", "bloqueado"),
    "warn": ("passed with warnings", "aprovado com avisos"),
    "pass": ("passed", "aprovado"),
}
STATES = {
    "done": ("done", "concluída"),
    "blocked": ("blocked the run", "bloqueou a execução"),
    "failed": ("failed", "falhou"),
    "": ("has not finished", "não terminou"),
}
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;
color:#1b1f24;background:#fff}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.4rem .6rem;
border-bottom:1px solid #d0d7de;vertical-align:top}
[lang=pt]{color:#57606a}.block{color:#a40e26;font-weight:600}.warn{color:#7a4d00;font-weight:600}
.pass{color:#116329;font-weight:600}
"""


def message(name: str, detail: str = "") -> str:
    """A page with one of ``MESSAGES`` and, below it, what an operator needs to know."""
    english, portuguese = MESSAGES[name]
    technical = f"<p><small>{escape(detail)}</small></p>" if detail else ""
    return _page("SPIRA", f'<p>{english}</p><p lang="pt">{portuguese}</p>{technical}')


def run_page(run_id: str, records: Mapping[str, Mapping[str, Any] | None]) -> str:
    """What the steps of a run have said so far: ``records`` by step, None for one to come."""
    rows = "".join(
        f"<tr><td>{_step(run_id, name, record)}</td><td>{_state(record)}</td>"
        f"<td>{_verdict(record)}</td><td>{_reasons(record)}</td></tr>"
        for name, record in records.items()
    )
    english, portuguese = MESSAGES["no_report"]
    return _page(
        f"Run {run_id}",
        f'<p>{english}</p><p lang="pt">{portuguese}</p>'
        f"<table><tr><th>Step<th>State<th>Verdict<th>Reason</tr>{rows}</table>",
    )


def step_page(run_id: str, name: str, record: Mapping[str, Any]) -> str:
    """The verdict of a step, its counts, and what did not hold."""
    verdicts = [Verdict.from_dict(one) for one in record.get("verdicts", ())]
    held = [one for one in verdicts if one.status == "pass"]
    rows = "".join(
        f'<tr><td class="{"block" if one.stops else "warn"}">{_both(words.mark, one)}</td>'
        f"<td>{_both(words.title, one)}<br><code>{escape(one.id)}</code><br>"
        f"<small>{escape(one.suite)}</small></td>"
        f"<td>{_both(words.sentence, one)}</td></tr>"
        for one in verdicts
        if one.status != "pass"
    )
    table = f"<table><tr><th>Verdict<th>Check<th>Reason</tr>{rows}</table>" if rows else ""
    passed = "".join(
        f"<li>{_both(words.title, one)}<br><code>{escape(one.id)}</code></li>" for one in held
    )
    passed = (
        f"<details><summary>{len(held)} passed / aprovadas</summary><ul>{passed}</ul></details>"
    )
    link = f"../../runs/{quote(run_id, safe='')}/"
    return _page(
        name,
        f"<p>{_state(record)}. {_verdict(record)}</p>"
        f"{'' if verdicts else f'<p>{_reasons(record)}</p>'}{table}{passed if held else ''}"
        f'<p><a href="{link}">The whole run / A execução inteira</a></p>',
    )


def _step(run_id: str, name: str, record: Mapping[str, Any] | None) -> str:
    if record is None:
        return escape(name)
    return (
        f'<a href="../../tasks/{quote(run_id, safe="")}/{quote(name, safe="")}">{escape(name)}</a>'
    )


def _both(words: Callable[[Verdict, Language], str], verdict: Verdict) -> str:
    """Words of a verdict in both languages, the second marked."""
    english, portuguese = (escape(words(verdict, language)) for language in ("en", "pt"))
    if english == portuguese:
        return english
    return f'{english} / <span lang="pt">{portuguese}</span>'


def _state(record: Mapping[str, Any] | None) -> str:
    english, portuguese = STATES[(record or {}).get("state", "")]
    return f'{english} / <span lang="pt">{portuguese}</span>'


def _verdict(record: Mapping[str, Any] | None) -> str:
    found = summary(record or {})
    if not found:
        return ""
    english, portuguese = VERDICTS[found["verdict"]]
    return (
        f'<span class="{found["verdict"]}">{english} / {portuguese}</span>: '
        f"{found['n_blocked']} blocking, {found['n_warnings']} warnings, "
        f"{found['n_passed']} passed"
    )


def _reasons(record: Mapping[str, Any] | None) -> str:
    return "<br>".join(map(escape, explanation(record or {}).splitlines()))


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{body}</body></html>"
    )
