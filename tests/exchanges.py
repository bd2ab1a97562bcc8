"""Exchanges with a server that is not here: recorded from the real one, and answered again.

A program talks to an address of this machine.  While recording, its requests go on to the real
server, and are written down with the answers; else the answers are given again, in the same order,
and only to the same requests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from collecting import served
from fastapi import FastAPI, Request, Response

SECRETS = ("refresh", "access", "token")
SHA256 = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}")  # of audio: another NumPy may make other noise


def _plain(value: Any) -> Any:
    """A body without secrets and digests."""
    if isinstance(value, dict):
        return {k: "secret" if k in SECRETS else _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return SHA256.sub("digest", value) if isinstance(value, str) else value


@contextmanager
def exchanged(
    file: Path, real: str = "", folder: str = ""
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Lend an address that answers as ``real`` does, or did, and what was asked so far.

    ``folder`` is one of the real server, which is not written down.
    """
    recorded = [] if real else json.loads(file.read_text())
    asked: list[dict[str, Any]] = []
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST", "PATCH", "DELETE"])
    async def any_path(request: Request) -> Response:
        body = await request.body()
        one: dict[str, Any] = {
            "method": request.method,
            "path": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
            "body": _plain(json.loads(body)) if body else None,
        }
        if real:
            headers = {k: request.headers[k] for k in ("authorization",) if k in request.headers}
            headers |= {"content-type": "application/json"} if body else {}
            async with httpx.AsyncClient(base_url=real, timeout=60) as client:
                answer = await client.request(
                    one["method"], one["path"], content=body, headers=headers
                )
            found = json.loads(answer.content) if answer.content else None
            asked.append(one | {"status": answer.status_code, "answer": _plain(found)})
            return Response(answer.content, answer.status_code, media_type="application/json")
        now = recorded[len(asked)] if len(asked) < len(recorded) else {}
        asked.append(one)
        if {name: now.get(name) for name in one} != one:
            return Response(f"recorded was {now.get('method')} {now.get('path')}", 599)
        content = json.dumps(now["answer"]) if now["answer"] is not None else b""
        return Response(content, now["status"], media_type="application/json")

    with served(app) as address:
        yield address, asked
    if real:
        lines = ",\n".join(json.dumps(one) for one in asked)
        file.write_text(f"[\n{lines}\n]\n".replace(folder, "/served").replace(real, "http://real"))
    else:
        assert len(asked) == len(recorded), "fewer requests than were recorded"
