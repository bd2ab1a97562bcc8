"""``serve`` and ``work``: the processes that run always."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from spira_services.database import opened
from spira_services.welcome import welcome

PASSWORD_VARIABLE = "SPIRA_ADMIN_PASSWORD"  # noqa: S105  # of the person whom --code-file adds

app = typer.Typer()


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
            with Relay(engine, queue), server.watched(engine, worker, host, port):
                print(f"{worker.run(until_empty=until_empty)} answered")
        finally:
            models.close()
            queue.close()
