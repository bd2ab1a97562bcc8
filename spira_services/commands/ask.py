"""``ask``: ask the model about a recording as a telephone does."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Annotated

import typer
from sqlalchemy import Engine

from spira_services.database import now, opened
from spira_tasks.contract.exits import EXIT_REJECTED
from spira_tasks.errors import ServiceUnavailable

if TYPE_CHECKING:
    from spira_services.serving.inferences import Inference

app = typer.Typer()


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
    from spira_services.web import Refused
    from spira_services.welcome import this_computer
    from spira_tasks.artifacts.blobs import hex_of

    blobs = server.audio()
    with opened() as engine, closing(open_queue(engine)) as queue, Relay(engine, queue):
        sha256 = hex_of(blobs.put_file(file, durable=True))
        with engine.begin() as connection:
            device = this_computer(connection)
            uploads.note(connection, device.device_id, sha256, file.stat().st_size)
        sent = SentInference(sha256=sha256, recorded_at=now())
        try:
            asked = Inferences(engine, blobs, Backlog(engine)).ask(device, uuid4(), sent)
        except Refused as refused:  # too many wait: nothing else is wrong with what is sent here
            raise ServiceUnavailable(str(refused)) from None
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
