"""What a collector does with a phone: record without a network, lose the browser, send, mend."""

from __future__ import annotations

import hashlib
import io
import json
import re
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import NEEDS_CHROMIUM, Page
from collecting import Collection
from numpy.typing import NDArray
from on_phone import (
    NARROW,
    RATE_HZ,
    address,
    enrol,
    enrol_anew,
    kept,
    network,
    phone,
    record,
    voice,
    wav,
)
from sqlalchemy import select

from spira_services import devices
from spira_services.collection import api
from spira_services.collection.documents import CONSENTS, RECORDINGS, REVISIONS
from spira_tasks.artifacts.blobs import Blobs
from spira_tasks.artifacts.sources import open_backend
from spira_tasks.intake import audio_reader

pytestmark = NEEDS_CHROMIUM
RECORDED = ("AMBIENT", "VOWEL", "SENTENCE")  # the rhyme is skipped
NUMBER = "12345678D"  # of which the letter is right
STORED = (
    "document.querySelector('.session.accepted') && "
    "!document.querySelector('.session.waiting, .session.uploading')"
)
TYPED = """(async () => { while ((await store.sessions())[0].form.spo2 != '93')
    await new Promise(soon => setTimeout(soon, 50)); })()"""
PART_AHEAD = """(async () => {
    const take = (await store.sessions())[0].takes.VOWEL, device = await store.fact('device');
    const api = await import('/collection/api.js'), bytes = await store.bytesOf(take);
    await api.sendPart(device.key, take.sha256, 0, take.n_bytes, bytes.slice(0, 1000)); })()"""
NOTE_OFFSETS = """self.offsets = []; self.ask = self.fetch; self.fetch = (url, options) => {
    self.offsets.push(options.headers['Upload-Offset']); return self.ask(url, options); }; 0"""


def consent(page: Page, answer: str = "Agrees") -> None:
    page.click("#start")
    page.click(".choice", answer)
    page.click("#next")


def record_all(page: Page, microphone: Path) -> None:
    for task in RECORDED:
        record(page, microphone, task)
        if task == "VOWEL":
            page.click("#skip")


def fill_in(page: Page, **answers: str) -> None:
    page.wait("document.querySelector('#field-age')")
    page.click(".choice", "Patient")
    page.click(".choice", "Female")
    for name, text in {"patient_rgh": NUMBER, "age": "61", **answers}.items():
        page.type(f"#field-{name}", text)


def rows(collection: Collection, table: Any, session_id: str) -> list[Any]:
    asked = select(table).where(table.c.session_id == session_id)
    with collection.engine.connect() as connection:
        return [*connection.execute(asked)]


def test_what_is_recorded_offline_survives_a_killed_browser_and_arrives_whole_and_once(
    collection: Collection, microphone: Path, tmp_path: Path
) -> None:
    with phone(tmp_path, microphone) as before:
        enrol(before, collection)
        network(before, there=False)
        consent(before)
        record_all(before, microphone)
        fill_in(before, spo2="93")
        kept(before, TYPED)
        before.process.kill()

    with phone(tmp_path, microphone) as page:
        network(page, there=False)
        page.open(address(collection))
        page.read("1 unsent")
        page.click("button", "Continue")
        page.wait("document.querySelector('#field-spo2').value == '93'")
        page.click("#next")
        page.click("#finish")
        page.read("On this phone, to be sent")
        (session,) = kept(page, "store.sessions()")
        assert rows(collection, REVISIONS, session["id"]) == []
        network(page, there=True)
        page.wait(STORED)
        page.click("summary", "Receipt")
        receipt = page.read("Received by the server")

        (revision,) = rows(collection, REVISIONS, session["id"])
        recordings = rows(collection, RECORDINGS, session["id"])
        audio = Blobs(open_backend(str(collection.folder / "audio")))
        assert revision.status == "accepted"
        assert revision.document["values"]["spo2"] == "93"
        assert revision.document["capture"]["agc"] is False
        assert {row.task for row in recordings} == set(RECORDED)
        for row in recordings:
            stored = audio.read(f"sha256:{row.sha256}")
            assert hashlib.sha256(stored).hexdigest() == row.sha256
            assert session["takes"][row.task]["sha256"] == row.sha256
            assert row.sha256 in receipt
            with wave.open(io.BytesIO(stored)) as file:
                rate_hz = session["takes"][row.task]["capture"]["sample_rate_hz"]
                assert (file.getframerate(), file.getnchannels()) == (rate_hz, 1)
        (left,) = kept(page, "store.sessions()")
        assert (left["form"], left["values"]) == ({}, {})
        assert kept(page, "store.bytesOf((await store.sessions())[0].takes.VOWEL)") is None
        key = kept(page, "(await store.fact('device')).key")
        ours = (address(collection), "data:")  # pictures that the browser itself has
        assert [url for url in page.requested if not url.startswith(ours)] == []
        assert not any(part in url for url in page.requested for part in (key, NUMBER, "code="))


def test_a_refused_session_opens_at_what_is_wrong_and_is_sent_as_the_next_revision(
    collection: Collection, page: Page, microphone: Path
) -> None:
    page.open(address(collection))
    consent(page)
    record_all(page, microphone)
    fill_in(page, cid10="flu")  # of which the phone knows no rule
    page.click("#next")
    page.click("#finish")
    page.read("Diagnosis (ICD-10): This is no value of this field. An example: J96.0.")
    n_parts = sum("/blobs/" in url for url in page.requested)
    page.click("button", "Mend")
    page.wait("document.activeElement.matches('#field-cid10[aria-invalid=true]')")
    page.type("#field-cid10", "J96.0")
    page.click("#next")
    page.click("#finish", "send again")
    page.wait(STORED)
    session_id = kept(page, "(await store.sessions())[0].id")
    assert [(row.revision, row.status) for row in rows(collection, REVISIONS, session_id)] == [
        (1, "refused"),
        (2, "accepted"),
    ]
    asked_again = sum("/blobs/" in url for url in page.requested) - n_parts
    assert asked_again == len(RECORDED)  # HEAD alone: the audio is there


def test_a_consent_that_was_pending_is_sent_when_it_was_given_also_without_a_network(
    collection: Collection, page: Page, microphone: Path
) -> None:
    page.open(address(collection))
    consent(page, "Will decide later")
    record_all(page, microphone)
    fill_in(page)
    page.click("#next")
    page.click("#finish")
    page.wait(STORED)
    session_id = kept(page, "(await store.sessions())[0].id")
    network(page, there=False)
    page.click("button", "Consent was given")
    page.click("button", "Yes, agreed")
    page.read("consent given, to be told")
    network(page, there=True)
    page.wait(STORED + " && !document.querySelector('.session.consenting')")
    statuses = [row.status for row in rows(collection, CONSENTS, session_id)]
    assert statuses == ["pending", "granted"]


def test_a_file_goes_on_from_the_byte_that_the_server_has(
    collection: Collection, page: Page, microphone: Path
) -> None:
    page.open(address(collection))
    consent(page)
    record_all(page, microphone)
    fill_in(page)
    kept(page, PART_AHEAD)
    page.run(NOTE_OFFSETS)
    page.click("#next")
    page.click("#finish")
    page.wait(STORED)
    offsets = page.run("self.offsets")
    assert (offsets.count("0"), offsets.count("1000")) == (len(RECORDED) - 1, 1)


def test_what_a_lost_key_cannot_send_goes_with_the_key_of_a_new_code(
    collection: Collection, page: Page, microphone: Path
) -> None:
    page.open(address(collection))
    with collection.engine.begin() as connection:
        key = kept(page, "(await store.fact('device')).key")
        devices.end(connection, key.partition(".")[0], "cli:test")
    consent(page)
    record_all(page, microphone)
    fill_in(page)
    page.click("#next")
    page.click("#finish")
    page.read("Ask for a new code; the recordings stay here.")
    page.run(f"location.hash = 'code={collection.code()}'")
    page.click("form button", "Enrol phone")
    page.wait(STORED)
    assert "code=" not in page.run("location.href")
    session_id = kept(page, "(await store.sessions())[0].id")
    assert len(rows(collection, RECORDINGS, session_id)) == len(RECORDED)


def test_a_phone_that_was_given_to_somebody_else_says_that_a_withdrawal_is_not_known_yet(
    collection: Collection, page: Page
) -> None:
    """That of the session of the test before."""
    page.open(address(collection))
    session_id, sent_as = kept(page, "store.sessions().then(([{id, sent_as}]) => [id, sent_as])")
    enrol_anew(page, collection.code())
    page.click(f"#receipt-{session_id} summary")
    page.click(f"#withdraw-{session_id}")
    page.click("#yes")
    page.read("The server does not know of the withdrawal yet")
    assert {row.status for row in rows(collection, CONSENTS, session_id)} == {"granted"}
    enrol_anew(page, collection.code(device_id=sent_as))
    page.wait("!document.querySelector('.session.withdrawing')")
    assert "withdrawn" in {row.status for row in rows(collection, CONSENTS, session_id)}


def test_a_session_is_recorded_by_keyboard_alone(
    collection: Collection, page: Page, microphone: Path
) -> None:
    microphone.write_bytes(wav(voice(8)))
    page.open(address(collection))
    go_by_tab(page, "#start")
    press(page, "Enter")
    page.wait("document.activeElement.matches('h1') && location.hash.endsWith('/consent')")
    go_by_tab(page, "#consent-granted")
    press(page, " ")
    go_by_tab(page, "#next")
    press(page, "Enter")
    page.wait("document.activeElement.matches('h1') && location.hash.endsWith('/AMBIENT')")
    go_by_tab(page, "#record")
    press(page, "Enter")
    page.wait("document.querySelector('.take.recording') && document.activeElement.id == 'record'")
    press(page, "Enter")
    page.wait("document.querySelector('.take_bad') && document.activeElement.id == 'record'")
    page.read("Too short: 3 s are needed.")
    go_by_tab(page, "#leave")
    press(page, "Enter")
    page.read("To finish")


def go_by_tab(page: Page, selector: str) -> None:
    for _ in range(30):
        if page.run(f"document.activeElement.matches({json.dumps(selector)})"):
            return
        press(page, "Tab")
    raise AssertionError(f"{selector} is not reached; the page says\n{page.text()}")


def press(page: Page, key: str) -> None:
    code = {"Tab": 9, "Enter": 13, " ": 32}[key]
    text = {"Enter": "\r", " ": " "}.get(key, "")
    about = {"key": key, "windowsVirtualKeyCode": code}
    page.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
    page.call("Input.dispatchKeyEvent", type="keyUp", **about)


@pytest.mark.parametrize("language", ["en", "pt-BR"])
def test_no_screen_is_wider_than_a_phone_in_any_language(
    collection: Collection, page: Page, language: str
) -> None:
    page.open(address(collection))
    page.wait("document.querySelector('#start')")
    if page.run("document.documentElement.lang") != language:
        page.click("#language")
    page.wait(f"document.documentElement.lang == '{language}'")
    page.click("#start")
    page.click("#consent-granted")
    page.click("#next")
    page.wait("location.hash.endsWith('/AMBIENT')")
    session = page.run("location.hash.split('/')[2]")
    for place in ("#/", "#/enrol", *(f"#/session/{session}/{step}" for step in STEPS)):
        page.run(f"location.hash = {json.dumps(place)}")
        page.wait("document.activeElement.matches('h1')")
        assert page.run("document.documentElement.scrollWidth") == NARROW, place


STEPS = ("consent", "AMBIENT", "VOWEL", "RHYME", "SENTENCE", "form", "review")

TASK = "{task: 'SENTENCE', min_seconds: 2.5}"


def checked(page: Page, samples: NDArray[np.int16]) -> dict[str, Any]:
    """What the phone finds on samples."""
    script = f"""import('/collection/checks.js').then(({{check}}) =>
        check(Int16Array.from({samples.tolist()}), {RATE_HZ}, {TASK}))"""
    return dict(page.run(script))


@pytest.mark.parametrize(
    ("samples", "codes"),
    [
        (voice(3), []),
        (voice(2), ["too_short"]),
        (voice(3, gain=4), ["clipped"]),
        (voice(3, gain=0.003), ["too_quiet"]),
        (voice(3, gain=0.02), ["quiet"]),
        (np.zeros(3 * RATE_HZ, np.int16), ["dead_input"]),
        (np.full(3 * RATE_HZ, 700, np.int16), ["dead_input"]),
        (np.concatenate([voice(2), np.zeros(RATE_HZ, np.int16), voice(2)]), ["gaps"]),
    ],
    ids=lambda value: "+".join(value) or "good" if isinstance(value, list) else "",
)
def test_a_take_that_is_no_good_is_known_before_the_next(
    page: Page, samples: NDArray[np.int16], codes: list[str]
) -> None:
    assert [finding["code"] for finding in checked(page, samples)["findings"]] == codes


def test_the_phone_measures_what_the_server_measures(page: Page) -> None:
    samples = np.clip(voice(3, gain=3).astype(int) + 300, -32_768, 32_767).astype(np.int16)
    there = audio_reader.convert(wav(samples), 60)
    here = checked(page, samples)["measured"]
    assert there["clipping_fraction"] > 0
    for name in ("level_dbfs", "clipping_fraction", "dc_offset", "peak"):
        assert here[name] == pytest.approx(there[name], rel=1e-3), name


def test_a_file_of_the_phone_is_the_wav_that_other_programs_write(page: Page) -> None:
    samples = voice(0.1)
    script = f"""import('/collection/wav.js').then(wav =>
        wav.sha256(wav.encodeWav(Int16Array.from({samples.tolist()}), {RATE_HZ})))"""
    assert page.run(script) == hashlib.sha256(wav(samples)).hexdigest()


@pytest.mark.parametrize(
    ("number", "is_right"),
    [
        ("12345678D", True),
        ("12345678d", True),
        ("1234567-8 D", True),
        ("12345687D", False),
        ("12345678A", False),
        ("1234567J", False),
        ("123456789", False),
    ],
)
def test_the_letter_of_a_hospital_number_follows_from_its_digits(
    page: Page, number: str, is_right: bool
) -> None:
    script = f"import('/collection/form_rules.js').then(r => r.hasRightLetter('{number}'))"
    assert page.run(script) == is_right


def test_every_word_that_the_page_asks_for_is_there() -> None:
    scripts = {file.name: file.read_text() for file in api.APP.glob("*.js")}
    words = set(re.findall(r'^  "?([\w/]+)"?: \[', scripts["words.js"], re.MULTILINE))
    asked = {word for text in scripts.values() for word in re.findall(r'\bt\("(\w+)"', text)}
    assert len(asked) > 50
    assert asked - words == set()


def test_a_changed_file_has_a_version_of_its_own_and_is_kept_for_use_offline() -> None:
    files = sorted(
        file for file in api.APP.iterdir() if file.name not in ("version.js", "worker.js")
    )
    worker = (api.APP / "worker.js").read_text()
    listed = set(re.findall(r'^  "(.+)",$', worker, re.MULTILINE))
    assert listed == {"./", "version.js", *(f.name for f in files if f.name != "index.html")}
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    version = (api.APP / "version.js").read_text()
    assert f'"{digest}"' in version, f"set SPIRA_VERSION to {digest}: phones take it by that"
