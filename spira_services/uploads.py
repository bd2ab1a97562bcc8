"""Audio in pieces: what has come of a file is kept until all of it is there.

A file on this machine holds what has come, under the device and the digest that the whole is to
have.  Its length is the offset at which the device goes on, whatever was killed meanwhile.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Header, Request, Response
from fastapi import Path as InPath
from pydantic import BaseModel
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    column,
    delete,
    func,
    select,
    table,
    union,
)
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from spira_services.database import Instant, Json, insert_once, metadata, now, reading
from spira_services.web import Asker, Refused, may_answer
from spira_tasks.artifacts.backends import FULL
from spira_tasks.artifacts.blobs import Blobs, digest_of_file
from spira_tasks.errors import ConfigError

MAX_BYTES = 64 << 20  # of a file: five minutes of stereo at 48 kHz and 16 bits are 58 MB
UNFINISHED_DAYS = 30  # then what a device has not finished goes
# Of a device, so that a key that was stolen does not fill the disk.
MAX_UNFINISHED_BYTES = 2 << 30
A_DAY_VARIABLE, A_DAY_GIB = "SPIRA_DEVICE_GIB_A_DAY", 10  # some 800 sessions
LATER_SECONDS = 3600
PIECE_BYTES = 1 << 16

log = logging.getLogger("spira.services")

# Which device has sent which audio; the bytes are in store A under their digest.
BLOBS = Table(
    "collection_blobs",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("device_id", Text, ForeignKey("collection_devices.device_id"), primary_key=True),
    Column("n_bytes", Integer, nullable=False),
    Column("stored_at", Instant, nullable=False),
    Index("ix_collection_blobs_device_id_stored_at", "device_id", "stored_at"),
)

# What names audio that is in use.  By name: none of these subsystems imports another.
RECORDINGS = table("collection_recordings", column("sha256"))
REVISIONS = table("collection_revisions", column("document", Json))
INFERENCES = table("serving_inferences", column("sha256"), column("deleted_at"))


@dataclass(frozen=True)
class Received:
    """How much of a file is there."""

    offset: int
    is_complete: bool


class Offset(BaseModel):
    offset: int
    length: int
    complete: bool


Digest = Annotated[str, InPath(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Uploads:
    """Where files come in, and the store where they stay."""

    engine: Engine
    folder: Path  # of what is not whole yet
    blobs: Blobs  # store A
    most_a_day: int  # bytes of a device in 24 hours

    def add_to(self, router: APIRouter) -> None:
        """Let devices send files in pieces under ``/blobs/``."""

        @router.head("/blobs/{sha256}", responses=may_answer(401), response_class=Response)
        def offset(sha256: Digest, device: Asker) -> Response:
            """How much of a file has come, in the header Upload-Offset."""
            there = self.received(device.device_id, sha256)
            headers = {"Upload-Offset": str(there.offset)}
            headers["Upload-Complete"] = "?1" if there.is_complete else "?0"
            return Response(headers=headers)

        @router.put("/blobs/{sha256}", responses=may_answer(401, 409, 413, 429, 507))
        async def put(
            request: Request,
            sha256: Digest,
            device: Asker,
            upload_offset: Annotated[int, Header(ge=0)],
            upload_length: Annotated[int, Header(ge=1, le=MAX_BYTES)],
        ) -> Offset:
            """Go on with a file from an offset; the body may be any part of the rest."""
            got = await self.receive(
                device.device_id, sha256, upload_offset, upload_length, request.stream()
            )
            return Offset(offset=got.offset, length=upload_length, complete=got.is_complete)

    def received(self, device_id: str, sha256: str) -> Received:
        """What this device has sent of a file; what others sent is not shown."""
        asked = select(BLOBS.c.n_bytes).where(
            BLOBS.c.sha256 == sha256, BLOBS.c.device_id == device_id
        )
        with reading(self.engine) as connection:
            n_bytes = connection.execute(asked).scalar()
        # A kill while audio is deleted leaves the row: what the store has not can come again.
        if n_bytes is not None and self.blobs.size(f"sha256:{sha256}") == n_bytes:
            return Received(n_bytes, is_complete=True)
        return Received(_length(self._file(device_id, sha256)), is_complete=False)

    async def receive(
        self, device_id: str, sha256: str, offset: int, total: int, body: AsyncIterator[bytes]
    ) -> Received:
        """Append what comes of a file; store it when all is there.

        Parameters
        ----------
        device_id, sha256 : str
        offset : int
            Where the body begins; has to be what ``received`` says.
        total : int
            Length of the whole file in bytes.
        body : async iterator of bytes
            May end anywhere: what has come stays.

        Raises
        ------
        Refused
            With ``wrong_offset``, ``busy``, ``too_large``, ``too_much``, ``too_much_today``,
            ``digest_mismatch`` or ``disk_full``.
        """
        if not 0 < total <= MAX_BYTES:
            raise Refused(413, "too_large", f"a file has 1 to {MAX_BYTES} bytes")
        there = await run_in_threadpool(self.received, device_id, sha256)
        if there.is_complete:
            return there
        if there.offset != offset:
            raise wrong_offset(there.offset)
        file = self._file(device_id, sha256)
        try:
            if not offset:
                await run_in_threadpool(self._drop_old)
            await run_in_threadpool(self._check_room, device_id, total - offset)
            with file.open("ab") as opened:
                try:
                    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise Refused(409, "busy", "this file is being sent already") from None
                if opened.tell() != offset:  # another request was faster
                    raise wrong_offset(opened.tell())
                try:
                    async for piece in body:
                        if opened.tell() + len(piece) > total:
                            raise Refused(413, "too_large", "more bytes than Upload-Length says")
                        opened.write(piece)
                except ClientDisconnect:
                    log.info("an upload was cut off")
                opened.flush()
                if opened.tell() < total:
                    return Received(opened.tell(), is_complete=False)
                await run_in_threadpool(self._store, device_id, sha256, file)
        except OSError as error:
            if error.errno not in FULL:
                raise
            log.error("the disk of %s is full", self.folder)
            raise disk_full() from None
        return Received(total, is_complete=True)

    async def take(self, device_id: str, sha256: str, file: BinaryIO, total: int) -> None:
        """Store a file that came at once; raises as ``receive`` does."""
        if await run_in_threadpool(_sha256, file) != sha256:
            raise _mismatch()
        offset = file.seek(_length(self._file(device_id, sha256)))
        await self.receive(device_id, sha256, offset, total, _pieces(file))

    def _store(self, device_id: str, sha256: str, file: Path) -> None:
        """The store first, then the row that says so; what is left of a kill is done again."""
        if digest_of_file(file) != f"sha256:{sha256}":
            file.unlink()
            raise _mismatch()
        n_bytes = file.stat().st_size
        self.blobs.put_file(file, durable=True)
        with self.engine.begin() as connection:
            note(connection, device_id, sha256, n_bytes)
        file.unlink()

    def _check_room(self, device_id: str, n_more: int) -> None:
        """Refused (429) where a device may not send so many more bytes now."""
        folder = self.folder / device_id
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        n_unfinished = sum(_length(file) for file in folder.iterdir())
        if n_unfinished > MAX_UNFINISHED_BYTES:
            raise Refused(429, "too_much", "too many files were begun and not finished")
        lately = BLOBS.c.device_id == device_id, BLOBS.c.stored_at > now() - timedelta(days=1)
        with reading(self.engine) as connection:
            sent = select(func.coalesce(func.sum(BLOBS.c.n_bytes), 0)).where(*lately)
            n_sent = connection.execute(sent).scalar_one()
        if n_sent + n_unfinished + n_more > self.most_a_day:
            log.warning("device %s has sent as much as it may in 24 hours", device_id)
            raise Refused(
                429,
                "too_much_today",
                "this device has sent as much as it may in 24 hours; keep it, and send it later",
                retry_after_seconds=LATER_SECONDS,
            )

    def _drop_old(self) -> None:
        """Delete what was begun long ago, by devices that did not come back."""
        before = (now() - timedelta(days=UNFINISHED_DAYS)).timestamp()
        for file in self.folder.glob("*/*"):
            # Another request may just have finished it, or be at work on it.
            with suppress(FileNotFoundError, BlockingIOError):
                if file.stat().st_mtime < before:
                    self._drop_part(file)

    def _drop_part(self, file: Path) -> None:
        with file.open("rb") as opened, self.engine.begin() as connection:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            came = select(BLOBS.c.sha256).where(BLOBS.c.sha256 == file.name)
            # A kill may have left it in the store before a row said so.
            if connection.execute(came).first() is None:
                drop(connection, self.blobs, [file.name])
            file.unlink()

    def _file(self, device_id: str, sha256: str) -> Path:
        return self.folder / device_id / sha256


def most_a_day() -> int:
    """The bytes of SPIRA_DEVICE_GIB_A_DAY; raises ConfigError where it says none."""
    said = os.environ.get(A_DAY_VARIABLE) or str(A_DAY_GIB)
    if not said.isdecimal() or not int(said):
        raise ConfigError(f"{A_DAY_VARIABLE} is no whole number above 0: write a count of GiB")
    return int(said) << 30


def _length(file: Path) -> int:
    """Of what has come; nothing where there is none, or another request has just finished it."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def note(connection: Connection, device_id: str, sha256: str, n_bytes: int) -> None:
    """Note, after the bytes are in the store, which device they came from."""
    row = {"sha256": sha256, "device_id": device_id, "n_bytes": n_bytes, "stored_at": now()}
    insert_once(connection, BLOBS, row)


def drop(connection: Connection, blobs: Blobs, digests: Collection[str]) -> int:
    """Delete audio that nothing names any more; return how many files."""
    sent = select(BLOBS.c.sha256).where(BLOBS.c.sha256.in_(digests)).order_by(BLOBS.c.sha256)
    connection.execute(sent.with_for_update())  # who is about to name it comes before or after
    named = union(
        select(RECORDINGS.c.sha256).where(RECORDINGS.c.sha256.in_(digests)),
        select(INFERENCES.c.sha256).where(
            INFERENCES.c.sha256.in_(digests), INFERENCES.c.deleted_at.is_(None)
        ),
    )
    free = set(digests) - set(connection.execute(named).scalars())
    for digest in sorted(free):
        blobs.delete(f"sha256:{digest}")
    connection.execute(delete(BLOBS).where(BLOBS.c.sha256.in_(free)))
    return len(free)


def drop_unnamed(connection: Connection, blobs: Blobs, before: datetime, most: int) -> int:
    """Delete audio that came before a time and that nothing came to name; return how many files.

    Its device was lost, or what it asked was refused.  A device that is back sends it again.
    """
    named = select(RECORDINGS.c.sha256).where(RECORDINGS.c.sha256 == BLOBS.c.sha256)
    asked = select(INFERENCES.c.sha256).where(
        INFERENCES.c.sha256 == BLOBS.c.sha256, INFERENCES.c.deleted_at.is_(None)
    )
    consents = REVISIONS.c.document["consent_sha256"].as_string()  # that were spoken
    old = (
        select(BLOBS.c.sha256)
        .where(~named.exists(), ~asked.exists())
        .where(BLOBS.c.sha256.not_in(select(consents).where(consents.is_not(None))))
        .group_by(BLOBS.c.sha256)
        .having(func.max(BLOBS.c.stored_at) < before)
        .limit(most)
    )
    return drop(connection, blobs, connection.execute(old).scalars().all())


def disk_full() -> Refused:
    return Refused(507, "disk_full", "the server's disk is full; keep the file")


def _mismatch() -> Refused:
    return Refused(422, "digest_mismatch", "the bytes have another SHA-256; send it again")


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while piece := file.read(PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await run_in_threadpool(file.read, PIECE_BYTES):
        yield piece


def wrong_offset(offset: int) -> Refused:
    return Refused(409, "wrong_offset", f"go on at byte {offset}", offset=offset)
