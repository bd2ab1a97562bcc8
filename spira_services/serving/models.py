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
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from spira_tasks import model_process, package, scratch
from spira_tasks.artifacts import Store
from spira_tasks.artifacts.blobs import canonical_json, digest_of
from spira_tasks.errors import ConfigError, SpiraError
from spira_tasks.tracking import CHAMPION, PREVIOUS, Registered, Tracker

log = logging.getLogger("spira.services")

PROCESS = Path(model_process.__file__)
LOAD_SECONDS = 120.0
ANSWER_SECONDS = 30.0  # of the longest recording on a slow machine; then it hangs
TRIED_SECONDS = 10.0  # of a version that is tried: then the champion answers
BEAT_SECONDS = 1.0
POLL_SECONDS = 2.0
STOP_SECONDS = 10.0
AGAIN_SECONDS = 300.0  # until what could not serve is tried again: it may have been a full disk
SLACK = 3.0  # of the limit of time: it was measured on another machine
FIELDS = {  # of an answer, that a worker writes
    *("version", "probability", "decision", "record_again", "unusual"),
    *("window_scores", "operating_point"),
}


class ModelFailed(Exception):
    """A version gave no answer; ``reason`` is ``crashed``, ``too_slow``, or the model's error."""

    def __init__(self, reason: str, *, is_end: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_end = is_end  # of the process


class VersionBroken(Exception):
    """A version is not served; the message says why, and what to do next."""


class ModelProcess:
    """A process in which the files of a folder answer, once it is loaded."""

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
                # Ctrl-C is for the worker, which finishes what is begun.  A session of its own
                # would get as much of a core as the worker, whatever its niceness.
                process_group=0,
                # No key of the worker: the model needs none.
                env={"PATH": os.environ.get("PATH", ""), **package.ENVIRONMENT},
            )
        limit = struct.pack("ll", int(ANSWER_SECONDS), 0)  # also of a piece of a message
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, limit)
        self._connection = Connection(ours.detach())
        self._turn, self._n = threading.Lock(), 0

    def load(self, beat: Callable[[], None]) -> None:
        """Wait until it can answer; raises ModelFailed.  ``beat`` as in ``answer``."""
        self._received(LOAD_SECONDS, beat)

    def answer(
        self, audio: bytes, beat: Callable[[], None] = lambda: None, seconds: float | None = None
    ) -> dict[str, Any]:
        """What the model says of the bytes of an audio file; ``beat`` is called while it works.

        ``seconds`` is how long it may take, else ``ANSWER_SECONDS``.  ``cpu_seconds`` is added:
        what the process has used of processors for it.

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
            answer = self._received(seconds or ANSWER_SECONDS, beat)
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


class Version:
    """A version of the model with the folder of its files and its process.

    ``nice`` is that of the process: what is hidden gives way to what is shown.
    """

    def __init__(self, registered: Registered, folder: Path, nice: int = 0) -> None:
        self.registered, self.folder, self.nice = registered, folder, nice
        self.feature_schema = ""  # digest of how its features are described
        self._process: ModelProcess | None = None
        self._restarting = threading.Thread()  # of a version that is tried
        self._broken: VersionBroken | None = None  # found by that thread
        self._is_closed = False

    @property
    def number(self) -> str:
        return self.registered.version

    def prepare(self) -> None:
        """Make it ready; raises VersionBroken where it is not as it was registered."""
        try:
            self._golden = package.golden(self.folder)
            about = json.loads((self.folder / package.DATA / "classifier.json").read_text())
            self.feature_schema = digest_of(canonical_json(about["features"]))
            self._seconds = SLACK * self._golden.limits["cpu_seconds"]
        except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
            name = type(error).__name__
            raise _broken(self.number, f"does not say what is needed ({name})") from None
        self._checked(self._started())

    def answer(self, audio: bytes, beat: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """As ``ModelProcess.answer``; where its process has ended, there is a new one.

        Raises
        ------
        ModelFailed
            Where the golden clips are answered still: it is this file.  Or it was closed.
        VersionBroken
            Where they are not.
        """
        process = self._process
        if process is None or process.is_closed:
            process = self._started(beat)
        try:
            return process.answer(audio, beat)
        except ModelFailed as failed:
            self._checked(self._started(beat) if failed.is_end else process, beat)
            raise

    def attempt(self, audio: bytes, beat: Callable[[], None]) -> dict[str, Any]:
        """As ``answer``, of a version that is tried: nobody waits for its new process.

        Until that is ready it raises ModelFailed.
        """
        if self._restarting.is_alive():
            raise ModelFailed("restarting")
        if self._broken is not None:
            raise self._broken
        process = self._process
        try:
            if process is None or process.is_closed:
                raise ModelFailed("crashed")
            return process.answer(audio, beat, TRIED_SECONDS)
        except ModelFailed as failed:
            if not failed.is_end and process is not None:
                self._checked(process, beat)
            else:
                self._restarting = threading.Thread(target=self._restart, daemon=True)
                self._restarting.start()
            raise

    def _restart(self) -> None:
        try:
            with suppress(ModelFailed):  # it was closed
                self._checked(self._started())
        except VersionBroken as error:
            self._broken = error

    def _started(self, beat: Callable[[], None] = lambda: None) -> ModelProcess:
        self._check_open()
        process = self._process = ModelProcess(self.folder, self.nice)
        try:
            self._check_open()
            process.load(beat)
        except ModelFailed as failed:
            process.close()
            self._check_open()
            raise _broken(self.number, f"does not start ({failed.reason})") from None
        return process

    def _check_open(self) -> None:
        """Raise ModelFailed where another thread has closed it: nothing is wrong with it then."""
        if self._is_closed:
            raise ModelFailed("closed")

    def _checked(self, process: ModelProcess, beat: Callable[[], None] = lambda: None) -> None:
        """Answer the golden clips as when it was registered, within the limit of time."""
        try:
            answers = [process.answer(clip.content, beat) for clip in self._golden.clips]
        except ModelFailed as failed:
            self._check_open()
            raise _broken(self.number, f"fails a golden clip ({failed.reason})") from None
        if any(FIELDS - answer.keys() for answer in answers):
            raise _broken(self.number, "answers in a form that this worker does not know")
        if differing := self._golden.differences(answers):
            fields = ", ".join(sorted({field for _, field in differing}))
            raise _broken(self.number, f"answers golden clips otherwise ({fields})")
        took = sum(answer["cpu_seconds"] for answer in answers)
        if took > self._seconds * sum(clip.audio_seconds for clip in self._golden.clips):
            raise _broken(self.number, "is slower than its limit allows")

    def close(self) -> None:
        """End its process, and delete its files."""
        self._is_closed = True
        if self._process is not None:
            self._process.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _against(tracker: Tracker, number: str) -> str:
    """Why a version is tried no more, which people decide meanwhile; empty where it may be."""
    try:
        found = tracker.version(number)
    except ConfigError as error:  # somebody deleted it on MLflow's page
        return str(error)
    refused = found.is_refused or found.contains_erased
    return "it was refused, or learned from a person who was erased" if refused else ""


def _broken(number: str, why: str) -> VersionBroken:
    return VersionBroken(
        f"version {number} of the model is not served: it {why}. Find out why, and refuse it: "
        f'python -m spira_tasks model refuse {number} --why "…"'
    )


class Models:
    """The versions that are ready, as the aliases of the registry and the route ask for them.

    A thread follows the registry; another prepares, one by one, what is asked for and not ready.
    Who answers asks ``serving`` for each message, and calls ``settle`` between two.
    """

    def __init__(self, store: Store, refused: Callable[[str, str, str], None]) -> None:
        """``refused`` is called for a version that cannot serve: number, classifier and why."""
        self._store, self._refused = store, refused
        self._folder, self._held = scratch.make(scratch.MODELS)
        self._lock = threading.Lock()  # of what follows
        self._ready: dict[str, Version] = {}
        self._retired: list[Version] = []
        self._broken: dict[str, float] = {}  # by number, when it is tried again
        self._unsaid: list[tuple[str, str, str]] = []  # of ``refused``
        self._aliases: Mapping[str, str] = {}
        self._wanted: Mapping[str, int] = {}  # number and niceness
        self._loading: Version | None = None
        self._error: Exception | None = None
        self._said = ""
        self._not_yet: dict[str, str] = {}  # by number, why it is not ready
        self.is_followed = False  # once: what may serve is ready
        self._stopping = threading.Event()
        self._following = threading.Thread(target=self._follow, name="registry", daemon=True)
        self._preparing = threading.Thread()
        # A version that a route asks for, and the niceness of its process.
        self.also: Callable[[], tuple[str, int] | None] = lambda: None

    def start(self) -> None:
        self._following.start()

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
        serve = {self._aliases.get(alias): alias for alias in (PREVIOUS, CHAMPION)}
        return {number: serve.get(number, "route") for number in self._ready}

    def get(self, number: str) -> Version | None:
        """A version that is ready."""
        return self._ready.get(number)

    def drop(self, version: Version, why: str) -> None:
        """Serve no more by a version that was found to be broken."""
        self._refuse(version.registered, why)
        with self._lock:
            self._ready = {n: one for n, one in self._ready.items() if one is not version}
        version.close()

    def settle(self) -> None:
        """End the processes of versions that nobody asks for any more.

        Raises what ended a thread: an error of this program.
        """
        if self._error is not None:
            raise self._error
        while self._retired:
            self._retired.pop().close()

    def close(self) -> None:
        self._stopping.set()
        if loading := self._loading:
            loading.close()
        for thread in (self._following, self._preparing):
            if thread.is_alive():
                thread.join(STOP_SECONDS)  # it may wait for a server that is away
        for version in (*self._retired, *self._ready.values()):
            version.close()
        self._retired, self._ready = [], {}
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._held)

    def _follow(self) -> None:
        tracker = None
        while not self._stopping.is_set():
            try:
                tracker = tracker or Tracker(self._store.tracking_uri)
                self.follow(tracker)
                self._say("")
            except (SpiraError, SQLAlchemyError) as error:  # what is ready goes on answering
                # Of an error of the database the text may hold values.
                self._say(str(error) if isinstance(error, SpiraError) else type(error).__name__)
            except Exception as error:
                self._error = error
                return
            self._stopping.wait(POLL_SECONDS)

    def _say(self, what: str) -> None:
        """Log what keeps this from following, once."""
        if what and what != self._said:
            log.error("the registry is not followed: %s", what)
        self._said = what

    def follow(self, tracker: Tracker) -> None:
        """Look once at the aliases and the route, and begin to prepare what they ask for."""
        self._aliases = aliases = tracker.aliases()
        also = self.also()
        wanted = {also[0]: also[1]} if also else {}
        wanted |= {aliases[alias]: 0 for alias in (PREVIOUS, CHAMPION) if alias in aliases}
        with self._lock:
            self._wanted = wanted
            kept = {n: one for n, one in self._ready.items() if wanted.get(n) == one.nice}
            self._retired += [one for n, one in self._ready.items() if n not in kept]
            self._ready = kept
            # What was asked for no more is tried at once when it is asked for again.
            self._broken = {n: at for n, at in self._broken.items() if n in wanted}
        loading = self._loading
        if loading is not None and wanted.get(loading.number) != loading.nice:
            loading.close()  # nobody waits for it any more
        moment = time.monotonic()
        missing = [
            n for n in reversed(wanted) if n not in kept and self._broken.get(n, moment) <= moment
        ]
        if not missing:
            self.is_followed = True
        elif not self._preparing.is_alive():  # the champion first
            number = missing[0]
            asked = (tracker, number, wanted[number])
            self._preparing = threading.Thread(target=self._prepare, args=asked, daemon=True)
            self._preparing.start()
        tried = self.get(also[0]) if also and also[0] != aliases.get(CHAMPION) else None
        if tried and (why := _against(tracker, tried.number)):
            self.drop(tried, f"version {tried.number} of the model is tried no more: {why}")
        while self._unsaid:
            self._refused(*self._unsaid[0])
            self._unsaid.pop(0)

    def _prepare(self, tracker: Tracker, number: str, nice: int) -> None:
        """Make a version ready beside those that answer; the next look tries again what failed."""
        registered, is_ready = Registered(number, "", "", (), {}), False
        try:
            registered = tracker.version(number)
            folder = self._folder / f"{number}-{time.monotonic_ns()}"
            version = self._loading = Version(registered, folder, nice)
            package.fetch(registered, tracker, self._store, folder)
            version.prepare()
            with self._lock:
                # It may be asked for no more: it took a while.
                is_ready = self._wanted.get(number) == nice and not self._stopping.is_set()
                if is_ready:
                    self._ready = {**self._ready, number: version}
                    log.info("version %s of the model is ready", number)
        except (VersionBroken, package.Refused) as error:
            if self._wanted.get(number) == nice and not self._stopping.is_set():
                self._refuse(registered, str(error))
        except ModelFailed:  # it was closed, as nobody asks for it any more
            pass
        except (SpiraError, OSError) as error:
            if isinstance(error, ConfigError) and not registered.classifier:
                self._refuse(registered, str(error))  # the registry has it no more
            elif self._not_yet.get(number) != str(error):
                self._not_yet[number] = str(error)
                log.error("version %s of the model is not ready yet: %s", number, error)
        except Exception as error:
            self._error = error
        finally:
            if not is_ready and self._loading is not None:
                self._loading.close()
            self._loading = None

    def _refuse(self, registered: Registered, why: str) -> None:
        with self._lock:
            self._broken[registered.version] = time.monotonic() + AGAIN_SECONDS
            self._unsaid.append((registered.version, registered.classifier, why))
