"""The lines that long work writes into a log."""

from __future__ import annotations

import logging

import pytest

from spira_tasks import progress


def test_the_remaining_time_leaves_out_what_the_start_took(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = iter([0.0, 60.0, *(60.0 + 10 * number for number in range(1, 10))])
    monkeypatch.setattr("spira_tasks.progress.time.monotonic", lambda: next(seconds))
    caplog.set_level(logging.INFO, logger="spira_tasks")
    assert list(progress.progress(range(10), "files", 10)) == list(range(10))
    assert caplog.messages[:2] == ["files: 1 of 10", "files: 2 of 10, about 80 s left"]
    assert caplog.messages[-1] == "files: 10 of 10, about 0 s left"
