"""When a snapshot wakes a training: people count, once, and after a time to cool down."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import databases
import pytest
from sqlalchemy import Engine, select

from spira_services import retraining
from spira_services.database import now
from spira_services.events import EVENTS
from spira_services.retraining import Decision, Rule

RULE = Rule(owner="a test", of_each_label=2, of_each_label_at_a_site=1, sites=2, cool_down_hours=24)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with databases.migrated("", tmp_path) as engine:
        yield engine


def people(hc: str, icesp: str = "") -> dict[tuple[str, str], int]:
    """People by site: a digit is the label of a person."""
    sites = {"hc": hc, "icesp": icesp}
    return {(at, f"{at}{n}"): int(one) for at, some in sites.items() for n, one in enumerate(some)}


def decided(
    engine: Engine, new: retraining.People, name: str = "a", run: str = "r1", hours: float = 0
) -> Decision:
    snapshot = {"name": name, "place": f"snapshots/{name}", "as_of": now().isoformat()}
    moment = now() + timedelta(hours=hours)
    with engine.begin() as connection:
        return retraining.decide(connection, snapshot, new, RULE, run_id=run, moment=moment)


@pytest.mark.parametrize(
    ("new", "missing"),
    [
        (people("01", "01"), ()),
        (people("0101"), ("sites",)),
        (people("01", "00"), ("of_each_label", "sites")),
        (people("001", "11"), ("sites",)),  # a site with patients alone does not count
        ({}, ("of_each_label", "sites")),
    ],
)
def test_people_of_both_labels_and_enough_sites_wake_a_training(
    engine: Engine, new: retraining.People, missing: tuple[str, ...]
) -> None:
    found = decided(engine, new)
    assert (found.wakes, found.missing) == (not missing, missing)


def test_a_snapshot_wakes_one_training_and_the_run_that_decided_may_ask_again(
    engine: Engine,
) -> None:
    enough = people("01", "01")
    assert decided(engine, enough).wakes
    assert decided(engine, enough).wakes  # the try before may have been killed
    other = decided(engine, enough, run="r2", hours=48)
    assert (other.wakes, other.missing) == (False, ("new_snapshot",))
    with engine.begin() as connection:
        (event,) = connection.execute(select(EVENTS)).all()
    assert event.unique_key == "training:a"
    assert event.details["rule"] == RULE.model_dump()
    assert event.details["new"] == {site: {"0": 1, "1": 1} for site in ("hc", "icesp")}


def test_a_training_is_not_woken_again_before_the_time_to_cool_down_is_over(engine: Engine) -> None:
    enough = people("01", "01")
    assert decided(engine, enough).wakes
    assert decided(engine, enough, "b", "r2", hours=23).missing == ("cool_down_hours",)
    later = decided(engine, enough, "b", "r3", hours=25)
    assert (later.wakes, later.since) == (True, "a")


def test_the_rule_of_the_file_is_whole_and_knows_no_other_names() -> None:
    assert retraining.rule().of_each_label > 0
    with pytest.raises(ValueError, match="Extra inputs"):
        Rule.model_validate(retraining.rule().model_dump() | {"of_each_lable": 3})
