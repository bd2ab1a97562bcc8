"""Label sessions in Label Studio: tasks out, annotations in, as files or by its REST interface.

A project belongs to one person, who was given its sessions as the own page gives them.  A task
names the session, where its audio is, and what to label by; never a label, nor what a program says.
Audio stays in store A: Label Studio reads it by a storage connection of its own.  What was uploaded
to it would stay on its disk, even after its interface deleted it.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

import httpx
from sqlalchemy import Connection, Engine

from spira_services.labels import assignment
from spira_services.labels.api import Evidence, Instruction
from spira_services.labels.assignment import Answer, NotAllowed
from spira_services.people import Person
from spira_tasks.artifacts.blobs import name_of
from spira_tasks.errors import ConfigError, ServiceUnavailable

Language = Literal["en", "pt"]
# By the value that an annotation has, what it means and how it reads.
ANSWERS: Mapping[str, tuple[int | None, Mapping[Language, str]]] = {
    "1": (1, {"en": "Yes", "pt": "Sim"}),
    "0": (0, {"en": "No", "pt": "Não"}),
    "?": (None, {"en": "Cannot tell", "pt": "Não dá para dizer"}),
}
PAGE = 100  # tasks or projects that are asked for at a time


@dataclass(frozen=True)
class Storage:
    """How Label Studio reads store A."""

    # Before the name of a file in store A: ``s3://bucket/prefix/`` or ``/data/local-files/?d=``.
    audio_at: str
    kind: str  # of its storage connections: ``s3`` or ``localfiles``
    fields: Mapping[str, Any]  # as ``POST /api/storages/<kind>/`` takes them, without the project


@dataclass(frozen=True)
class Session:
    """What a task is made of."""

    session_id: str
    audio: Mapping[str, str]  # by task, the digest
    signs: Mapping[str, Any]


def give(
    connection: Connection, person: Person, evidence: Evidence, instruction: Instruction, n: int
) -> list[Session]:
    """Give a clinician sessions to label; those that were given before and wait are among them."""
    evidence.prepare(connection)
    sessions = []
    for session_id in assignment.give(connection, person, n):
        known = evidence.signs(connection, session_id)
        signs = {name: known.get(name) for name in instruction.signs}
        sessions.append(Session(session_id, evidence.recordings(connection, session_id), signs))
    return sessions


def task(session: Session, instruction: Instruction, audio_at: str) -> dict[str, Any]:
    """A session as Label Studio imports it; ``audio_at`` is as in ``Storage``."""
    signs = {name: value for name, value in session.signs.items() if value is not None}
    data = {"session_id": session.session_id, "instruction_version": instruction.version}
    data |= {name: audio_at + name_of(digest) for name, digest in sorted(session.audio.items())}
    if instruction.signs:
        data["signs"] = ", ".join(f"{name}: {value}" for name, value in signs.items()) or "-"
    return {"data": data}


def label_config(audio: Iterable[str], instruction: Instruction, language: Language) -> str:
    """What a project shows and asks."""
    players = [
        f'<Header value={quoteattr(name)}/><Audio name={quoteattr(name)} value="${name}"/>'
        for name in audio
    ]
    signs = ['<Text name="signs" value="$signs"/>'] if instruction.signs else []
    choices = [
        f"<Choice value={quoteattr(words[language])} alias={quoteattr(value)} "
        f"hotkey={quoteattr(value)}/>"  # the keys that the instruction names
        for value, (_, words) in ANSWERS.items()
    ]
    about = f"<Header value={quoteattr(instruction.title[language])}/>"
    first = next(iter(audio))
    asked = f'<Choices name="label" toName="{first}" choice="single" required="true">'
    return "".join(["<View>", about, *players, *signs, asked, *choices, "</Choices></View>"])


def kinds(sessions: Iterable[Session]) -> Mapping[tuple[str, ...], list[Session]]:
    """Sessions by the recordings that they have: a project plays the same ones in every task."""
    found: dict[tuple[str, ...], list[Session]] = defaultdict(list)
    for session in sessions:
        if session.audio:
            found[tuple(sorted(session.audio))].append(session)
    return found


def answers(exported: Sequence[Mapping[str, Any]], user: int) -> Iterator[Answer | None]:
    """What a user answered, in an export of the form ``JSON``; None in place of others' answers.

    Annotations that were skipped are left out.

    Raises
    ------
    ConfigError
        For another form, or of a project with another labelling config.
    """
    try:
        for one in exported:
            for annotation in one["annotations"]:
                if annotation["was_cancelled"]:
                    continue
                by = annotation["completed_by"]
                if (by["id"] if isinstance(by, Mapping) else by) != user:
                    yield None
                    continue
                (value,) = [
                    choice
                    for part in annotation["result"]
                    if part["from_name"] == "label"
                    for choice in part["value"]["choices"]
                ]
                yield Answer(
                    item_kind="session",
                    item_id=str(one["data"]["session_id"]),
                    label=ANSWERS[value][0],
                    confidence=None,
                    instruction_version=str(one["data"]["instruction_version"]),
                    submission_id=f"{annotation['unique_id']}:{annotation['updated_at']}",
                )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"no export of a SPIRA project in the form JSON ({type(error).__name__}): export it "
            "from Label Studio as JSON, not JSON-MIN"
        ) from None


def record(connection: Connection, person: Person, given: Iterable[Answer | None]) -> Counter[str]:
    """Record a person's answers; counts of ``new``, ``known`` and ``refused``.

    Refused is what another user answered, and what the person was not given.
    """
    counts = Counter({"new": 0, "known": 0, "refused": 0})
    for answer in given:
        try:
            is_new = answer is not None and assignment.submit(connection, person, answer)
        except NotAllowed:
            counts["refused"] += 1
            continue
        counts["refused" if answer is None else "new" if is_new else "known"] += 1
    return counts


@dataclass
class LabelStudio:
    """A server, by its REST interface (1.23)."""

    client: httpx.Client

    @classmethod
    @contextmanager
    def at(cls, address: str, token: str) -> Iterator[LabelStudio]:
        """Sign in by a personal access token."""
        with httpx.Client(base_url=address, timeout=60) as client:
            studio = cls(client)
            access = studio.ask("POST", "/api/token/refresh/", json={"refresh": token})["access"]
            client.headers["Authorization"] = f"Bearer {access}"
            yield studio

    def ask(self, method: str, path: str, **given: Any) -> Any:
        """The JSON of an answer; its text is not repeated in an error, because data may be in it.

        Raises
        ------
        ServiceUnavailable
            When there is no answer, or another one than success.
        """
        try:
            answer = self.client.request(method, path, **given)
            answer.raise_for_status()
            return answer.json() if answer.content else None
        except (httpx.HTTPError, ValueError) as error:
            status = getattr(getattr(error, "response", None), "status_code", "")
            raise ServiceUnavailable(
                f"Label Studio: {method} {path} {status or type(error).__name__}; see that it is "
                "up, and that the token is a personal access token of a member"
            ) from None

    def user(self, email: str) -> int:
        """The id of a member."""
        found = [one["id"] for one in self.ask("GET", "/api/users/") if one["email"] == email]
        if not found:
            raise ConfigError("Label Studio has no member of that address: invite the person there")
        return int(found[0])

    def projects(self, start: str) -> dict[str, int]:
        """Ids of the projects whose titles begin so, by title."""
        about = {"title": start, "page_size": PAGE}
        found = self.ask("GET", "/api/projects/", params=about)["results"]
        return {one["title"]: one["id"] for one in found if one["title"].startswith(start)}

    def tasks(self, project: int) -> dict[str, list[int]]:
        """Ids of the tasks of a project by session: several where two imported at once."""
        found: dict[str, list[int]] = defaultdict(list)
        n_read, n, page = 0, 1, 0
        while n_read < n:
            page += 1
            about = {"project": project, "fields": "all", "page": page, "page_size": PAGE}
            answer = self.ask("GET", "/api/tasks/", params=about)
            for one in answer["tasks"]:
                found[one["data"]["session_id"]].append(one["id"])
            n_read, n = n_read + len(answer["tasks"]), answer["total"]
        return found

    def connect(self, project: int, storage: Storage) -> None:
        """Let a project read store A, unless it does."""
        path = f"/api/storages/{storage.kind}/"
        if not self.ask("GET", path, params={"project": project}):
            self.ask("POST", path, json={**storage.fields, "project": project})

    def export(self, project: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask(
            "GET", f"/api/projects/{project}/export", params={"exportType": "JSON"}
        )
        return found


def sync(
    studio: LabelStudio,
    engine: Engine,
    evidence: Evidence,
    instruction: Instruction,
    person: Person,
    *,
    email: str,
    storage: Storage,
    n: int,
    language: Language,
) -> Counter[str]:
    """Take in what a person answered, and leave there the sessions that wait for them, no others.

    Doing it again changes nothing.  Counts are those of ``record``, and ``put`` and ``removed``.
    """
    start = f"SPIRA {person.person_id[:8]} v{instruction.version} "
    user, projects = studio.user(email), studio.projects(start)
    counts: Counter[str] = Counter()
    for project in projects.values():
        exported = studio.export(project)
        with engine.begin() as connection:
            counts += record(connection, person, answers(exported, user))
    with engine.begin() as connection:
        waiting = kinds(give(connection, person, evidence, instruction, n))
    for audio in waiting:
        title = start + "+".join(audio)
        if title not in projects:
            about = {
                "title": title,
                "label_config": label_config(audio, instruction, language),
                "expert_instruction": instruction.text[language],
                "show_instruction": True,
            }
            projects[title] = studio.ask("POST", "/api/projects/", json=about)["id"]
        studio.connect(projects[title], storage)
    for title, project in projects.items():
        there = studio.tasks(project)
        audio = tuple(title.removeprefix(start).split("+"))
        wanted = {one.session_id: one for one in waiting.get(audio, ())}
        for session_id, ids in sorted(there.items()):
            for number in ids[1:] if session_id in wanted else ids:
                studio.ask("DELETE", f"/api/tasks/{number}/")
                counts["removed"] += 1
        new = [
            task(wanted[one], instruction, storage.audio_at)
            for one in sorted(set(wanted) - set(there))
        ]
        if new:
            studio.ask("POST", f"/api/projects/{project}/import", json=new)
            counts["put"] += len(new)
    return counts


def storage_of(text: str) -> Storage:
    """Read a storage from JSON: ``audio_at``, ``kind``, and the fields of the connection.

    Raises
    ------
    ConfigError
        When the text is something else.
    """
    try:
        fields = json.loads(text)
        return Storage(str(fields.pop("audio_at")), str(fields.pop("kind")), fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"no storage of Label Studio ({type(error).__name__}): write a JSON object with "
            "audio_at, kind and the fields of the connection"
        ) from None
