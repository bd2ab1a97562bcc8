"""Which tests a change can touch."""

from __future__ import annotations

import pytest
from selection import ROOT, closure, touches

SPLIT = ROOT / "tests/unit/test_split.py"
SUITES = ROOT / "tests/unit/test_expectations.py"
RUN = ROOT / "tests/pipeline/test_pipeline.py"


def test_a_closure_holds_packages_and_what_functions_import() -> None:
    files, outside = closure(ROOT / "tests/unit/test_training.py")
    assert {"spira_tasks/__init__.py", "spira_tasks/speech/training.py"} <= files
    assert "spira_tasks/errors.py" in closure(SPLIT)[0]
    assert {"torch", "subprocess"} <= outside


@pytest.mark.parametrize(
    ("changed", "touched"),
    [
        ("spira_tasks/stages/split.py", True),
        ("tests/unit/test_split.py", True),
        ("spira_tasks/speech/model.py", False),
        ("tests/unit/test_model.py", False),
        ("docs/production.md", False),
        ("requirements.txt", True),
        ("tests/conftest.py", True),
    ],
)
def test_a_test_depends_on_what_it_imports_and_on_all_that_is_not_python(
    changed: str, touched: bool
) -> None:
    assert touches({changed}, SPLIT) is touched


def test_a_helper_of_tests_touches_those_that_use_it() -> None:
    assert touches({"tests/suites.py"}, SUITES)
    assert not touches({"tests/suites.py"}, SPLIT)


def test_a_test_that_runs_steps_depends_on_all_of_the_product() -> None:
    assert touches({"spira_tasks/stages/drift.py"}, RUN)
    assert touches({"plugins/spira/site.py"}, RUN)
    assert not touches({"tests/unit/test_model.py"}, RUN)
    assert not touches({"benchmarks/training.py"}, RUN)
