"""What a health worker does to ask a model: record, lose the network, send, read the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser import NEEDS_CHROMIUM, Page
from collecting import Collection
from in_use import put_into_use
from on_phone import NARROW, address, enrol_anew, kept, network, record, voice, wav
from serving import publish, until, working
from sqlalchemy import select, update

from spira_services.database import now
from spira_services.devices import DEVICES
from spira_services.serving.queue import SqlQueue
from spira_services.serving.tables import ACTIONS, INFERENCES, PREDICTIONS
from spira_tasks.artifacts import Store
from spira_tasks.tracking import Tracker

pytestmark = NEEDS_CHROMIUM
NUMBER = "12345678D"
HEADS = {"positive": "The model heard signs", "negative": "The model heard no signs"}
# Of any store of the browser: what was kept of what a model said.
ALL_KEPT = """Promise.all((await indexedDB.databases()).map(({name}) => new Promise(done => {
    indexedDB.open(name).onsuccess = ({target: {result: db}}) => {
        const found = [], names = [...db.objectStoreNames];
        names.forEach(name => { db.transaction(name).objectStore(name).getAll().onsuccess =
            ({target}) => { found.push(JSON.stringify(target.result));
                if (found.length === names.length) done(found.join()); }; }); }; })))
    .then(all => all.join() + JSON.stringify(localStorage))"""


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A registry whose model may serve."""
    folder = tmp_path_factory.mktemp("registry")
    store = Store(str(folder / "store"))
    publish(store, folder)
    put_into_use(Tracker(store.tracking_uri), "1")
    return store


def rows(collection: Collection, table: Any) -> list[Any]:
    with collection.engine.connect() as connection:
        return [*connection.execute(select(table))]


def test_what_is_recorded_offline_is_sent_when_there_is_a_network_and_answered_in_plain_words(
    collection: Collection, page: Page, microphone: Path, champion: Store
) -> None:
    page.open(address(collection))
    network(page, there=False)
    page.click("#ask", "Ask the model")
    record(page, microphone, "SENTENCE")
    page.type("#number", NUMBER)
    page.click("#agrees-labels")
    page.click("#send-ask")
    page.read("On this phone, to be sent")
    page.read("No network. Sends by itself when there is a network.")
    assert rows(collection, INFERENCES) == []
    # The network was away for longer than an answer is kept on the list.
    kept(page, change("now.created_at = '2024-01-01T00:00:00Z'"))
    network(page, there=True)
    page.wait("document.querySelector('.answer h2').innerText == 'Waiting for the answer'")
    (asked,) = rows(collection, INFERENCES)
    assert (asked.agreed["labels"], asked.agreed["ab"]) == (True, False)
    assert (asked.about["agc"], asked.task) == (False, "SENTENCE")
    assert asked.subject_id is not None
    assert collection.blobs.exists(f"sha256:{asked.sha256}")
    assert kept(page, "store.bytesOf((await store.sessions())[0].takes.SENTENCE)") is None
    kept(page, "store.forgetOldAsks()")

    with working(collection.engine, collection.blobs, SqlQueue(collection.engine), champion):
        shown = page.read("This is not a diagnosis.")
    (answered,) = rows(collection, PREDICTIONS)
    assert HEADS[answered.decision] in shown
    assert f"{answered.probability:.0%}" in shown
    assert "a computer made" in shown  # the model learned from nothing
    page.click("summary", "Limits and version")
    page.read(f"{len(answered.window_scores)} of 4 s")
    page.click("#agreed")
    page.read("Noted.")
    assert {row.action for row in rows(collection, ACTIONS)} == {"seen", "agreed"}
    left = page.run(f"(async () => {ALL_KEPT})()")
    assert asked.inference_id in left
    for gone in (NUMBER, answered.decision, "probability", "window_scores"):
        assert gone not in left
    assert not any(part in url for url in page.requested for part in (NUMBER, "Bearer"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"decision": "inconclusive", "probability": 0.52, "unusual": ["bandwidth_hz_low"]},
            [
                "The model cannot tell",
                "52%",
                "a wireless headset",
                "near the point where the model errs most",
            ],
        ),
        (
            {"decision": "negative", "probability": 0.12, "unusual": []},
            ["The model heard no signs", "12%", "That does not exclude the illness."],
        ),
        (
            {
                "decision": None,
                "probability": None,
                "window_scores": [],
                "record_again": ["snr_db_low", "a_code_of_tomorrow"],
            },
            ["Record again", "close the door", "beyond what the model takes", "nothing about the"],
        ),
    ],
    ids=["inconclusive", "negative", "again"],
)
def test_every_answer_says_what_it_means_in_words(
    collection: Collection, page: Page, changes: dict[str, Any], words: list[str]
) -> None:
    """On the recording of the test before, as if another model had answered."""
    with collection.engine.begin() as connection:
        connection.execute(update(PREDICTIONS).values(**changes))
    page.open(address(collection))
    page.click("#answers")
    page.click("a.button", "Look")
    shown = page.read(words[-1])
    for expected in words:
        assert expected in shown
    assert ("Probability given" in shown) is (changes["probability"] is not None)
    assert page.run("document.documentElement.scrollWidth") == NARROW


def test_what_is_deleted_on_the_phone_is_deleted_on_the_server(
    collection: Collection, page: Page
) -> None:
    (asked,) = rows(collection, INFERENCES)
    network(page, there=False)
    page.click("#delete")
    page.click("#yes")
    page.read("To be deleted on the server")
    network(page, there=True)
    page.read("Nothing was asked yet.")
    (gone,) = rows(collection, INFERENCES)
    assert gone.deleted_at is not None
    assert gone.subject_id is None
    assert not collection.blobs.exists(f"sha256:{asked.sha256}")


def change(edit: str) -> str:
    """An expression of ``store``: change what was asked last."""
    return f"store.change((await store.sessions())[0].id, now => {{ {edit} }})"


def test_a_phone_whose_clock_is_ahead_says_so_and_one_that_was_ended_too(
    collection: Collection, page: Page, microphone: Path
) -> None:
    page.open(address(collection))
    network(page, there=False)
    page.click("#ask", "Ask the model")
    record(page, microphone, "SENTENCE")
    page.click("#send-ask")
    page.read("On this phone, to be sent")
    recorded_at = "now.takes.SENTENCE.recorded_at = "
    kept(page, change(f"{recorded_at}'2999-01-01T00:00:00Z'"))
    network(page, there=True)
    page.read("The clock of this phone is ahead.")
    kept(page, change(f"{recorded_at}'2024-01-01T00:00:00Z'"))
    page.click("#send")
    page.read("Waiting for the answer")
    with collection.engine.begin() as connection:
        connection.execute(update(DEVICES).values(ended_at=now()))
    page.read("The server does not know this phone any more.")
    with collection.engine.begin() as connection:
        connection.execute(update(DEVICES).values(ended_at=None))


def test_a_phone_that_was_given_to_somebody_else_says_that_it_has_deleted_nothing_yet(
    collection: Collection, page: Page
) -> None:
    """What was asked in the test before."""
    page.open(address(collection))
    asked = rows(collection, INFERENCES)[-1]
    enrol_anew(page, collection.code())
    page.click("#answers")
    page.click("a.button", "Look")
    page.click("#delete")
    page.click("#yes")
    page.read("To be deleted on the server")
    page.click("a.button", "Look")
    page.read("It is not deleted on the server yet")
    assert rows(collection, INFERENCES)[-1].deleted_at is None
    enrol_anew(page, collection.code(device_id=asked.device_id))
    until(lambda: rows(collection, INFERENCES)[-1].deleted_at is not None)
    page.wait("document.querySelector('#answers') === null")


def test_a_take_that_is_no_good_is_never_sent(
    collection: Collection, page: Page, microphone: Path
) -> None:
    n_before = len(rows(collection, INFERENCES))
    page.open(address(collection))
    page.click("#ask", "Ask the model")
    microphone.write_bytes(wav(voice(8, gain=4)))
    page.click("#record", "Record")
    page.wait("/^[^·]*[1-9][^·]*$/.test(document.querySelector('.seconds').textContent)")
    page.click("#record", "Stop")
    page.read("It has to be recorded again")
    assert page.run("document.querySelector('#next')") is None
    assert len(rows(collection, INFERENCES)) == n_before
