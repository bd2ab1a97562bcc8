"""``python -m spira_services``: start the services, and set up who may send and who may see."""

from __future__ import annotations

import getpass
import json
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from math import isnan
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Annotated

import typer
from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import DatabaseError, OperationalError
from typer.main import get_command

from spira_services import devices, people
from spira_services.database import VARIABLE, now, opened
from spira_services.welcome import welcome
from spira_tasks.contract.exits import EXIT_BUG, EXIT_CONFIG, EXIT_REJECTED, EXIT_UNAVAILABLE
from spira_tasks.contract.verdict import MIN_CELL, few_or, is_small
from spira_tasks.errors import ConfigError, ServiceUnavailable, SpiraError

if TYPE_CHECKING:
    from spira_services.importers.found import Asked
    from spira_services.serving.inferences import Inference
    from spira_services.serving.router import Mode, Route

PASSWORD_VARIABLE = "SPIRA_ADMIN_PASSWORD"  # noqa: S105  # of the person whom --code-file adds

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
sites = typer.Typer(help="Hospitals whose devices may send.", no_args_is_help=True)
device = typer.Typer(help="Telephones that send.", no_args_is_help=True)
person = typer.Typer(help="People who sign in or collect.", no_args_is_help=True)
hospitals = typer.Typer(help="Hospitals whose records are read.", no_args_is_help=True)
route = typer.Typer(help="A version that is tried beside the champion.", no_args_is_help=True)
waiting = typer.Typer(help="Inferences that wait for an answer.", no_args_is_help=True)
labels = typer.Typer(help="Labels, beside the page for them.", no_args_is_help=True)
telemetry = typer.Typer(help="What was asked and answered.", no_args_is_help=True)
app.add_typer(sites, name="sites")
app.add_typer(hospitals, name="hospitals")
app.add_typer(device, name="devices")
app.add_typer(person, name="people")
app.add_typer(labels, name="labels")
app.add_typer(waiting, name="queue")
app.add_typer(route, name="route")
app.add_typer(telemetry, name="telemetry")


Snapshots = Annotated[
    str,
    typer.Option(
        "--snapshots",
        envvar="SPIRA_SNAPSHOTS",
        help="Folder, or s3://bucket/prefix, of the snapshots.",
    ),
]


def _actor() -> str:
    return os.environ.get("SPIRA_ACTOR") or f"cli:{getpass.getuser()}"


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65_535)] = 8090,
    code_file: Annotated[
        Path | None,
        typer.Option(
            help=f"Set up a first site, and write a code for a first device here; the "
            f"person admin gets the password in {PASSWORD_VARIABLE}."
        ),
    ] = None,
) -> None:
    """Start the collection server.

    Example:  python -m spira_services serve --port 8090
    """
    import uvicorn

    from spira_services import logs, tracing
    from spira_services.server import application

    logs.start()
    tracing.start("spira-services")
    with opened() as engine, application(engine) as app:
        if code_file is not None:
            code_file.touch(mode=0o600)
            code_file.write_text(welcome(engine, os.environ.get(PASSWORD_VARIABLE)))
        # Its own log would show paths, which hold identifiers.
        uvicorn.run(
            app,
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=10,
        )


@app.command()
def work(
    until_empty: Annotated[
        bool, typer.Option(help="End when nothing is left to be answered.")
    ] = False,
    store: Annotated[
        str, typer.Option(envvar="SPIRA_STORE", help="With the registry of models.")
    ] = ".spira/store",
    host: Annotated[str, typer.Option(help="Address of its metrics.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port of its metrics and health; 0 for none.", min=0, max=65_535)
    ] = 0,
) -> None:
    """Answer inferences by the champion; any number of workers may run.

    SIGTERM and Ctrl-C let it finish what is begun.

    Example:  python -m spira_services work
    """
    import signal

    from spira_services import logs, server, tracing
    from spira_services.serving.models import Models
    from spira_services.serving.queue import open_queue
    from spira_services.serving.relay import Relay
    from spira_services.serving.worker import Worker, note_refused
    from spira_tasks.artifacts import Store

    logs.start()
    tracing.start("spira-worker")
    with opened() as engine:
        queue, models = open_queue(engine), Models(Store(store), note_refused(engine))
        worker = Worker(engine, server.audio(), queue, models)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda *_: worker.stopping.set())
        try:
            models.also = worker.look
            models.start()
            with Relay(engine, queue), server.watched(engine, models.ready, host, port):
                print(f"{worker.run(until_empty=until_empty)} answered")
        finally:
            models.close()
            queue.close()


@app.command()
def ask(
    file: Annotated[Path, typer.Argument(help="A recording.", exists=True, dir_okay=False)],
    as_json: Annotated[bool, typer.Option("--json", help="For a program.")] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for an answer.", min=0)] = 120,
) -> None:
    """Ask the model about a recording as a telephone does, and wait for a worker's answer.

    Ends with 65 where there is none: the recording has to be made again, or no try succeeded.
    Ends with 75 where none came in time; the question is stored, and is answered later.

    Example:  python -m spira_services ask recording.wav
    """
    from uuid import uuid4

    from spira_services import server, uploads
    from spira_services.serving.inferences import Backlog, Inferences, SentInference
    from spira_services.serving.queue import open_queue
    from spira_services.serving.relay import Relay
    from spira_services.welcome import this_computer
    from spira_tasks.artifacts.blobs import hex_of

    blobs = server.audio()
    with opened() as engine, closing(open_queue(engine)) as queue, Relay(engine, queue):
        sha256 = hex_of(blobs.put_file(file, durable=True))
        with engine.begin() as connection:
            device = this_computer(connection)
            uploads.note(connection, device.device_id, sha256, file.stat().st_size)
        sent = SentInference(sha256=sha256, recorded_at=now())
        asked = Inferences(engine, blobs, Backlog(engine)).ask(device, uuid4(), sent)
        print(f"stored as {asked.inference_id}; waiting for a worker", file=sys.stderr)
        found = _awaited(engine, asked.inference_id, wait)
    print(found.model_dump_json(indent=1) if as_json else _answer_in_words(found))
    if found.decision is None:
        raise SystemExit(EXIT_REJECTED)


def _awaited(engine: Engine, inference_id: str, seconds: float) -> Inference:
    """An inference once it is answered or failed; ServiceUnavailable where that takes longer."""
    from spira_services.database import reading
    from spira_services.serving.inferences import state

    end = monotonic() + seconds
    while True:
        with reading(engine) as connection:
            found = state(connection, inference_id)
        if found is not None and found.state != "queued":
            return found
        if monotonic() >= end:
            raise ServiceUnavailable(
                f"no worker has answered {inference_id} in {seconds:g} s. It stays stored, and is "
                "answered once a worker runs: start one by `python -m spira_services work`; what "
                "waits is shown by `python -m spira_services queue show`"
            )
        sleep(0.2)


def _answer_in_words(found: Inference) -> str:
    took = (found.answered_at or found.received_at) - found.received_at
    if found.state != "answered":
        return f"no answer: {found.reason}"
    by = f"version {found.version} of the model, after {took.total_seconds():.1f} s"
    if found.record_again:
        return f"record again: {', '.join(found.record_again)}   ({by})"
    unusual = f"; unusual: {', '.join(found.unusual)}" if found.unusual else ""
    return (
        f"{found.decision}: probability {found.probability:.2f}, positive from "
        f"{found.operating_point:.2f} on{unusual}   ({by})"
        + "\nThe model learned from voices that a computer made: this says nothing of a person."
        * ("synthetic_cohort" in found.meaning)
    )


@app.command()
def snapshot(
    under: Annotated[str, typer.Argument(help="Folder, or s3://bucket/prefix, of the snapshots.")],
    as_of: Annotated[
        datetime | None, typer.Option(help="UTC; what came later is left out. By default now.")
    ] = None,
    with_weak: Annotated[
        bool, typer.Option(help="Weak labels too, where they are sure: to learn from alone.")
    ] = False,
) -> None:
    """Write what was accepted and labelled, for a training to read.

    Example:  python -m spira_services snapshot .spira/snapshots
    """
    from spira_services import server
    from spira_services.labels.policy import POLICY, WITH_WEAK
    from spira_services.snapshot import write

    moment = now() if as_of is None else as_of.replace(tzinfo=UTC)
    with opened() as engine:
        policy = WITH_WEAK if with_weak else POLICY
        made = write(engine, server.audio(), under, moment, policy)
    word = "wrote" if made.is_new else "there already:"
    print(
        f"{word} {made.place}\n{made.about['n_recordings']} recordings of "
        f"{made.about['n_subjects']} people"
    )
    print(made.labels.checks_in_words())
    print(f"next:  python -m spira_tasks pipeline training --data {made.place}")


@app.command()
def trace(
    name: Annotated[
        str, typer.Argument(help="A recording, session, inference, subject or device.")
    ],
    under: Snapshots = ".spira/snapshots",
) -> None:
    """Print, as JSON, where recordings came from; `python -m spira_tasks trace` goes on from there.

    Example:  python -m spira_services trace 7c9e6679-7425-40de-944b-e07fc1f90ae7
    """
    from spira_services.trace import trace as found

    with opened() as engine, engine.connect() as connection:
        print(json.dumps(found(connection, name, under), indent=1, default=str))


@app.command()
def erase(
    tag: Annotated[str, typer.Argument(help="From `python -m spira_tasks pseudonyms tag`.")],
    under: Snapshots,  # no guess: what is looked for elsewhere stays
) -> None:
    """Erase a person from all services and snapshots; spira_erasure does, and the store too.

    Example:  python -m spira_services erase 3f0c1d2e4b5a69788796a5b4c3d2e1f0
    """
    from spira_services import server
    from spira_services.forgetting import forget

    if not re.fullmatch("[0-9a-f]{32}", tag):
        raise ConfigError("a tag has 32 hex digits; `pseudonyms tag` asks for the number")
    with opened() as engine:
        counts = forget(engine, server.audio(), under, tag, _actor())
    print(", ".join(f"{n} {name[2:].replace('_', ' ')}" for name, n in counts.items()))


@app.command("import")
def import_recordings(
    kind: Annotated[str, typer.Argument(help="dc2, spira-bm, published or whatsapp; see above.")],
    source: Annotated[str, typer.Argument(help="Folder, or s3://bucket/prefix.")],
    site: Annotated[str, typer.Option(help="The site that is set up for these recordings.")],
    dry_run: Annotated[
        bool, typer.Option(help="Judge everything, write nothing, say what would come of it.")
    ] = False,
    consent: Annotated[
        str,
        typer.Option(
            help="Version of the text that everybody agreed to of whom the source does not say it; "
            "without it their consent is pending, and no snapshot uses them."
        ),
    ] = "",
    hospital: Annotated[
        list[str] | None,
        typer.Option(help="How the source writes the site, where it names several; repeatable."),
    ] = None,
    recorded_at: Annotated[
        str, typer.Option(help="Time of recordings without one, ISO 8601 with offset.")
    ] = "",
    offset: Annotated[
        str, typer.Option(help="Offset from UTC of times without one, e.g. -03:00.")
    ] = "",
) -> None:
    """Bring in recordings that exist already, through the door by which telephones send.

    dc2: documents (.json, .jsonl at the top) of SPIRA-data-collection-api-v2, with the files that
    their `audios` name, or of SPIRA-API, with <id>/{aceite,sustentada,parlenda,frase}.wav.

    spira-bm: documents of SPIRA-BM, with <id>/{ambient_noise,sustentained_vowel,rhyme,phrase}.wav.

    published: metadata_{train,eval,test}.csv, one sentence a row; needs --recorded-at.

    whatsapp: notes.csv, a row a file, with columns of the row contract: audio_uri, patient_rgh,
    collected_at, sample_type, sex, age; task (SENTENCE without it), other answers, ri_clinical,
    label_source, consent_status, consent_version.  Rows of one person and time are one session.

    The same import again changes nothing.  The exit status is 65 where something was not taken.

    Example:  python -m spira_services import dc2 /path/to/export --site hc --dry-run
    """
    from spira_services import server
    from spira_services.importers.door import READERS, Importer
    from spira_services.importers.summary import as_text, is_whole
    from spira_tasks.artifacts.sources import open_source

    if kind not in READERS:
        raise ConfigError(f"there is no kind {kind!r}; there are {', '.join(READERS)}")
    asked = _asked(consent, hospital or [], recorded_at, offset)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("spira_tasks").setLevel(logging.INFO)  # where no terminal shows a bar
    place = open_source(source if source.startswith("s3://") else f"folder:{source}")
    with opened() as engine:
        importer = Importer(engine, server.audio(), kind, place, site, asked)
        outcomes = importer.run(_actor(), is_rehearsal=dry_run)
    print("nothing was written; this would come of it:\n" * dry_run + as_text(outcomes))
    if not is_whole(outcomes):
        raise SystemExit(EXIT_REJECTED)


def _asked(consent: str, hospitals: Sequence[str], recorded_at: str, offset: str) -> Asked:
    from spira_services.importers.found import Asked

    try:
        at = datetime.fromisoformat(recorded_at) if recorded_at else None
        zone = datetime.strptime(offset, "%z").tzinfo if offset else None
    except ValueError:
        raise ConfigError(
            "--recorded-at is no time or --offset no offset; write 2020-07-01T12:00-03:00, -03:00"
        ) from None
    if at is not None and at.tzinfo is None:
        raise ConfigError("--recorded-at has no offset from UTC; write one, such as -03:00")
    return Asked(at, zone, consent, hospitals)


@sites.command("add")
def add_site(
    hospital_id: Annotated[str, typer.Argument(help="As recordings name it, e.g. hc")],
    name: Annotated[str, typer.Option(help="Shown to collectors.")],
    check_letter: Annotated[bool, typer.Option(help="Its numbers end in a check letter.")] = False,
    keeps_numbers: Annotated[
        bool, typer.Option(help="Keep its numbers, encrypted, to search its records by them.")
    ] = False,
    expected_per_day: Annotated[int | None, typer.Option(help="Sessions a day.", min=0)] = None,
) -> None:
    """Set a hospital up, or change how it is set up.

    Example:  python -m spira_services sites add hc --name "Hospital das Clínicas" --check-letter
    """
    if keeps_numbers:
        from spira_services.collection.sessions import linkage_key

        linkage_key()
    with opened() as engine, engine.begin() as connection:
        devices.add_site(
            connection,
            hospital_id,
            name,
            _actor(),
            check_letter=check_letter,
            keeps_numbers=keeps_numbers,
            expected_per_day=expected_per_day,
        )
    print(f"{hospital_id} is set up")


@hospitals.callback()
def _of_hospitals() -> None:
    """Keep ``sync`` a name while it is the only command."""


@hospitals.command("sync")
def sync_hospitals(
    site: Annotated[list[str] | None, typer.Argument(help="By default all of the file.")] = None,
    config: Annotated[str, typer.Option(help="TOML file; by default SPIRA_HOSPITALS.")] = "",
    dry_run: Annotated[bool, typer.Option(help="Read and report; store nothing.")] = False,
) -> None:
    """Read the records of participants, keep what is new, and label by it.

    Ends with 0 where what was found is stored, also with alerts; with 75 where nobody was found and
    a later try may succeed; with 65 where nobody was found and somebody has to look.

    Example:  python -m spira_services hospitals sync hc --dry-run
    """
    from spira_services import hospital_sync
    from spira_services.hospitals.sources import connectors
    from spira_services.hospitals.watch import ALERTS

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    sources = connectors(config, site or ())
    with opened() as engine:
        reports = hospital_sync.sync_hospitals(engine, sources, _actor(), is_dry_run=dry_run)
    for one in reports:
        stored = "found, and not stored" if dry_run else "stored"
        print(
            f"{one.source}: {one.n_found} of {one.n_participants} participants found; {stored}: "
            f"{one.n_facts} new facts, {one.n_label_events} label events; {one.n_held} held back"
        )
        if one.n_without_number:
            print(
                f"  {one.n_without_number} people have no kept number (sites add --keeps-numbers)"
            )
        for alert in one.alerts:
            said, next_step = ALERTS[alert.code]
            about = " ".join(filter(None, (alert.code, alert.quantity, alert.name)))
            counts = ", ".join(f"{name} {number:g}" for name, number in alert.numbers.items())
            print(f"  {about}: {said} ({counts})\n    next:  {next_step}")
    raise typer.Exit(max(one.exit_status for one in reports) if reports else 0)


@device.command("code")
def new_code(
    hospital_id: Annotated[str, typer.Argument(help="A site that is set up.")],
    collector: Annotated[str, typer.Option(help="Name of the person who gets the device.")],
) -> None:
    """Print a code by which one device can be enrolled within an hour.

    Example:  python -m spira_services devices code hc --collector ana
    """
    with opened() as engine, engine.begin() as connection:
        asked = select(people.PEOPLE.c.person_id).where(people.PEOPLE.c.name == collector)
        person_id = connection.execute(asked).scalar()
        if person_id is None:
            raise ConfigError(
                "there is no person of that name; add one by `python -m spira_services people add`"
            )
        print(devices.new_code(connection, hospital_id, person_id, _actor()))


@device.command("end")
def end_device(device_id: Annotated[str, typer.Argument(help="As the overview names it.")]) -> None:
    """Take nothing more from a device that was lost or given back.

    Example:  python -m spira_services devices end 3f2a9c1b0d4e5f67
    """
    with opened() as engine, engine.begin() as connection:
        devices.end(connection, device_id, _actor())
    print("the device may send no more")


PasswordFile = Annotated[
    Path, typer.Option(help="Its first line is the password; - reads it from the input.")
]


@person.command("add")
def add_person(
    name: Annotated[str, typer.Argument(help="By which the person signs in.")],
    role: Annotated[list[str], typer.Option(help=f"One of {', '.join(people.ROLES)}; repeatable.")],
    password_file: PasswordFile | None = None,
) -> None:
    """Add a person.  Without a password a person signs in nowhere: a collector needs none.

    Example:  python -m spira_services people add ana --role collector
    """
    password = None if password_file is None else _password(password_file)
    with opened() as engine, engine.begin() as connection:
        people.add(connection, name, role, password, _actor())
    print(f"added {', '.join(role)}")


@person.command("password")
def change_password(
    name: Annotated[str, typer.Argument(help="By which the person signs in.")],
    password_file: PasswordFile,
) -> None:
    """Give a person a password, or another one; who is signed in by the old one no longer is.

    Example:  python -m spira_services people password rui --password-file password
    """
    password = _password(password_file)
    with opened() as engine, engine.begin() as connection:
        people.set_password(connection, name, password, _actor())
    print("changed")


def _password(file: Path) -> str:
    text = sys.stdin.readline() if str(file) == "-" else _text(file)
    return text.splitlines()[0] if text else ""


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is no text in UTF-8; see that it is the file you mean") from None


@person.command("end")
def end_person(name: Annotated[str, typer.Argument()]) -> None:
    """Let a person in no more.

    Example:  python -m spira_services people end ana
    """
    with opened() as engine, engine.begin() as connection:
        people.end(connection, name, _actor())
    print("ended")


Tried = Annotated[str, typer.Argument(help="Its number, from `python -m spira_tasks model list`.")]
Share = Annotated[float, typer.Option(help="Of people, above 0 and at most 1.")]
WhyRoute = Annotated[
    str, typer.Option("--why", "--reason", help="A written reason, without names.")
]


@route.command()
def shadow(version: Tried, why: WhyRoute, share: Share = 1.0) -> None:
    """Let a version compute too; its answers are stored, and nobody sees them.

    Example:  python -m spira_services route shadow 4 --why "before anybody sees its answers"
    """
    _open_route("shadow", version, share, why)


@route.command()
def canary(version: Tried, why: WhyRoute, share: Share = 0.1) -> None:
    """Let a version answer a share of people; a sequential test stops it when it does worse.

    Example:  python -m spira_services route canary 4 --share 0.1 --why "a week as shadow was fine"
    """
    _open_route("canary", version, share, why)


@route.command()
def ab(version: Tried, why: WhyRoute, share: Share = 0.5) -> None:
    """Let a version answer a share of those who agreed to it.

    Example:  python -m spira_services route ab 4 --why "study 12, approved on 3 March"
    """
    _open_route("ab", version, share, why)


@route.command("stop")
def stop_route(why: WhyRoute) -> None:
    """Give all requests to the champion again.

    Example:  python -m spira_services route stop --why "seen enough of it"
    """
    from spira_services.serving import router

    with opened() as engine, engine.begin() as connection:
        stopped = router.stop(connection, by=_actor(), why=why)
    print("no route was open" if stopped is None else f"stopped: {_in_words(stopped)}")


@route.command("apply")
def apply_route(
    file: Annotated[Path, typer.Argument(help="TOML with [route], or without.")],
) -> None:
    """Open the route that a file names, and stop any other.

    Example:  python -m spira_services route apply route.toml
    """
    from spira_services.serving import router

    wanted = router.wanted(file)
    if wanted is not None:
        _check_may_be_tried(wanted.version, wanted.mode)
    with opened() as engine, engine.begin() as connection:
        there, changed = router.apply(connection, wanted, by=_actor(), file=file)
    word = "open" if changed else "open already"
    print("no route is open" if there is None else f"{word}: {_in_words(there)}")


@route.command("show")
def show_route() -> None:
    """Print which route is open, how its version does, and how the last one ended.

    Example:  python -m spira_services route show
    """
    from spira_services.serving import router

    with opened() as engine, engine.begin() as connection:
        there, ended = router.open_route(connection), router.last_stop(connection)
        rows = [] if there is None else router.compare(connection, there)
    if ended is not None and there is None:
        print(f"stopped {ended.at:%Y-%m-%d %H:%M} by {ended.actor}: {ended.reason}")
        if ended.found:
            print(json.dumps(ended.found))
    print("no route is open" if there is None else f"open: {_in_words(there)}")
    if rows:
        print(f"{'measure':12} {'its share':>12} {'champion':>12} {'evidence':>9} {'ends at':>8}")
    for row in rows:
        shares = (_of(row.n_with, row.n), _of(row.n_champion_with, row.n_champion))
        test = ("" if one is None else f"{one:.1f}" for one in (row.log_evidence, row.needed))
        print("{:12} {:>12} {:>12} {:>9} {:>8}".format(row.measure, *shares, *test))


def _open_route(mode: Mode, version: str, share: float, why: str) -> None:
    from spira_services.serving import router

    _check_may_be_tried(version, mode)
    with opened() as engine, engine.begin() as connection:
        there = router.start(connection, mode, version, share, by=_actor(), why=why)
    print(f"open: {_in_words(there)}")


def _check_may_be_tried(version: str, mode: Mode) -> None:
    """Raise ConfigError where a version is none, or may not answer people."""
    from spira_tasks.artifacts import Store, store_url
    from spira_tasks.package import NO_GOLDEN, has_golden, is_sealed
    from spira_tasks.tracking import CHAMPION, Tracker

    store = Store(store_url())
    found = Tracker(store.tracking_uri).version(version)
    against = {
        "it is the champion": CHAMPION in found.aliases,
        "a person refused it": found.is_refused,
        "it learned from a person who was erased": found.contains_erased,
        "nothing says which files it has": not is_sealed(found),
        f"it {NO_GOLDEN}": not has_golden(found, store),
        "a gate blocked it": mode != "shadow" and found.tags.get("spira.outcome") == "blocked",
    }
    if problems := "; ".join(problem for problem, is_so in against.items() if is_so):
        raise ConfigError(f"version {version} is not tried: {problems}")


def _in_words(there: Route) -> str:
    return (
        f"{there.mode} of version {there.version}, share {there.share:g}, since "
        f"{there.started_at:%Y-%m-%d %H:%M} by {there.by}: {there.reason}"
    )


def _of(n_with: int, n: int) -> str:
    return f"{_share(n_with / n if n else 0.0, n)} of {few_or(n)}"


@labels.command("weak")
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
        cells = [_share(value, n) for value, n in shares]
        print(f"{row.name:12} {row.version:>7} " + " ".join(f"{cell:>9}" for cell in cells))


@labels.command("relabel")
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


@labels.command("gold")
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
        person = _with_role(connection, adjudicator, "adjudicator")
        try:
            assignment.make_gold(connection, person, "session", session_id)
        except assignment.NotAllowed as error:
            raise ConfigError(f"{error}; choose a session that an adjudicator settled") from None
    print("given to all who label, now and then")


ClinicianName = Annotated[str, typer.Argument(help="By which the person signs in.")]
HowMany = Annotated[int, typer.Option("--sessions", help="How many wait there at most.", min=1)]


@labels.command("studio-export")
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
        person = _with_role(connection, name, "clinician")
        given = label_studio.give(connection, person, evidence, instruction, sessions)
    tasks = [label_studio.task(one, instruction, audio_at) for one in given]
    file.write_text(json.dumps(tasks, indent=1))
    print(f"{few_or(len(tasks))} tasks in {file}")


@labels.command("studio-import")
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
        exported = json.loads(_text(file))
    except ValueError:
        raise ConfigError(f"{file} is no JSON; export the project as JSON") from None
    with opened() as engine, engine.begin() as connection:
        person = _with_role(connection, name, "clinician")
        counts = label_studio.record(connection, person, label_studio.answers(exported, user))
    print(_counted(counts))


@labels.command("studio-sync")
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
    read = label_studio.storage_of(_text(storage))
    evidence = labelling.OfCollection(server.audio())
    with opened() as engine:
        with engine.begin() as connection:
            person = _with_role(connection, name, "clinician")
        with label_studio.LabelStudio.at(address, _text(token_file).strip()) as studio:
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
    print(_counted(counts))


@waiting.command("show")
def show_queue() -> None:
    """Print how many inferences wait, and which have no answer and why.

    Example:  python -m spira_services queue show
    """
    from spira_services.serving.queue import open_queue

    with opened() as engine:
        queue = open_queue(engine)
        depth, dead = queue.depth(), queue.dead()
        queue.close()
    age = "" if depth.oldest_seconds is None else f"; the oldest for {depth.oldest_seconds:.0f} s"
    print(f"{depth.n_waiting} wait, {depth.n_leased} were taken and are not done{age}")
    print(f"{depth.n_dead} have no answer" + ":" * bool(dead))
    for letter in dead:
        print(f"  {letter.id}  {letter.at:%Y-%m-%d %H:%M}  {letter.reason}, {letter.n_tries} tries")


@waiting.command("replay")
def replay(
    inference: Annotated[list[str] | None, typer.Argument(help="By default all.")] = None,
) -> None:
    """Try again what got no answer, once what it failed on is mended.

    Example:  python -m spira_services queue replay
    """
    from spira_services.serving.queue import open_queue

    with opened() as engine:
        queue = open_queue(engine)
        n = queue.replay(inference)
        queue.close()
    print(f"{n} are tried again")


@waiting.command("discard")
def discard(
    inference: Annotated[list[str], typer.Argument(help="As `queue show` names it.")],
) -> None:
    """End what no try will answer, such as a damaged recording: it is shown and tried no more.

    Example:  python -m spira_services queue discard 7c9e6679-7425-40de-944b-e07fc1f90ae7
    """
    from spira_services.serving.queue import open_queue

    with opened() as engine, closing(open_queue(engine)) as queue:
        n = queue.discard(inference)
    print(f"{n} of {len(inference)} ended without an answer")


@waiting.command("refill")
def refill() -> None:
    """Put all that has no answer on the queue, as after one whose disk was lost.

    Example:  python -m spira_services queue refill
    """
    from spira_services.serving import relay
    from spira_services.serving.queue import open_queue

    with opened() as engine:
        queue = open_queue(engine)
        n = relay.refill(engine, queue)
        queue.close()
    print(f"{n} wait for an answer, and are on the queue")


def _with_role(connection: Connection, name: str, role: str) -> people.Person:
    found = people.named(connection, name)
    if found is None or role not in found.roles:
        raise ConfigError(
            f"there is no {role} of that name; add one by `python -m spira_services people add`"
        )
    return found


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{few_or(n)} {what}" for what, n in sorted(counts.items())) or "nothing new"


def _share(value: float, n: int) -> str:
    """A share of sessions; a dash where it rests on too few."""
    return "-" if n < MIN_CELL or isnan(value) or is_small(round(value * n)) else f"{value:.0%}"


@telemetry.command("export")
def export_telemetry(
    under: Annotated[
        str,
        typer.Option(
            "--to", envvar="SPIRA_TELEMETRY", help="Folder, or s3://bucket/prefix, of the days."
        ),
    ] = ".spira/telemetry",
) -> None:
    """Write each day that is over as Parquet, once, and have a sample of it labelled.

    Example:  python -m spira_services telemetry export
    """
    from spira_services import feedback
    from spira_services.serving.telemetry import rule

    with opened() as engine:
        days, n_sampled = feedback.close_days(engine, under, now(), rule())
    for one in days:
        print(f"{one.day}: {_counted(one.n_rows)}")
    print(f"{len(days)} days written; {few_or(n_sampled)} recordings go to those who label")


@telemetry.command("retain")
def retain_telemetry() -> None:
    """Delete what is past the time that expectations/telemetry.toml gives it.

    Example:  python -m spira_services telemetry retain
    """
    from spira_services import server
    from spira_services.serving.telemetry import retain, rule

    with opened() as engine:
        counts = retain(engine, server.audio(), rule(), now())
    print(
        f"{few_or(counts['n_expired'])} inferences without their audio and person, "
        f"{few_or(counts['n_removed'])} removed, {few_or(counts['n_unnamed'])} files that "
        "nothing names deleted"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    try:
        get_command(app)(arguments, prog_name="python -m spira_services")
    except SpiraError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return EXIT_CONFIG
    except OperationalError as error:
        print(f"error: the database does not answer ({type(error.orig).__name__})", file=sys.stderr)
        return EXIT_UNAVAILABLE
    except DatabaseError as error:
        if "file is not a database" not in str(error.orig):
            raise
        print(f"error: {VARIABLE} names a file that is no database of SQLite", file=sys.stderr)
        return EXIT_CONFIG
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_BUG
    return 0


if __name__ == "__main__":
    sys.exit(main())
