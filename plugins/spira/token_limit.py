"""Slow down who guesses passwords by ``/auth/token``, as Airflow does for its form."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

N_FAILURES, SECONDS = 5, 40.0  # as FAB_AUTH_RATE_LIMIT of the form, "5 per 40 second"


class TokenLimit:
    """ASGI middleware: an address that gave ``N_FAILURES`` wrong passwords waits.

    A request counts until it has succeeded, so that many at once do not pass together.  Each worker
    of the API server counts by itself.
    """

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self.app = app
        self.tried: dict[str, list[float]] = {}  # address to when it began a request

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        is_login = scope["type"] == "http" and scope["method"] == "POST"
        if not (is_login and "/auth/token" in scope["path"]):
            await self.app(scope, receive, send)
            return
        now = time.monotonic()
        recent = {who: [at for at in ats if now - at < SECONDS] for who, ats in self.tried.items()}
        self.tried = {who: ats for who, ats in recent.items() if ats}
        address = (scope.get("client") or ("",))[0]
        tried = self.tried.setdefault(address, [])
        if len(tried) >= N_FAILURES:
            wait = str(round(tried[0] + SECONDS - now) + 1)
            answer = JSONResponse(
                {"detail": f"too many wrong passwords; try again in {wait} s"},
                HTTPStatus.TOO_MANY_REQUESTS,
                {"Retry-After": wait},
            )
            await answer(scope, receive, send)
            return
        tried.append(now)

        async def forget_success(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                tried.remove(now)
            await send(message)

        await self.app(scope, receive, forget_success)
