"""``labels``: what is done beside the page for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from spira_services.commands import counted, share_of, text_of, with_role
from spira_services.database import now, opened
from spira_tasks.contract.verdict import few_or
from spira_tasks.errors import ConfigError

app = typer.Typer(name="labels", help="Labels, beside the page for them.", no_args_is_help=True)


@app.command("weak")
def weak_labels() -> None:
    """Label all sessions by rules of thumb, weakly: to learn from, never to measure on.

    Example:  python -m spira_services labels weak
    """
    from spira_services import labelling, server
    from spira_services.labels import weak
    from spira_services.labels.policy import settled

    with opened() as engine, engine.begin() as connection:
        labelling.OfCollection(server.audio()).prepare(connection)
        of_people = [s for s in settled(connection, now()) if s.label_source == "clinician"]
        gold = {label.session_id: label.ri_clinical for label in of_people}
        found = weak.renew(connection, labelling.facts(connection), gold)
    print(
        f"{few_or(found.n_sessions)} sessions, {few_or(found.n_abstained)} of them without a "
        f"label; {few_or(found.n_new)} new or changed\n"
        f"{'rule':12} {'version':>7} {'coverage':>9} {'overlaps':>9} {'conflicts':>9} "
        f"{'estimated':>9} {'by people':>9}"
    )
    for row in found.functions:
        shares = [(row.coverage, row.n_sessions), (row.overlaps, row.n_sessions)]
        shares += [(row.conflicts, row.n_sessions), (row.estimated_accuracy, row.n_sessions)]
        shares += [(row.gold_accuracy, row.n_gold)]
        cells = [share_of(value, n) for value, n in shares]
        print(f"{row.name:12} {row.version:>7} " + " ".join(f"{cell:>9}" for cell in cells))


@app.command("relabel")
def relabel(
    predictions: Annotated[
        list[Path] | None,
        typer.Option(help="predictions.parquet of an evaluation, or several; repeatable."),
    ] = None,
) -> None:
    """Have an adjudicator look again at labels that vital signs or a model speak against.

    Example:  python -m spira_services labels relabel --predictions predictions.parquet
    """
    from spira_services import labelling, server
    from spira_services.labels import suspects
    from spira_services.labels.assignment import Reason
    from spira_services.labels.policy import settled

    with opened() as engine, engine.begin() as connection:
        labelling.OfCollection(server.audio()).prepare(connection)
        held = {one.session_id: one.ri_clinical for one in settled(connection, now())}
        known = {one: facts for one, (_, facts) in labelling.facts(connection).items()}
        found: dict[Reason, set[str]] = {"signs": suspects.by_signs(held, known)}
        if predictions:
            scores = labelling.scores(connection, predictions)
            found["model"] = suspects.by_model(held, scores)
        for reason, sessions in found.items():
            n_new = suspects.ask_again(connection, sessions, held, reason)
            print(f"{reason}: {few_or(len(sessions))} suspects, {few_or(n_new)} asked anew")


@app.command("gold")
def make_gold(
    session_id: Annotated[str, typer.Argument(help="Of a session that was adjudicated.")],
    adjudicator: Annotated[str, typer.Option(help="Name of the person who asks.")],
) -> None:
    """Give a session whose answer is known to all who label, unannounced, now and then.

    Example:  python -m spira_services labels gold 7c9e6679-7425-40de-944b-e07fc1f90ae7
    --adjudicator eva
    """
    from spira_services.labels import assignment

    with opened() as engine, engine.begin() as connection:
        person = with_role(connection, adjudicator, "adjudicator")
        try:
            assignment.make_gold(connection, person, "session", session_id)
        except assignment.NotAllowed as error:
            raise ConfigError(f"{error}; choose a session that an adjudicator settled") from None
    print("given to all who label, now and then")


ClinicianName = Annotated[str, typer.Argument(help="By which the person signs in.")]
HowMany = Annotated[int, typer.Option("--sessions", help="How many wait there at most.", min=1)]


@app.command("studio-export")
def studio_export(
    name: ClinicianName,
    file: Annotated[Path, typer.Argument(help="JSON file to write, for Label Studio to import.")],
    audio_at: Annotated[
        str,
        typer.Option(help="Before a file of store A: s3://bucket/prefix/ or /data/local-files/?d="),
    ],
    sessions: HowMany = 20,
) -> None:
    """Give a clinician sessions to label in Label Studio, as a file of tasks.

    Example:  python -m spira_services labels studio-export rui tasks.json --audio-at s3://spira/
    """
    from spira_services import labelling, server
    from spira_services.labels import api, label_studio

    instruction = api.current_instruction()
    evidence = labelling.OfCollection(server.audio())
    with opened() as engine, engine.begin() as connection:
        person = with_role(connection, name, "clinician")
        given = label_studio.give(connection, person, evidence, instruction, sessions)
    tasks = [label_studio.task(one, instruction, audio_at) for one in given]
    file.write_text(json.dumps(tasks, indent=1))
    print(f"{few_or(len(tasks))} tasks in {file}")


@app.command("studio-import")
def studio_import(
    name: ClinicianName,
    file: Annotated[Path, typer.Argument(help="As Label Studio exports a project: JSON.")],
    user: Annotated[int, typer.Option(help="Id of the person in Label Studio.")],
) -> None:
    """Record what a clinician answered in Label Studio, from an exported file.

    Example:  python -m spira_services labels studio-import rui export.json --user 3
    """
    from spira_services.labels import label_studio

    try:
        exported = json.loads(text_of(file))
    except ValueError:
        raise ConfigError(f"{file} is no JSON; export the project as JSON") from None
    with opened() as engine, engine.begin() as connection:
        person = with_role(connection, name, "clinician")
        counts = label_studio.record(connection, person, label_studio.answers(exported, user))
    print(counted(counts))


@app.command("studio-sync")
def studio_sync(
    name: ClinicianName,
    address: Annotated[str, typer.Argument(help="Of Label Studio, e.g. https://studio.example")],
    email: Annotated[str, typer.Option(help="Of the person in Label Studio.")],
    token_file: Annotated[Path, typer.Option(help="Holds a personal access token.")],
    storage: Annotated[
        Path,
        typer.Option(help="JSON: audio_at, kind (s3, localfiles) and fields of the connection."),
    ],
    sessions: HowMany = 20,
    language: Annotated[str, typer.Option(help="pt or en.")] = "pt",
) -> None:
    """Put sessions for a clinician into Label Studio, and record what they answered there.

    Example:  python -m spira_services labels studio-sync rui https://studio.example
    --email rui@example.org --token-file token --storage storage.json
    """
    from spira_services import labelling, server
    from spira_services.labels import api, label_studio

    if language not in {"pt", "en"}:
        raise ConfigError("--language is pt or en")
    read = label_studio.storage_of(text_of(storage))
    evidence = labelling.OfCollection(server.audio())
    with opened() as engine:
        with engine.begin() as connection:
            person = with_role(connection, name, "clinician")
        with label_studio.LabelStudio.at(address, text_of(token_file).strip()) as studio:
            counts = label_studio.sync(
                studio,
                engine,
                evidence,
                api.current_instruction(),
                person,
                email=email,
                storage=read,
                n=sessions,
                language="pt" if language == "pt" else "en",
            )
    print(counted(counts))
