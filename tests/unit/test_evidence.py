"""What speaks for a model beside its own test: how often the test was used, and what was tried."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from expectations import policy
from expectations.gates import evidence as gates
from expectations.words import LANGUAGES, Language
from expectations.words.verdicts import description, sentence
from spira_tasks.artifacts import Store
from spira_tasks.contract.run import StepRecord
from spira_tasks.contract.verdict import Number, Verdict, suppress
from spira_tasks.evaluation import labels, stability
from spira_tasks.governance import audit, evidence
from spira_tasks.provenance import ROOT
from spira_tasks.stages import promote
from spira_tasks.tracking import Registered

RULES = policy.read().rules
N = RULES.test_budget.max_reads
GOOD, BAD = 0.95, 0.62


class Bench:
    """A store in which models were measured on the test people of a table."""

    def __init__(self, place: Path) -> None:
        self.place, self.store = place, Store(str(place / "store"))
        self.recordings = self.table(range(60))

    def table(self, people: range) -> str:
        folder = self.place / f"{people.start}-{people.stop}"
        folder.mkdir()
        names = [f"{number:064x}" for number in people]
        rows = pd.DataFrame({"subject_id": names, "split": "test"})
        rows.to_parquet(folder / "recordings.parquet")
        return self.store.put_directory(folder)

    def evaluate(self, number: int, auc: float) -> None:
        """Leave the record of an evaluation that went no further."""
        record = StepRecord(
            "evaluate", "evaluate", "done", f"2026-11-21T10:{number:02}:00+00:00", 1.0,
            inputs={"recordings": self.recordings}, outputs={"classifier": f"sha256:{number:064x}"},
            metrics={"auc": auc, "n_patients": 30, "n_controls": 30}, key=f"{number:064x}",
        )  # fmt: skip
        self.store.runs.write(f"run-{number}", record)

    def judge(self, number: int, auc: float = GOOD) -> Verdict:
        evaluation = {
            "n_patients": 30, "n_controls": 30, "conditions": {"clean": {"auc": {"value": auc}}}
        }  # fmt: skip
        own = (f"run-{number}", f"sha256:{number:064x}", self.recordings)
        found = evidence.of_test_set(self.store, RULES, evaluation, own)
        return gates.budget_left(found, RULES.test_budget)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def reads(store: Store) -> list[Mapping[str, Any]]:
    return [one.details for one in audit.events(store) if one.action == "test_read"]


def test_a_clear_model_passes_at_the_level_of_one_read_and_is_in_the_ledger(bench: Bench) -> None:
    assert bench.judge(1).status == "pass"
    (read,) = reads(bench.store)
    assert read["run"] == "run-1"
    assert read["hypothesis"] == "auc > 0.6"
    assert read["alpha_spent"] == 0.0  # its claim held: what it could spend is given back


def test_luck_among_many_tries_is_left_to_a_person(bench: Bench) -> None:
    """An AUC of 0.72 on 60 people is above 0.60 with p = 0.05, and not with a twentieth of it."""
    found = bench.judge(1, auc=0.72)
    assert found.status == "insufficient"
    assert not found.stops
    (read,) = reads(bench.store)
    assert read["alpha_spent"] == pytest.approx(RULES.test_budget.alpha / N)


def test_models_that_were_measured_and_never_came_to_a_promotion_are_counted(bench: Bench) -> None:
    for number in range(1, 6):
        bench.evaluate(number, BAD)
    found = bench.judge(6)
    assert found.numbers["n_reads"].value == 6
    assert found.observed is not None
    assert found.observed.value == N - 5
    assert len(reads(bench.store)) == 6


def test_models_are_counted_since_the_champion_by_the_share_of_people_they_were_measured_on(
    bench: Bench,
) -> None:
    for number in (1, 2, 3):
        bench.judge(number)
    bench.recordings = bench.table(range(30, 90))
    for number in (4, 5):
        bench.judge(number)

    def since(champion: int, challenger: int) -> float:
        of_champion, of_challenger = (f"sha256:{n:064x}" for n in (champion, challenger))
        return evidence.n_measured_since(bench.store, of_champion, of_challenger, bench.recordings)

    assert since(1, 2) == 0
    assert since(1, 5) == 0.5 + 0.5 + 1  # half of today's people were there
    assert since(3, 2) == 2  # measured before the champion, and judged again after the others
    assert since(7, 5) == 0.5 + 0.5 + 0.5 + 1  # a champion that the ledger does not have


def test_the_same_model_on_the_same_people_is_one_read_however_often_it_runs(bench: Bench) -> None:
    bench.evaluate(1, BAD)
    for _ in range(3):
        bench.judge(1, BAD)
    assert len(reads(bench.store)) == 1


def test_once_the_budget_is_spent_no_number_promotes_a_model(bench: Bench) -> None:
    for number in range(1, N + 1):
        bench.evaluate(number, BAD)
    found = bench.judge(N + 1, auc=1.0)
    assert found.status == "block"
    assert "no number" in sentence(found, "en").lower()


def test_models_that_hold_spend_nothing_and_the_choice_among_them_is_said_to_be_free(
    bench: Bench,
) -> None:
    free = "is not corrected for their number"
    assert free not in sentence(bench.judge(1), "en")
    for number in range(2, N + 5):
        bench.evaluate(number, GOOD)
    found = bench.judge(N + 5)
    assert found.status == "pass"
    assert free in sentence(found, "en")


def test_new_test_people_refresh_the_budget(bench: Bench) -> None:
    for number in range(1, N + 1):
        bench.evaluate(number, BAD)
    bench.recordings = bench.table(range(30, 90))  # half of them are new
    found = bench.judge(N + 1)
    assert found.status == "pass"
    assert found.observed is not None
    assert found.observed.value == N / 2


def test_a_read_whose_people_nobody_knows_any_more_counts_in_full(bench: Bench) -> None:
    for number in range(1, N + 1):
        bench.evaluate(number, BAD)
    bench.judge(1, BAD)
    bench.recordings, gone = bench.table(range(100, 160)), bench.recordings
    assert bench.judge(N + 1).status == "pass"
    bench.store.blobs.delete_all(set(bench.store.files(gone).values()))
    assert bench.judge(N + 2).status == "block"


def test_measurements_on_folds_of_experiments_are_no_reads(bench: Bench) -> None:
    bench.evaluate(1, BAD)
    record = bench.store.runs.step("run-1", "evaluate")
    assert record is not None
    of_trial = replace(record, outputs={"classifier": f"sha256:{99:064x}"})
    bench.store.runs.write("trial@abc", of_trial)
    bench.judge(2)
    assert [read["run"] for read in reads(bench.store)] == ["run-1", "run-2"]


def answers(right: Mapping[str, float], n: int = 100) -> pd.DataFrame:
    """Margins about ``n`` people of each level, of which a share is on the right side."""
    tables = []
    for level, share in right.items():
        label = np.arange(n) % 2
        is_right = np.random.default_rng(7).permutation(n) < share * n
        margin = np.where(is_right, 1.0, -1.0) * np.where(label == 1, 1.0, -1.0)
        names = [f"{level}{number:03}" for number in range(n)]
        tables.append(
            pd.DataFrame({"record_id": names, "subject_id": names, "label": label}).assign(
                clean=margin, level=level
            )
        )
    return pd.concat(tables)


def test_what_invented_people_show_counts_for_no_model_of_real_people(bench: Bench) -> None:
    for synthetic in (False, True):
        evidence.publish(bench.store, "cross_cohort", "r", {"synthetic": synthetic, "levels": {}})
        for of_model in (False, True):
            found = evidence.find(bench.store, "cross_cohort", "r", synthetic=of_model)
            assert (found is None) == (synthetic and not of_model)


def elsewhere(right: Mapping[str, float], n: int = 100) -> Verdict:
    levels = stability.by_level([answers(right, n)], 200, 5)
    return gates.unseen_sites({"levels": levels, "experiment": "sites"}, RULES.unseen_sites)


@pytest.mark.parametrize(
    ("right", "status", "left_open"),
    [
        ({"a": 0.9, "b": 0.85}, "pass", ()),
        ({"a": 0.9, "b": 0.6}, "insufficient", ("b",)),  # perhaps
        ({"a": 0.9, "b": 0.3}, "insufficient", ("b",)),  # not for that hospital
        ({"a": 0.35, "b": 0.3}, "block", ("a", "b")),
    ],
)
def test_a_hospital_at_which_the_recipe_is_not_shown_to_hold_is_left_out_by_name(
    right: Mapping[str, float], status: str, left_open: tuple[str, ...]
) -> None:
    found = elsewhere(right)
    assert (found.status, found.names["left_open"]) == (status, left_open)
    assert found.numbers["level.a"].value == pytest.approx(right["a"], abs=0.02)


def test_a_hospital_with_few_people_proves_nothing() -> None:
    found = elsewhere({"a": 1.0}, n=16)
    assert found.status == "insufficient"
    assert found.observed is None
    assert elsewhere({"a": 0.9, "b": 0.0}, n=8).status == "insufficient"


def test_several_seeds_are_averaged_on_the_same_people() -> None:
    one, other = answers({"a": 1.0}), answers({"a": 0.5})
    found = stability.by_level([one, other.sample(frac=1, random_state=1)], 200, 5)
    assert found["a"]["balanced_accuracy"]["value"] == pytest.approx(0.75, abs=0.01)


def test_no_hospital_is_lost_where_the_pages_of_the_run_do_not_number_it() -> None:
    right = {"a": 0.9, "x": 0.3, "y": 0.9, "z": 0.9}
    levels = evidence.unnamed(
        stability.by_level([answers(right)], 200, 5), pd.Series(["a", "b"] * 9 + ["x", "y"])
    )
    assert [*levels] == ["#1", "#3", "#4", "#5"]  # the second is b, which was not measured
    found = gates.unseen_sites({"levels": levels, "experiment": "sites"}, RULES.unseen_sites)
    assert (found.status, found.names["left_open"]) == ("insufficient", ("#3",))


@pytest.mark.parametrize("gate", [gates.unseen_sites, gates.cross_cohort])
def test_evidence_that_does_not_count_is_not_said_to_have_never_been_measured(gate: Any) -> None:
    said = sentence(gate(None, RULES.unseen_sites), "en")
    assert "changed since" in said
    assert "Nobody has measured" not in said


@pytest.mark.parametrize("kind", ["unseen_sites", "cross_cohort"])
def test_what_is_expected_elsewhere_is_the_measure_that_is_judged(kind: str) -> None:
    """At 30 % of the patients and 98 % of the controls the gate may pass."""
    described = description(Verdict(kind, "pass"), "en")
    assert described is not None
    assert "balanced accuracy" in described.sentence
    assert "each class" not in described.sentence


SEEDS = tuple(RULES.seed_stability.seeds)


def seeds(values: Mapping[int, float], own: int | None = None) -> Verdict:
    found = {**stability.spread(values), "experiment": "seeds"}
    return gates.seed_stability(found, own, RULES.seed_stability)


def around(deviation: float) -> dict[int, float]:
    return dict(zip(SEEDS, 0.85 + deviation * np.array([-1.26, -0.63, 0, 0.63, 1.26]), strict=True))


@pytest.mark.parametrize(
    ("deviation", "status"), [(0.01, "pass"), (0.03, "insufficient"), (0.09, "block")]
)
def test_five_seeds_say_as_much_as_five_numbers_say(deviation: float, status: str) -> None:
    found = seeds(around(deviation))
    assert found.status == status
    assert found.names["middle"] == ("13",)


def test_the_seed_that_came_out_best_is_not_shipped_without_a_person() -> None:
    assert seeds(around(0.01), own=15).status == "insufficient"
    assert seeds(around(0.01), own=13).status == "pass"


def test_a_model_of_a_seed_that_was_not_measured_is_not_said_to_be_a_middling_result() -> None:
    found = seeds(around(0.01), own=42)
    assert found.status == "pass"
    assert "seed 42, which is none of these" in sentence(found, "en")
    assert "none of these" not in sentence(seeds(around(0.01), own=13), "en")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("n", [2, 4])
def test_seeds_that_failed_or_were_chosen_afterwards_are_no_evidence(
    n: int, language: Language
) -> None:
    few = dict(list(around(0.0).items())[:n])
    chosen = {seed + 100: value for seed, value in around(0.0).items()}
    for found in (seeds(few), seeds(chosen), seeds(few | chosen), seeds(around(0.0) | {99: 0.8})):
        assert found.status == "insufficient"
        assert "11, 12, 13, 14, 15" in sentence(found, language)


def test_the_experiment_measures_the_seeds_that_the_policy_asks_for() -> None:
    text = (ROOT / "experiments/seeds.toml").read_text()
    assert tomllib.loads(text)["seeds"] == list(SEEDS)


def cohort(n: int = 200, flipped: float = 0.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """People whose labels a good model knows, a share of them labelled wrongly, and its scores."""
    rng = np.random.default_rng(3)
    truth = np.arange(n) % 2
    label = np.where(rng.permutation(n) < flipped * n, 1 - truth, truth)
    names = [f"s{number:03}" for number in range(n)]
    clean = np.clip(np.where(truth == 1, 0.9, 0.1) + rng.normal(0, 0.05, n), 0.01, 0.99)
    people = pd.DataFrame({"subject_id": names, "label": label})
    recordings = people.assign(
        task="SENTENCE", spo2=np.where(truth == 1, 88, 98), on_oxygen=False,
        resp_rate=np.where(truth == 1, 26, 14), label_source="clinician",
    )  # fmt: skip
    return recordings, people.assign(clean=clean)


def of_labels(
    recordings: pd.DataFrame, predictions: pd.DataFrame, is_doubted: bool = False
) -> dict[str, Any]:
    said: dict[str, Any] = {"agreement": None, "alone": None, "is_doubted": is_doubted}
    if is_doubted:
        said |= {"agreement": 0.41, "alone": 0.6}
    return {**labels.quality(recordings, predictions), **said}


def test_labels_on_which_clinicians_disagree_are_left_to_a_person() -> None:
    doubted = of_labels(*cohort(), is_doubted=True)
    found = gates.label_quality(doubted, RULES.label_quality)
    assert found.status == "insufficient"
    assert "alpha of 0.41" in sentence(found, "en")


@pytest.mark.parametrize(("n_alone", "shown"), [(0, 0.0), (1, None), (4, None), (5, 0.125)])
def test_a_share_of_the_labels_of_few_sessions_is_not_told(
    bench: Bench, n_alone: int, shown: float | None
) -> None:
    second = Verdict("second_opinion", "pass", Number(n_alone / 40, "share"), n=40)
    record = StepRecord(
        "ingest", "ingest", "done", "2026-11-21T10:00:00+00:00", 1.0, verdicts=(second,)
    )
    bench.store.runs.write("run-1", record)
    assert evidence._said(bench.store, "run-1")["alone"] == shown


@pytest.mark.parametrize(("flipped", "status"), [(0.0, "pass"), (0.1, "insufficient")])
def test_labels_that_were_flipped_are_seen(flipped: float, status: str) -> None:
    found = gates.label_quality(of_labels(*cohort(flipped=flipped)), RULES.label_quality)
    assert found.status == status
    assert found.names["state"] == (("many",) if flipped else ())
    assert found.observed is not None
    assert found.observed.value == pytest.approx(flipped, abs=0.02)
    assert found.numbers["contradicted"].value == pytest.approx(flipped)


def test_few_labels_that_look_wrong_are_not_counted() -> None:
    found = gates.label_quality(of_labels(*cohort(60, flipped=0.04)), RULES.label_quality)
    shown = suppress(found)
    assert found.observed is not None
    assert 0 < (found.observed.value or 0) < 5 / 60
    assert shown.observed is not None
    assert shown.observed.value is None
    assert "contradicted" not in found.numbers
    assert not set("123456789") & set(sentence(found, "en").replace("fewer than 5", ""))


def test_a_task_that_only_the_ill_lack_is_seen() -> None:
    recordings, _ = cohort()
    vowels = recordings.assign(task="VOWEL")
    assert gates.missingness(labels.missingness(recordings), RULES.missingness).status == "pass"
    both = pd.concat([recordings, vowels[(vowels["label"] == 0) | (vowels.index % 4 == 1)]])
    found = gates.missingness(labels.missingness(both), RULES.missingness)
    assert (found.status, found.names["task"]) == ("insufficient", ("VOWEL",))
    assert not found.stops
    assert "A person has to decide" in sentence(found, "en")
    by_chance = pd.concat([recordings, vowels.sample(frac=0.7, random_state=2)])
    assert gates.missingness(labels.missingness(by_chance), RULES.missingness).status == "pass"


def collected(n: int, quality: float) -> dict[str, Any]:
    """What is known of a model, the better the more of its answers are right."""
    of_test = {"n_left": 20 * quality - 7, "n_reads": 9, "alpha": 0.0025, "holds": quality > 0.7}
    of_experiment = {"experiment": "s", "digest": "d"}
    return {
        "is_checked": quality > 0.5,
        "test_budget": of_test,
        "label_quality": of_labels(*cohort(n, 1 - quality), quality < 0.9),
        "missingness": {"task": "VOWEL", "value": 1 - quality, "chance": 0.3, "n": n // 2},
        "seed": 15,
        "seed_stability": None
        if n == 8
        else {**stability.spread(around((1 - quality) / 10)), **of_experiment},
        "unseen_sites": {
            "levels": stability.by_level([answers({"a": quality, "b": 0.9}, n)], 200, 5),
            **of_experiment,
        },
        "cross_cohort": None
        if n == 8
        else {"levels": stability.by_level([answers({"a": quality})], 200, 5), **of_experiment},
    }


def test_other_evidence_of_experiments_is_another_question_to_a_person(bench: Bench) -> None:
    challenger = Registered("1", "", f"sha256:{1:064x}", (), {})

    def asked(value: float) -> tuple[str, ...]:
        of_level = {"value": value, "low": value - 0.05, "high": value + 0.05}
        levels = {"P2": {"n_patients": 90, "n_controls": 90, "balanced_accuracy": of_level}}
        content = {"synthetic": True, "levels": levels, "experiment": "c"}
        evidence.publish(bench.store, "cross_cohort", "r", content)
        of_cohorts = evidence.find(bench.store, "cross_cohort", "r", synthetic=True)
        verdicts = gates.verdicts(collected(8, 0.95) | {"cross_cohort": of_cohorts}, RULES)
        assert [one.status for one in verdicts if one.id == "cross_cohort"] == ["pass"]
        return promote.approved(challenger, [], verdicts, "report", bench.store).names["asked"]

    first = asked(0.9)
    assert asked(0.9) == first  # found again later
    assert asked(0.7) != first


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("n", [8, 200])
@pytest.mark.parametrize("quality", [0.3, 0.6, 0.95])
def test_every_verdict_has_its_sentence(n: int, quality: float, language: Language) -> None:
    found = collected(n, quality)
    verdicts = gates.verdicts(found, RULES)
    assert len(verdicts) == 7
    for one in verdicts:
        said = sentence(one, language)
        assert said.endswith("."), said
        assert one.id not in said
        assert "failed" not in said
        assert "falhou" not in said
        assert not {"{", "}", "–", "None", "  "} & {
            said[i : i + k] for k in (1, 2, 4) for i in range(len(said))
        }, said
