"""A phone on which the page of the collection runs: what a collector does with it."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from browser import Page, chromium
from collecting import Collection
from numpy.typing import NDArray

RATE_HZ = 48_000
SEEDS = count(1)
NARROW, TALL = 360, 740


def voice(seconds: float, gain: float = 0.3, seed: int = 0) -> NDArray[np.int16]:
    """A voice with syllables, in a room with a little noise."""
    at = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    tone = sum(np.sin(2 * np.pi * 130 * k * at) / k for k in range(1, 10)) / 3
    room = np.random.default_rng(seed).normal(0, 0.0005, at.size)
    syllables = 0.6 + 0.4 * np.sin(2 * np.pi * 3 * at)
    sound = np.clip(gain * tone * syllables + room, -1, 1)
    return np.round(32_767 * sound).astype(np.int16)


def wav(samples: NDArray[np.int16]) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(RATE_HZ)
        written.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


@contextmanager
def phone(profile: Path, microphone: Path) -> Iterator[Page]:
    """A browser as small as a phone, whose microphone plays a file over and over."""
    flags = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
    )
    with chromium(profile, flags=flags) as page:
        size = {"width": NARROW, "height": TALL}
        page.call("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=True)
        yield page


def address(collection: Collection) -> str:
    return f"{str(collection.client.base_url).rstrip('/')}/collection/"


def enrol(page: Page, collection: Collection) -> None:
    page.open(f"{address(collection)}#code={collection.code()}")
    page.click("form button", "Enrol phone")
    page.wait("document.querySelector('#start')")
    page.wait("navigator.serviceWorker.controller !== null")  # the page itself is kept, too


def enrol_anew(page: Page, code: str) -> None:
    page.run(f"location.hash = 'code={code}'")
    page.click("form button", "Enrol phone")
    page.wait("document.querySelector('#start')")


def network(page: Page, there: bool) -> None:
    page.call(
        "Network.emulateNetworkConditions",
        offline=not there,
        latency=0,
        downloadThroughput=-1,
        uploadThroughput=-1,
    )


def record(page: Page, microphone: Path, task: str, sound: bytes = b"") -> None:
    """Record a take that is long enough, and go on."""
    # The browser opens the file for each task: no two takes are the same, of which one was refused.
    microphone.write_bytes(sound or wav(voice(8, seed=next(SEEDS))))
    page.wait(f"location.hash.endsWith('/{task}') && document.querySelector('button.record')")
    page.click("#record", "Record")
    page.wait("/^[^·]*[1-9][^·]*$/.test(document.querySelector('.seconds').textContent)")
    page.click("#record", "Stop")
    page.wait("document.querySelector('.take_good')")
    page.click("#next")


def kept(page: Page, script: str) -> Any:
    """The value of an expression of ``store``, the module, on the phone."""
    return page.run(f"import('/collection/store.js').then(async store => {script})")
