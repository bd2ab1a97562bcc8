"""People who sign in work in a browser, from the keyboard alone."""

from __future__ import annotations

from pathlib import Path

from browser import NEEDS_CHROMIUM, Page, chromium
from collecting import ANSWERS, session
from labelling import Ward, ward
from sqlalchemy import select

from spira_services.collection.documents import CONSENTS
from spira_services.database import now
from spira_services.labels.store import LABEL, events_as_of

__all__ = ["ward"]  # the fixture

pytestmark = NEEDS_CHROMIUM


def press(page: Page, key: str) -> None:
    text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
    page.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
    page.call("Input.dispatchKeyEvent", type="keyUp", key=key)


def sign_in(page: Page, who: dict[str, str]) -> None:
    page.wait("location.pathname == '/sign-in' && document.querySelector('#password')")
    for field, value in who.items():
        page.type(f"#{field}", value)
    press(page, "Enter")


def drawn(page: Page) -> None:
    page.wait("document.querySelectorAll('.take[data-drawn]').length == 3")


def test_a_clinician_hears_sees_and_labels_by_keys(ward: Ward, tmp_path: Path) -> None:
    phone = ward.phone()
    for seed in range(2):
        assert phone.send(session(seed)).json()["status"] == "accepted"
    with chromium(tmp_path / "profile") as page:
        phone_size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": False}
        page.call("Emulation.setDeviceMetricsOverride", **phone_size)
        page.open(f"{ward.address}/labels/")
        sign_in(page, ward.add("clinician"))
        drawn(page)
        page.read("Judge by the voice alone")
        # Noise is dark nearly everywhere; a canvas that nothing was drawn on is transparent.
        assert page.run(
            "Array.from(document.querySelectorAll('canvas')).every(canvas => {"
            " const {data} = canvas.getContext('2d').getImageData(10, 50, 20, 100);"
            " return data.every((value, n) => n % 4 < 3 || value == 255)"
            "   && data.filter((value, n) => n % 4 < 3 && value < 160).length > 3000 })"
        )
        assert page.run("document.documentElement.scrollWidth <= 360")
        press(page, "Enter")
        page.read("Choose an answer first.")
        for key in "1d":
            press(page, key)
        press(page, "Enter")
        page.read("Stored.")
        page.wait("document.activeElement.id == 'next'")
        press(page, "Enter")
        page.read("Sessions waiting: 2.")
        drawn(page)
        for key in "?a":
            press(page, key)
        press(page, "Enter")
        page.read("Stored.")
        press(page, "Enter")
        page.read("There is nothing to label now.")
        page.click("#language")
        page.read("Não há nada para rotular agora.")
        assert all(
            url.startswith((ward.address, "blob:", "data:", "about:")) for url in page.requested
        )
    with ward.engine.begin() as connection:
        events = events_as_of(connection, now(), LABEL)
    assert [(one.label, one.confidence) for one in events] == [(1, 0.95), (None, 0.6)]


def test_an_adjudicator_sees_the_agreement(ward: Ward, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as page:
        page.open(f"{ward.address}/")
        sign_in(page, ward.add("adjudicator"))
        page.click("a", "Agreement")  # who asked for no page chooses one
        page.read("Most disputed sessions\nNone yet.")
        assert page.run("[...document.querySelectorAll('.wide')].every(one => one.tabIndex === 0)")


def test_a_data_manager_sees_what_came_and_takes_a_consent_by_keys(
    ward: Ward, tmp_path: Path
) -> None:
    phone = ward.phone()
    phone.send(session(1, form=ANSWERS | {"age": 7}))
    phone.send(session(2, consent="pending"))
    with chromium(tmp_path / "profile") as page:
        phone_size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": False}
        page.call("Emulation.setDeviceMetricsOverride", **phone_size)
        page.open(f"{ward.address}/overview/")
        sign_in(page, ward.add("data_manager"))
        page.read("Age: out of range (1)")
        assert page.run("document.documentElement.scrollWidth <= 360")
        page.run("self.confirm = () => true; document.querySelector('td button').focus()")
        press(page, "Enter")
        page.read("None.")
        page.wait("document.activeElement.id == 'pending'")
        page.click("#language")
        page.read("Idade: fora da faixa (1)")
        page.open(f"{ward.address}/labels/")
        page.read("Esta página não existe ou não é sua.")
        assert all(url.startswith((ward.address, "data:", "about:")) for url in page.requested)
    with ward.engine.connect() as connection:
        statuses = connection.execute(select(CONSENTS.c.status).order_by(CONSENTS.c.number))
        assert [*statuses.scalars()] == ["granted", "pending", "granted"]
