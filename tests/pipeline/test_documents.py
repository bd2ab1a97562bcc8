"""The commands that the documents show work as they stand there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import Run, linked_copy

from spira_services.__main__ import main as services
from spira_tasks.cli import main
from spira_tasks.provenance import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"": True, "sh": True} | dict.fromkeys(
    ("text", "toml", "yaml", "json", "mermaid"), False
)
OURS = "python -m spira_tasks "
SERVICES = "python -m spira_services "
# What begins so is a command, also within a sentence.
COMMAND = re.compile(
    r"(python (-m|benchmarks/\S+)|make|scripts/\S+|airflow|mlflow|docker|kubectl|cp|apt-get|curl) "
    r"(?!\S* ?…$)\S"
)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)")
NO_GPU = ("docs/production.md", "*The GPU path has not been run where this is tested.*")
NO_CLUSTER = ("docs/kubernetes.md", "has never run on a cluster")

# What the test below does not run: how a command begins, where it is run, and a piece of the line.
ELSEWHERE = {
    OURS + "experiment": (
        "tests/pipeline/test_experiments.py",
        '"-m", "spira_tasks", "experiment"',
    ),
    OURS + "compare": ("tests/pipeline/test_experiments.py", 'main(["compare", *trials'),
    OURS + "pipeline training": (
        "tests/pipeline/test_cli.py",
        '"pipeline", "training", "--data", finished.cohort',
    ),
    OURS + "erase --number": (
        "tests/pipeline/test_erasure_request.py",
        '"spira_tasks", "erase", "--number"',
    ),
    OURS + "erase SUBJECT": (
        "tests/pipeline/test_erasure.py",
        '["erase", tombstone_tag(subject), "--reason"',
    ),
    OURS + "quarantine release": (
        "tests/pipeline/test_quarantine.py",
        'main(["quarantine", "release", name, "--why", WHY',
    ),
    OURS + "predict": ("tests/pipeline/test_predict.py", '["predict", MODEL, *given, "--format"'),
    OURS + "export": ("tests/pipeline/test_package.py", 'main(["export", "spira/1", str(out)'),
    OURS + "data put": ("tests/platform/test_production.py", 'said("data", "put"'),
    OURS + "pseudonyms tag": ("tests/pipeline/test_pseudonyms.py", 'main(["pseudonyms", "tag"])'),
    OURS + "pseudonyms rotate": (
        "tests/pipeline/test_pseudonyms.py",
        'main(["pseudonyms", "rotate", "--data"',
    ),
    OURS + "reproduce": ("tests/pipeline/test_reproduce.py", 'main(["reproduce", "spira/1"'),
    OURS + "model rollback": (
        "tests/pipeline/test_approval.py",
        'model("rollback", "--why", WORSE)',
    ),
    SERVICES + "route canary": ("tests/unit/test_routes.py", 'main(["route", "canary", "2", *'),
    SERVICES + "route show": ("tests/unit/test_routes.py", 'main(["route", "show"])'),
    SERVICES + "route stop": ("tests/unit/test_routes.py", 'main(["route", "stop", "--why"'),
    "python benchmarks/canary.py": ("tests/unit/test_routes.py", '"benchmarks/canary.py"'),
    SERVICES + "work": ("scripts/up.py", '"-m", "spira_services", "work"'),
    SERVICES + "queue show": ("tests/pipeline/test_serving.py", 'main(["queue", "show"])'),
    SERVICES + "queue replay": ("tests/pipeline/test_serving.py", 'main(["queue", "replay"])'),
    SERVICES + "queue refill": ("tests/pipeline/test_serving.py", 'main(["queue", "refill"])'),
    SERVICES + "queue discard": ("tests/unit/test_services_cli.py", 'main(["queue", "discard"'),
    SERVICES + "serve": ("scripts/up.py", '"-m", "spira_services", "serve"'),
    SERVICES + "devices end": ("tests/unit/test_services_cli.py", 'main(["devices", "end"'),
    SERVICES + "import dc2": ("tests/unit/test_importers.py", 'main(["import", kind, '),
    "python benchmarks/interface.py": (
        "tests/pipeline/test_interface.py",
        '"benchmarks/interface.py"',
    ),
    SERVICES + "trace": ("tests/unit/test_snapshot.py", 'main(["trace", record,'),
    SERVICES + "erase": ("tests/unit/test_snapshot.py", 'main(["erase", tag,'),
    SERVICES + "hospitals sync": (
        "tests/unit/test_hospital_sync.py",
        'main(["hospitals", "sync", "hc", "--dry-run"])',
    ),
    SERVICES + "snapshot": ("tests/unit/test_snapshot.py", 'main(["snapshot", under])'),
    SERVICES + "labels weak": ("tests/unit/test_label_commands.py", 'main(["labels", "weak"])'),
    SERVICES + "labels relabel": (
        "tests/unit/test_label_commands.py",
        'main(["labels", "relabel", "--predictions"',
    ),
    SERVICES + "labels studio-sync": (
        "tests/unit/test_label_studio.py",
        'main(["labels", "studio-sync", "rui", address',
    ),
    "python benchmarks/uploads.py": ("tests/pipeline/test_uploads.py", '"benchmarks/uploads.py"'),
    "python -m pytest": ("Makefile", "python -m pytest"),
    "airflow db migrate": ("scripts/demo.sh", "airflow db migrate"),
    "airflow dags test": ("scripts/demo.sh", "airflow dags test spira_continuous_training -c"),
    "curl": ("tests/unit/test_inference_api.py", "subprocess.run([*SHELL, command]"),
    "apt-get install": (".ci/run", "apt-get install"),
    "make demo": (".ci/run", "make demo"),
    "python -m benchmarks.gates": (
        "tests/pipeline/test_gate_study.py",
        '"-m", "benchmarks.gates", "--small"',
    ),
    "python -m benchmarks.power": ("tests/pipeline/test_gate_study.py", "power.row(gate, n, 20)"),
    "make bench": ("tests/pipeline/test_bench.py", '"benchmarks.bench", "--small"'),
    "make setup": (".ci/run", "make setup"),
    "make document": ("tests/unit/test_catalogue.py", "make document"),
    "make images": ("tests/docker/images.sh", "\nscripts/images.sh"),
    "make check": (".ci/run", "make check"),
    "make test-rest": (".ci/run", "make test-rest"),
    "make test-nightly": (".ci/run", "make test-nightly"),
    "make test": (".ci/run", "make test"),
    "make production-up": (".ci/run", "make production-up"),
    "make doctor": (".ci/run", "make doctor"),
    "make backup TO=": (".ci/run", "make backup TO="),
    "make production-down": (".ci/run", "make production-down"),
    "make restore FROM=": ("tests/platform/test_backup.py", '"scripts/restore.py"'),
    "make up": ("tests/pipeline/test_up.py", '"scripts" / "up.py"'),
    "scripts/backup.py --everything": ("tests/platform/test_backup.py", '"--everything", target'),
    "scripts/backup.py": ("tests/platform/test_backup.py", '"scripts/backup.py", target'),
    "scripts/restore.py": ("tests/platform/test_backup.py", '"scripts/restore.py"'),
    "scripts/compose.sh up -d": ("tests/stack.py", '"scripts/compose.sh"'),
    "scripts/compose.sh exec airflow-apiserver airflow users create": (
        "tests/platform/test_production.py",
        "airflow users create --role User",
    ),
    "scripts/compose.sh exec airflow-apiserver airflow users add-role": (
        "tests/platform/test_production.py",
        "airflow users add-role --username",
    ),
    "docker compose up -d --scale airflow-worker=2": (
        "tests/platform/test_profiles.py",
        '"--scale", "airflow-worker=2"',
    ),
    "docker ps -a": ("tests/production.py", 'docker("ps", "-aq", "--filter", "label=spira.step")'),
    "docker logs": ("tests/production.py", 'docker("logs"'),
    "docker network create": NO_GPU,
    "kubectl": NO_CLUSTER,
}
MORE = {OURS + "cohort": ["--subjects=4", "--workers=1"]}  # given besides, so that it takes no time


def commands(document: Path) -> list[str]:
    """The commands of a document, in their order, each as it is typed."""
    text, found = document.read_text(), []
    for language, block, inline in re.findall(
        r"^```(\w*)\n(.*?)^```|`([^`]+)`", text, re.MULTILINE | re.DOTALL
    ):
        if block and LANGUAGES[language]:
            found += [re.sub(r"\s+#.*", "", line) for line in block.splitlines() if line.strip()]
        # a decision record tells of programs, and shows what to type in a block
        elif document.parent.name != "adr" and COMMAND.match(typed := " ".join(inline.split())):
            found.append(typed)
    # in production the same command line runs in a container (tests/production.py)
    typed_here = [
        re.sub(
            r"^(\w+=\S+ )?(scripts/(?:spira|services)\.sh )?",
            lambda m: {None: "", "scripts/spira.sh ": OURS}.get(m[2], SERVICES),
            command,
        )
        for command in found
    ]
    return [
        one for one in typed_here if one not in ("", OURS.strip(), SERVICES.strip())
    ]  # a program's name alone


def place_of(command: str) -> str:
    """The longest beginning in ``ELSEWHERE``, empty where there is none."""
    return max((start for start in ELSEWHERE if command.startswith(start)), key=len, default="")


WHERE: dict[str, Path] = {}  # a command to the first document that shows it
for path in DOCUMENTS:
    WHERE |= dict.fromkeys([one for one in commands(path) if one not in WHERE], path)
HERE: dict[Path, list[str]] = {}  # what is run below
for one, path in WHERE.items():
    if one.startswith((OURS, SERVICES, "cp ")) and not place_of(one):
        HERE.setdefault(path, []).append(one)


def test_every_command_of_the_documents_is_run() -> None:
    here = {command for listed in HERE.values() for command in listed}
    assert {command for command in WHERE if not place_of(command)} == here
    assert {place_of(command) for command in WHERE} - {""} == set(ELSEWHERE)  # none is left over


def anchors(document: Path) -> set[str]:
    """The names that GitHub gives to the headings of a document."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_link_of_the_documents_leads_to_a_file_and_a_heading() -> None:
    links = [
        (document, document.parent / place if place else document, anchor)
        for document in [*DOCUMENTS, ROOT / "CHANGELOG.md"]
        for place, anchor in LINK.findall(document.read_text())
    ]
    assert len(links) > 100
    broken = [
        f"{document.name}: {file.name}#{anchor}"
        for document, file, anchor in links
        if not file.exists() or (anchor and anchor not in anchors(file))
    ]
    assert broken == []


@pytest.mark.parametrize("start", ELSEWHERE)
def test_a_command_that_is_run_elsewhere_is_there(start: str) -> None:
    place, line = ELSEWHERE[start]
    assert line in (ROOT / place).read_text()


@pytest.mark.parametrize("document", HERE, ids=lambda path: path.name)
def test_the_commands_of_a_document_work_in_their_order(
    document: Path,
    finished: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    store = linked_copy(finished.store, tmp_path / "store")
    monkeypatch.setenv("SPIRA_STORE", store.url)
    monkeypatch.setenv("SPIRA_SERVICES_DATABASE", f"sqlite:///{tmp_path}/services.db")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".spira").mkdir()
    recordings = store.directory(finished.results["ingest"].outputs["recordings"])
    table = pd.read_parquet(recordings.path("recordings.parquet"))
    names = {
        "/path/to/recordings": str(finished.cohort),
        "--data DIR": f"--data {finished.cohort}",
        "DIR": "made",
        "RECORD": table["record_id"].iloc[0],
        "RUN": finished.run_id,
        "VERSION": "1",
        "…": "a reason that others can read",
        "champion": "challenger",  # this run has none
    }
    for command in HERE[document]:
        typed = command
        for name, value in names.items():
            typed = typed.replace(name, value)
        if typed.startswith("cp "):
            _, source, target = shlex.split(typed)
            shutil.copy(ROOT / source, target)
            continue
        more = next((more for start, more in MORE.items() if command.startswith(start)), [])
        run = services if typed.startswith(SERVICES) else main
        status = run([*shlex.split(typed)[3:], *more])
        assert status == 0, f"{command}\n{capfd.readouterr().err[-2000:]}"
