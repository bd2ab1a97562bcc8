"""The small form of every row of `make bench`, and the table that it writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import bench
from benchmarks.rows.pairs import Line, Spread
from spira_tasks.provenance import ROOT

# In one process each, for what they import; a cohort and a server apart.
TOGETHER = (("materialize", "data", "epoch"), ("default", "busy", "memory", "flat"))
APART = (("step", "again"), ("new",), ("s3",))


@pytest.mark.slow
@pytest.mark.parametrize("rows", [*TOGETHER, *APART], ids="-".join)
def test_every_row_works_with_a_few_recordings(rows: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "benchmarks.bench", "--small", *rows]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= len(rows)


def test_no_row_is_left_out() -> None:
    assert {row for rows in (*TOGETHER, *APART) for row in rows} == set(bench.ROWS)


def test_a_row_that_is_run_again_replaces_its_lines_and_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, file in (("RESULTS", "r.md"), ("NUMBERS", "r.json"), ("PLOT", "r.svg")):
        monkeypatch.setattr(bench, name, tmp_path / file)
    bench.keep("epoch", [line(1.5, at_least=True)])
    bench.keep("busy", [line(1.5, at_least=False)])
    bench.keep("epoch", [line(2.5, at_least=True)])
    table = (tmp_path / "r.md").read_text()
    shown = [row.split(" | ") for row in table.splitlines() if row.startswith("| ")]
    assert [(row[0], row[3], row[5]) for row in shown[2:]] == [
        ("| epoch", "2.50 × (2.00–3.00)", "yes"),
        ("| busy", "1.50 × (2.00–3.00)", "yes"),
    ]
    assert (tmp_path / "r.svg").exists()


def test_a_goal_is_reached_on_its_side_and_by_cpu_seconds_where_there_are_some() -> None:
    assert not line(1.5, at_least=True).is_reached
    assert not line(2.5, at_least=False).is_reached
    waited = Line("it", "×", Spread(9, 9, 9), None, 2.0, at_least=False)
    assert not waited.is_reached


def line(cpu: float, *, at_least: bool) -> Line:
    return Line("it", "×", Spread(9, 9, 9), Spread(cpu, 2, 3), 2.0, at_least=at_least)
