"""A headless Chromium by its DevTools protocol: what a person would click, type and read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NEEDS_CHROMIUM = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]
WAIT_SECONDS = 60.0
LEFT = ("Inspected target navigated", "Execution context was destroyed", "Cannot find context")


class Page:
    """One tab."""

    def __init__(self, connection: ClientConnection, process: subprocess.Popen[bytes]) -> None:
        self._connection = connection
        self.process = process  # of the browser
        self._numbers = count(1)
        self.requested: list[str] = []  # every URL that the tab asked for
        self.call("Page.enable")
        self.call("Network.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=WAIT_SECONDS))
            if message.get("method") == "Network.requestWillBeSent":
                self.requested.append(message["params"]["request"]["url"])
            if message.get("id") == number:
                if any(words in str(message.get("error")) for words in LEFT):
                    return {"result": {}}  # the page was left meanwhile: ask the next one
                assert "error" not in message, message
                return dict(message["result"])

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript, or of its promise, evaluated in the tab."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("document.readyState == 'complete'")

    def wait(self, script: str, seconds: float = WAIT_SECONDS) -> Any:
        """Wait until an expression is true; what it is then."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if value := self.run(
                f"(() => {{ try {{ const found = {script}; return found instanceof Node || found }}"
                " catch { return null } })()"
            ):
                return value
            time.sleep(0.5)
        raise AssertionError(
            f"{script}: not within {seconds} s; the page says\n{self.text()[:3000]}"
        )

    def text(self) -> str:
        """What can be read, in frames too."""
        return str(
            self.run(
                "[document, ...Array.from(frames, f => f.document)]"
                ".map(d => d?.body?.innerText ?? '').join('\\n')"
            )
        )

    def read(self, text: str, seconds: float = WAIT_SECONDS) -> str:
        """Wait until ``text`` can be read; all that can be read then."""
        until = time.monotonic() + seconds
        while (page := self.text()).find(text) < 0:
            assert time.monotonic() < until, f"{text!r}: not within {seconds} s in\n{page[:3000]}"
            time.sleep(0.5)
        return page

    def click(self, selector: str, text: str = "") -> None:
        """Click the first visible element of a CSS selector that holds ``text``."""
        find = f"""(() => {{ for (const e of document.querySelectorAll({json.dumps(selector)})) {{
            const b = e.getBoundingClientRect();
            if (b.width && !e.disabled && (e.innerText || e.value || '')
                .includes({json.dumps(text)})) {{
              e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();
              return [r.x + r.width / 2, r.y + r.height / 2]; }} }} return null; }})()"""
        where, before = self.wait(find), None
        while where != before:  # the page is still moving
            time.sleep(0.5)
            where, before = self.wait(find), where
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=where[0],
                y=where[1],
                button="left",
                clickCount=1,
            )

    def type(self, selector: str, text: str) -> None:
        """Put ``text`` in place of what a field holds."""
        self.click(selector)
        self.run(f"document.querySelector({json.dumps(selector)}).select()")
        self.call("Input.insertText", text=text)

    def picture(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def chromium(
    profile: Path, width: int = 1280, height: int = 860, flags: Sequence[str] = ()
) -> Iterator[Page]:
    """A tab of a browser that reaches this machine and no other host."""
    assert CHROMIUM is not None
    (profile / "DevToolsActivePort").unlink(missing_ok=True)  # of a browser that was killed
    process = subprocess.Popen(
        [
            *("setpriv", "--pdeathsig", "KILL", "--", CHROMIUM, "--headless=new"),
            *(("--no-sandbox",) if os.geteuid() == 0 else ()),
            *("--remote-debugging-port=0", f"--user-data-dir={profile}"),
            *(f"--window-size={width},{height}", "--lang=en-US", "--disable-gpu", "--no-first-run"),
            *("--disable-dev-shm-usage", "--disable-background-networking"),
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            *flags,
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = _port(profile / "DevToolsActivePort")
        tabs = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list").read())
        address = next(tab for tab in tabs if tab["type"] == "page")["webSocketDebuggerUrl"]
        # No pings: while the test waits elsewhere it reads nothing, the answers to pings neither.
        with connect(address, max_size=None, ping_interval=None) as connection:
            yield Page(connection, process)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _port(file: Path) -> str:
    until = time.monotonic() + WAIT_SECONDS
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < until, "Chromium did not start"
        time.sleep(0.2)
    return file.read_text().splitlines()[0]
