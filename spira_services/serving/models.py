"""The versions of the model that are ready to answer, each in a process of its own.

A version that crashes or hangs harms no other, and the next message finds a new process.  A version
is ready when its files were compared with the store, and it has answered the golden clips as it did
when it was registered, within its limit of time.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from spira_tasks import package, scratch
from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import canonical_json, digest_of
from spira_tasks.errors import ConfigError, SpiraError
from spira_tasks.tracking import CHAMPION, PREVIOUS, Registered, Tracker

log = logging.getLogger("spira.services")

PROCESS = Path(__file__).parent / "model_process.py"
LOAD_SECONDS = 120.0
ANSWER_SECONDS = 30.0  # of the longest recording on a slow machine; then it hangs
BEAT_SECONDS = 1.0
POLL_SECONDS = 2.0
SLACK = 3.0  # of the limit of time: it was measured on another machine


class ModelFailed(Exception):
    """A version gave no answer; ``reason`` is ``crashed``, ``too_slow``, or the model's error."""

    def __init__(self, reason: str, *, is_end: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_end = is_end  # of the process


class ModelProcess:
    """A process in which the files of a folder answer."""

    def __init__(self, folder: Path, nice: int = 0) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *("nice", "-n", str(nice), sys.executable, "-P", str(PROCESS)),
                    *(str(folder), str(theirs.fileno())),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd=folder,
                start_new_session=True,  # Ctrl-C is for the worker, which finishes what is begun
                # No key of the worker: the model needs none.
                env={"PATH": os.environ.get("PATH", ""), **package.ENVIRONMENT},
            )
        limit = struct.pack("ll", int(ANSWER_SECONDS), 0)  # also of a piece of a message
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, limit)
        self._connection = Connection(ours.detach())
        self._turn, self._n = threading.Lock(), 0
        self._received(LOAD_SECONDS, lambda: None)

    def answer(self, audio: bytes, beat: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """What the model says of the bytes of an audio file; ``beat`` is called while it works.

        ``cpu_seconds`` is added: what the process has used of processors for it.

        Raises
        ------
        ModelFailed
            Its process has ended, unless it answered with an error.
        """
        with self._turn:  # or two threads would get one another's answers
            self._n += 1
            try:
                self._connection.send_bytes(str(self._n).encode())
                self._connection.send_bytes(audio)
            except OSError:
                self.close()
                raise ModelFailed("crashed") from None
            answer = self._received(ANSWER_SECONDS, beat)
        if "error" in answer:
            raise ModelFailed(answer["error"], is_end=False)
        return answer

    def _received(self, seconds: float, beat: Callable[[], None]) -> dict[str, Any]:
        """The answer to the last file.  Without it the process ends: it might come to the next."""
        until = time.monotonic() + seconds
        try:
            while not self._connection.poll(BEAT_SECONDS):
                if time.monotonic() > until:
                    raise ModelFailed("too_slow")
                beat()
            answer = dict(json.loads(self._connection.recv_bytes()))
            if answer.pop("n") != self._n:
                raise ModelFailed("crashed")
            return answer
        except (OSError, EOFError):
            self.close()
            raise ModelFailed("crashed") from None
        except BaseException:
            self.close()
            raise

    @property
    def is_closed(self) -> bool:
        return self._connection.closed

    def close(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()


@dataclass
class Version:
    """A version that is ready, with the folder of its files and its process."""

    registered: Registered
    folder: Path
    nice: int = 0  # of the process: what is hidden gives way to what is shown

    def __post_init__(self) -> None:
        self._is_closed = False
        self._golden = package.golden(self.folder)
        about = json.loads((self.folder / package.DATA / "classifier.json").read_text())
        self.feature_schema = digest_of(canonical_json(about["features"]))
        self._process = self._started()
        self._checked()

    @property
    def number(self) -> str:
        return self.registered.version

    def answer(self, audio: bytes, beat: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """As ``ModelProcess.answer``; where its process is of no more use, there is a new one.

        Raises
        ------
        ModelFailed
            Where the golden clips are answered still: it is this file.
        ConfigError
            Where they are not: the version is broken, and closed.
        """
        if self._process.is_closed and not self._is_closed:
            self._process = self._started()
        try:
            return self._process.answer(audio, beat)
        except ModelFailed as failed:
            if self._is_closed:
                raise
            if failed.is_end:
                self._process = self._started()
            self._checked()
            raise

    def _started(self) -> ModelProcess:
        try:
            return ModelProcess(self.folder, self.nice)
        except ModelFailed as failed:
            raise _broken(self.registered, f"does not start ({failed.reason})") from None

    def _checked(self) -> None:
        """Answer the golden clips as when it was registered, within the limit of time."""
        try:
            answers = [self._process.answer(clip.content) for clip in self._golden.clips]
        except ModelFailed as failed:
            self.close()
            raise _broken(self.registered, f"fails a golden clip ({failed.reason})") from None
        if differing := self._golden.differences(answers):
            self.close()
            fields = ", ".join(sorted({field for _, field in differing}))
            raise _broken(self.registered, f"answers golden clips otherwise ({fields})")
        allowed = SLACK * self._golden.limits["cpu_seconds"]
        took = sum(answer["cpu_seconds"] for answer in answers)
        if took > allowed * sum(clip.audio_seconds for clip in self._golden.clips):
            self.close()
            raise _broken(self.registered, "is slower than its limit allows")

    def close(self) -> None:
        self._is_closed = True
        self._process.close()


def _broken(registered: Registered, why: str) -> ConfigError:
    number = registered.version
    return ConfigError(
        f"version {number} of the model is not served: it {why}. Find out why, and refuse it: "
        f'python -m spira_tasks model refuse {number} --why "…"'
    )


class Models:
    """The versions that are ready, as the aliases of the registry and the route ask for them.

    A thread follows the registry and prepares versions beside those that answer.  Who answers asks
    ``serving`` for each message, and calls ``settle`` between two.
    """

    def __init__(self, store: Store, refused: Callable[[Registered, str], None]) -> None:
        """``refused`` is called once for a version that cannot serve, with the reason."""
        self._store, self._refused = store, refused
        self._folder, self._held = scratch.make()
        self._lock = threading.Lock()  # of what is ready
        self._ready: dict[str, Version] = {}
        self._broken: dict[str, Registered] = {}
        self._aliases: Mapping[str, str] = {}
        self._retired: list[Version] = []
        self._error: Exception | None = None
        self.is_followed = False  # once: what may serve is ready
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="registry", daemon=True)
        # A version that a route asks for, and the niceness of its process.
        self.also: Callable[[], tuple[str, int] | None] = lambda: None

    def start(self) -> None:
        self._thread.start()

    @property
    def serving(self) -> Version | None:
        """The champion, or while it is not ready the one before; None where neither may serve."""
        aliases, ready = self._aliases, self._ready
        known = (ready.get(aliases.get(alias, "")) for alias in (CHAMPION, PREVIOUS))
        return next((version for version in known if version is not None), None)

    def is_champion(self, version: Version) -> bool:
        return self._aliases.get(CHAMPION) == version.number

    def ready(self) -> dict[str, str]:
        """By number, what a version is used for: ``champion``, ``previous`` or ``route``."""
        used = {number: alias for alias, number in self._aliases.items()}
        return {number: used.get(number, "route") for number in self._ready}

    def get(self, number: str) -> Version | None:
        """A version that is ready."""
        return self._ready.get(number)

    def drop(self, version: Version, why: str) -> None:
        """Serve no more by a version that was found to be broken."""
        with self._lock:
            self._broken[version.number] = version.registered
            self._ready = {n: one for n, one in self._ready.items() if one is not version}
        version.close()
        self._refused(version.registered, why)

    def settle(self) -> None:
        """End the processes of versions that nobody asks for any more.

        Raises what ended the thread that follows the registry: an error of this program.
        """
        if self._error is not None:
            raise self._error
        while self._retired:
            self._retired.pop().close()

    def close(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self.settle()
        for version in self._ready.values():
            version.close()
        self._ready = {}
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._held)

    def _follow(self) -> None:
        said, tracker = "", None
        while not self._stopping.is_set():
            try:
                tracker = tracker or Tracker(self._store.tracking_uri)
                self.follow(tracker)
                said = ""
            except (SpiraError, SQLAlchemyError) as error:  # what is ready goes on answering
                # Of an error of the database the text may hold values.
                says = str(error) if isinstance(error, SpiraError) else type(error).__name__
                if says != said:
                    said = says
                    log.error("the registry is not followed: %s", said)
            except Exception as error:
                self._error = error
                return
            self._stopping.wait(POLL_SECONDS)

    def follow(self, tracker: Tracker) -> None:
        """Look once at the aliases, and prepare what they ask for."""
        self._aliases = aliases = tracker.aliases()
        also = self.also()
        wanted = {also[0]: also[1]} if also else {}
        wanted |= {aliases[alias]: 0 for alias in (PREVIOUS, CHAMPION) if alias in aliases}
        with self._lock:
            kept = {n: one for n, one in self._ready.items() if wanted.get(n) == one.nice}
            self._retired += [one for n, one in self._ready.items() if n not in kept]
            self._ready = kept
        for number, nice in reversed(wanted.items()):  # the champion first
            if number in kept or number in self._broken or self._stopping.is_set():
                continue
            registered = tracker.version(number)
            folder = self._folder / f"{number}-{time.monotonic_ns()}"
            try:
                package.fetch(registered, tracker, self._store, folder)
                version = Version(registered, folder, nice)
            except ConfigError as error:
                self._broken[number] = registered
                self._refused(registered, str(error))
                continue
            with self._lock:
                self._ready = {**self._ready, number: version}
            log.info("version %s of the model is ready", number)
        if also and also[0] != aliases.get(CHAMPION) and (tried := self.get(also[0])):
            found = tracker.version(also[0])  # people may refuse it while it is tried
            if found.is_refused or found.contains_erased:
                self.drop(tried, f"version {found.version} of the model is tried no more: refused")
        self.is_followed = True
