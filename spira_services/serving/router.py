"""Which version answers whom: shadow, canary and A/B as rows, and when a canary is stopped.

A route is a row that starts it and, later, a row that stops it; no row is changed.  Rows alternate
and are counted, so at most one route is open, and of two who act at once only the first succeeds.

A person keeps the version: what decides is a hash of the subject, or of the inference where the
device does not say who it is, with the route's number as salt.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from itertools import groupby
from math import log
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError
from sqlalchemy import Column, Connection, Float, Integer, Table, Text, select
from sqlalchemy.engine import Row

from expectations.personal import holds_personal_data
from spira_services import events
from spira_services.database import Instant, Json, insert_once, metadata, now
from spira_services.serving.tables import FAILURES, INFERENCES, PREDICTIONS
from spira_tasks.config import StageConfig
from spira_tasks.errors import ConfigError

Mode = Literal["shadow", "canary", "ab"]
Arm = Literal["champion", "shadow", "canary", "a", "b"]
# Of an answer that the champion gave because the canary, or arm b, failed to give one.
FALLBACK = "fallback"
LIMITS = Path(__file__).parent.parent.parent / "expectations" / "canary.toml"
N_BEFORE = 500  # answers of the champion from before a route, that say how it usually is
MIN_REASON = 10  # characters
TEST, WORKER = "sequential test", "worker"  # who closes a route, where no person does

# ``started``: a route begins; ``stopped``: it ends, and ``found`` holds the numbers of the test
# where it was the test that ended it.
ROUTES = Table(
    "serving_routes",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("action", Text, nullable=False),  # started, stopped
    Column("mode", Text, nullable=False),
    Column("version", Text, nullable=False),  # number in the registry of what is tried
    Column("share", Float, nullable=False),
    Column("at", Instant, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("found", Json),
)


@dataclass(frozen=True)
class Route:
    """A version that is tried beside the champion."""

    number: int  # of the row that started it
    mode: Mode
    version: str
    share: float  # of people whose requests it gets, in (0, 1]
    started_at: datetime
    by: str
    reason: str


@dataclass(frozen=True)
class Turn:
    """Which arms compute a request; the shown one is the answer.

    Arms ``champion`` and ``a`` are the champion's version, all others the route's.
    """

    shown: Arm
    hidden: Arm | None = None


@dataclass(frozen=True)
class Comparison:
    """One measure of what a route's version did, beside what the champion did meanwhile."""

    measure: str
    n: int  # requests that say something of it, each of another person
    n_with: int
    n_champion: int
    n_champion_with: int
    log_evidence: float | None  # of the test; None where there is none
    needed: float | None  # from which the route ends
    aborts: bool  # whether it was reached, with a difference above what is tolerated


class Limits(StageConfig):
    """When a canary is stopped; ``expectations/canary.toml`` says what and why."""

    owner: str
    alpha: Annotated[float, Field(gt=0, lt=1)]
    n_reference: Annotated[int, Field(ge=1)]
    slow_ratio: Annotated[float, Field(gt=1)]
    tolerated: dict[str, Annotated[float, Field(ge=0, lt=1)]]


class Wanted(StageConfig):
    """The table ``[route]`` of a file: what shall be open."""

    mode: Mode
    version: Annotated[str, Field(pattern=r"^[0-9]+$")]
    share: Annotated[float, Field(gt=0, le=1)]
    why: str


def limits() -> Limits:
    """Those of the file."""
    return Limits.model_validate(tomllib.loads(LIMITS.read_text("utf-8")))


def arms_of(route: Route | None, key: str, *, agreed: bool) -> Turn:
    """Which arms compute the request of a person, and which is shown.

    Parameters
    ----------
    route : Route or None
        The one that is open.
    key : str
        Of ``key_of``.
    agreed : bool
        Whether the person agreed to take part in an A/B test.
    """
    if route is None or (route.mode == "ab" and not agreed):
        return Turn("champion")
    number = int.from_bytes(sha256(f"spira.route/{route.number}/{key}".encode()).digest()[:8])
    is_tried = number < route.share * 2**64
    if route.mode == "shadow":
        return Turn("champion", "shadow" if is_tried else None)
    if route.mode == "canary":
        return Turn("canary" if is_tried else "champion")
    return Turn("b" if is_tried else "a")


def key_of(inference_id: str, subject_id: str | None) -> str:
    """By which a request is routed: the subject, who keeps the version, or the request alone."""
    return subject_id or inference_id


def open_route(connection: Connection) -> Route | None:
    """The route that is open."""
    row = _last(connection)
    return _route(row) if row is not None and row.action == "started" else None


def last_stop(connection: Connection) -> Row[Any] | None:
    """How the last route ended: ``at``, ``actor``, ``reason`` and ``found`` among its fields."""
    asked = select(ROUTES).where(ROUTES.c.action == "stopped")
    return connection.execute(asked.order_by(ROUTES.c.number.desc()).limit(1)).first()


def start(
    connection: Connection, mode: Mode, version: str, share: float, *, by: str, why: str
) -> Route:
    """Open a route, in the caller's transaction.

    Raises
    ------
    ConfigError
        When one is open, the share is none, or the reason is too short or names a person.
    """
    if mode not in get_args(Mode) or not 0 < share <= 1 or (share == 1 and mode != "shadow"):
        raise ConfigError(
            f"{mode} with a share of {share}: the share is above 0 and at most 1, and a canary or "
            "an A/B test leaves some requests to the champion, which it is compared with"
        )
    last = _last(connection)
    if last is not None and last.action == "started":
        raise ConfigError(
            f"a {last.mode} of version {last.version} is open: stop it first, by route stop"
        )
    row = {"mode": mode, "version": version, "share": share}
    return _route(_append(connection, last, "started", row, by=by, why=why))


def stop(
    connection: Connection, *, by: str, why: str, found: Mapping[str, Any] | None = None
) -> Route | None:
    """Close the route that is open, in the caller's transaction; return it, None without one.

    Raises as ``start`` does of a reason.
    """
    last = _last(connection)
    if last is None or last.action != "started":
        return None
    row = {name: getattr(last, name) for name in ("mode", "version", "share")}
    ended = row | {"found": None if found is None else dict(found)}
    _append(connection, last, "stopped", ended, by=by, why=why)
    return _route(last)


def wanted(file: Path) -> Wanted | None:
    """The table ``[route]`` of a TOML file; None where it has none.

    Raises
    ------
    ConfigError
        When the file cannot be read, or says something else.
    """
    try:
        content = tomllib.loads(file.read_text("utf-8"))
        if unknown := sorted(set(content) - {"route"}):
            raise ConfigError(f"{file}: {', '.join(unknown)} is not known; write [route]")
        table = content.get("route")
        return None if table is None else Wanted.model_validate(table)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as TOML: {error}") from None
    except ValidationError as error:
        keys = sorted({str(problem["loc"][-1]) for problem in error.errors() if problem["loc"]})
        raise ConfigError(
            f"{file}: wrong in [route]: {', '.join(keys)}; write mode, version (a text), share, why"
        ) from None


def apply(
    connection: Connection, wanted: Wanted | None, *, by: str, file: Path
) -> tuple[Route | None, bool]:
    """Open what a file names, and close what it does not.

    Returns the route that is open, and whether anything changed.  Raises as ``start`` does, and for
    a route that was stopped by itself: a file that is applied again and again would undo that.
    """
    there = open_route(connection)
    if wanted is None:
        stop(connection, by=by, why=f"the file {file.name} names no route")
        return None, there is not None
    asked = (wanted.mode, wanted.version, wanted.share)
    if there is not None and asked == (there.mode, there.version, there.share):
        return there, False
    ended = None if there is not None else last_stop(connection)
    if ended is not None and ended.actor in (TEST, WORKER) and ended.version == wanted.version:
        raise ConfigError(
            f"the route of version {ended.version} was stopped by the {ended.actor} "
            f"({ended.reason}), and a file does not open it again: name another version, or open "
            f"it by route {wanted.mode}"
        )
    stop(connection, by=by, why=wanted.why)
    return start(connection, *asked, by=by, why=wanted.why), True


def judge(connection: Connection, route: Route, rules: Limits | None = None) -> Comparison | None:
    """Close a canary or A/B test whose version does worse, in the caller's transaction.

    Returns the measure that ended it; None where it goes on, or was closed by somebody before.
    However often it is asked, a version as good as the champion is stopped with a probability of
    at most ``alpha``.
    """
    failed = next(
        (comparison for comparison in compare(connection, route, rules) if comparison.aborts), None
    )
    if failed is None or open_route(connection) != route:
        return None
    found = asdict(failed)
    about = {"route": route.number, "mode": route.mode, "version": route.version, **found}
    # first: of several workers that judge at once the others wait here, and find it closed
    if not events.record(connection, TEST, "route_aborted", f"route:{route.number}", about):
        return None
    stop(connection, by=TEST, why=f"the sequential test: {failed.measure}", found=found)
    return failed


def compare(
    connection: Connection, route: Route, rules: Limits | None = None
) -> Sequence[Comparison]:
    """What a route's version did since it began, beside the champion, by measure.

    Only the first request of a person counts, and only one that the arm it fell to has answered,
    or failed to.  A shadow is counted and not tested: nobody sees its answers.
    """
    import numpy as np

    from spira_services.serving import sequential

    rules = rules or limits()
    pairs = _seen(connection, route)
    before = _before(connection, route)
    is_tried = np.array([tried for tried, _ in pairs], dtype=bool)
    measured = _measure([row for tried, row in pairs], is_tried, before, rules)
    needed = log(len(sequential.MEASURES) / rules.alpha)
    found = []
    for name, side in sequential.MEASURES.items():
        outcome, earlier = measured[name]
        counts = {
            mine: (int((~np.isnan(outcome[of])).sum()), int(np.nansum(outcome[of])))
            for mine, of in (("tried", is_tried), ("champion", ~is_tried))
        }
        most, aborts = None, False
        if route.mode != "shadow" and len(pairs):
            evidence = sequential.log_evidence(is_tried, outcome, route.share, side, earlier)
            gap = sequential.differs(is_tried, outcome, side, rules.tolerated[name])
            most, aborts = float(evidence.max()), bool(((evidence >= needed) & gap).any())
        found.append(
            Comparison(
                name,
                *counts["tried"],
                *counts["champion"],
                most,
                None if route.mode == "shadow" else needed,
                aborts,
            )
        )
    return found


def _seen(connection: Connection, route: Route) -> list[tuple[bool, Row[Any] | None]]:
    """Whether each request fell to the route's version, and its answer, in their order of time."""
    asked = (
        select(
            INFERENCES.c.inference_id,
            INFERENCES.c.subject_id,
            INFERENCES.c.agreed,
            *_ANSWER,
            FAILURES.c.at.label("failed_at"),
        )
        .outerjoin(PREDICTIONS, PREDICTIONS.c.inference_id == INFERENCES.c.inference_id)
        .outerjoin(FAILURES, FAILURES.c.inference_id == INFERENCES.c.inference_id)
        .where(INFERENCES.c.received_at >= route.started_at, INFERENCES.c.deleted_at.is_(None))
        .order_by(INFERENCES.c.received_at, INFERENCES.c.inference_id)
    )
    known: set[str] = set()
    found: list[tuple[datetime, bool, Any]] = []
    for _, group in groupby(connection.execute(asked), key=lambda row: row.inference_id):
        rows = list(group)
        first, answers = rows[0], {row.arm: row for row in rows if row.arm}
        key = key_of(first.inference_id, first.subject_id)
        turn = arms_of(route, key, agreed=bool(first.agreed.get("ab")))
        if key in known or (route.mode == "ab" and turn.shown == "champion"):
            continue
        known.add(key)
        shown, is_tried = answers.get(turn.shown), turn.shown in ("canary", "b")
        if turn.hidden:
            if shown is not None and (hidden := answers.get(turn.hidden)) is not None:
                found += [(hidden.at, True, hidden), (hidden.at, False, shown)]
        elif route.mode == "shadow":
            continue
        elif shown is not None:
            found.append((shown.at, is_tried, shown))
        elif is_tried and FALLBACK in answers:
            found.append((answers[FALLBACK].at, True, None))
        elif first.failed_at is not None:
            found.append((first.failed_at, is_tried, None))
        # else it waits, or was answered by a worker that did not know the route yet
    found.sort(key=lambda row: row[0])
    return [(is_tried, answer) for _, is_tried, answer in found]


_ANSWER = tuple(
    PREDICTIONS.c[name]
    for name in ("arm", "at", "decision", "probability", "record_again", "compute_seconds")
)


def _before(connection: Connection, route: Route) -> list[Row[Any]]:
    """The champion's answers from before a route, the newest."""
    asked = (
        select(*_ANSWER)
        .where(PREDICTIONS.c.at < route.started_at, PREDICTIONS.c.arm == "champion")
        .where(PREDICTIONS.c.shown)
        .order_by(PREDICTIONS.c.number.desc())
        .limit(N_BEFORE)
    )
    return list(connection.execute(asked))


def _measure(
    answers: Sequence[Row[Any] | None], is_tried: Any, before: Sequence[Row[Any]], rules: Limits
) -> dict[str, tuple[Any, tuple[int, int]]]:
    """Outcome of each request by measure (NaN where it says nothing), and counts from before."""
    import numpy as np

    from spira_services.serving.sequential import MEASURES

    reference, begin = list(before), 0
    for n, answer in enumerate(answers):
        if len(reference) >= rules.n_reference:
            break
        if answer is not None and not is_tried[n]:
            reference.append(answer)
        begin = n + 1  # until then nothing is slow, or above the middle
    scores = [row.probability for row in reference if row.probability is not None]
    middle = median(scores) if scores else None
    slow = rules.slow_ratio * median([row.compute_seconds for row in reference] or [0.0])

    def of(answer: Row[Any], n: int) -> dict[str, float]:
        is_scored, is_later = answer.probability is not None, n >= begin
        return {
            "errors": 0.0,
            "slow": float(answer.compute_seconds > slow) if is_later else np.nan,
            "positives": float(answer.decision == "positive") if is_scored else np.nan,
            "scores": float(answer.probability > middle)
            if is_scored and is_later and middle is not None
            else np.nan,
            "record_again": float(bool(answer.record_again)),
        }

    failed = dict.fromkeys(MEASURES, np.nan) | {"errors": 1.0}
    outcomes = [failed if answer is None else of(answer, n) for n, answer in enumerate(answers)]
    earlier = [of(answer, begin) for answer in before]
    return {
        name: (
            np.array([values[name] for values in outcomes], dtype=float),
            (
                sum(not np.isnan(values[name]) for values in earlier),
                int(np.nansum([values[name] for values in earlier])),
            ),
        )
        for name in failed
    }


def _append(
    connection: Connection,
    last: Row[Any] | None,
    action: str,
    row: dict[str, Any],
    *,
    by: str,
    why: str,
) -> Row[Any]:
    why = " ".join(why.split())
    if len(why) < MIN_REASON or holds_personal_data(why):
        raise ConfigError(
            f"a written reason of at least {MIN_REASON} characters is needed, without the number "
            "or the address of a person: it is kept for ever"
        )
    number = 1 if last is None else last.number + 1
    fields = {"number": number, "action": action, "at": now(), "actor": by, "reason": why}
    if not insert_once(connection, ROUTES, row | fields):
        raise ConfigError("somebody else has just changed the route: look at it by route show")
    return connection.execute(select(ROUTES).where(ROUTES.c.number == number)).one()


def _last(connection: Connection) -> Row[Any] | None:
    return connection.execute(select(ROUTES).order_by(ROUTES.c.number.desc()).limit(1)).first()


def _route(row: Row[Any]) -> Route:
    return Route(row.number, row.mode, row.version, row.share, row.at, row.actor, row.reason)
