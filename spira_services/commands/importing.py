"""``import``: recordings that exist already."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from spira_services.commands import actor
from spira_services.database import opened
from spira_tasks.contract.exits import EXIT_REJECTED
from spira_tasks.errors import ConfigError

if TYPE_CHECKING:
    from spira_services.importers.found import Asked

app = typer.Typer()


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
        outcomes = importer.run(actor(), is_rehearsal=dry_run)
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
