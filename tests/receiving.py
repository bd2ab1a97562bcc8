"""A mail server and a webhook of this machine, and the Airflow connections that lead to them."""

from __future__ import annotations

import json
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

TO = "governance@example.org"


@dataclass
class Received:
    """What arrived, as text, and the environment in which Airflow sends it here."""

    mails: list[Message] = field(default_factory=list)
    posts: list[str] = field(default_factory=list)
    connections: dict[str, str] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        parts = [part for mail in self.mails for part in mail.walk() if not part.is_multipart()]
        return [part.get_payload(decode=True).decode() for part in parts] + self.posts  # type: ignore[union-attr]


@contextmanager
def receiving(*, webhook_answers: int = 200) -> Iterator[Received]:
    """Receive mails and posts, each in a thread, until the end of the block."""
    received = Received()

    class Smtp(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.answer(220)
            while line := self.rfile.readline():
                word = line[:4].upper().strip()
                if word == b"DATA":
                    self.answer(354)
                    lines = iter(self.rfile.readline, b".\r\n")
                    received.mails.append(message_from_bytes(b"".join(lines)))
                self.answer(221 if word == b"QUIT" else 250)

        def answer(self, status: int) -> None:
            self.wfile.write(b"%d here\r\n" % status)

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            received.posts.append(json.loads(content)["text"])
            self.send_response(webhook_answers)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with (
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Smtp) as smtp,
        HTTPServer(("127.0.0.1", 0), Webhook) as http,
    ):
        smtp.daemon_threads = True
        for server in (smtp, http):
            Thread(target=server.serve_forever, daemon=True).start()
        plain = {"disable_ssl": True, "disable_tls": True, "retry_limit": 0}
        mail = {
            "conn_type": "smtp",
            "host": "127.0.0.1",
            "port": smtp.server_address[1],
            "extra": {**plain, "from_email": "spira@example.org", "to": TO},
        }
        url = f"http://127.0.0.1:{http.server_address[1]}/services/secret"
        received.connections = {
            "AIRFLOW_CONN_SPIRA_SMTP": json.dumps(mail),
            "AIRFLOW_CONN_SPIRA_WEBHOOK": json.dumps({"conn_type": "generic", "password": url}),
        }
        yield received
        for server in (smtp, http):
            server.shutdown()
