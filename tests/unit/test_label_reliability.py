"""Agreement and reliability against published examples and the textbook's other formulas."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest

from spira_services.labels.reliability import (
    MISSING,
    NO_SMOOTHING,
    Ratings,
    agreement,
    agreement_by_version,
    cohens_kappa,
    dawid_skene,
    disagreement,
    krippendorffs_alpha,
    one_hot,
)

ACCURACIES = np.array([0.70, 0.80, 0.95])

# Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, examples A, B, C: an annotator a
# line, an item a character.
EXAMPLES = [
    (["0100000010", "1110010000"], 0.095),
    (["aabbdcccedda", "babbbccceddd"], 0.692),
    (["123321412...", "1233224125.3", ".3332342251.", "12332441251."], 0.743),
]

# Dawid and Skene (1979), table 1: 45 patients judged by five anaesthetists, the first one thrice.
ANAESTHETISTS = (
    "1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444"
    " 2223343 1111111 2223212 1211111 1112111 1111111 1111111 2222221 2221322 2222222 2222221"
    " 2223222 2212222 1111111 1111111 2322222 1111111 1111111 1121121 1111111 3333233 1111111"
    " 2222222 2223232 4334343 2212232 2323233 3333432 1111111 1111111 1212111 2322222 1211111"
    " 2222222"
)


def ratings_of(lines: list[str]) -> Ratings:
    classes = sorted(set("".join(lines)) - {"."})
    return np.array(
        [[MISSING if mark == "." else classes.index(mark) for mark in line] for line in lines]
    ).T


def alpha_by_pairs(ratings: Ratings) -> float:
    """One less the disagreement within items by that of all ratings, pair by pair, in fractions."""
    items = [[int(one) for one in row if one != MISSING] for row in ratings]
    items = [item for item in items if len(item) > 1]
    everything = [one for item in items for one in item]
    n = len(everything)
    observed = sum(
        (Fraction(sum(a != b for a, b in permutations(item, 2)), len(item) - 1) for item in items),
        Fraction(0),
    )
    expected = Fraction(sum(a != b for a, b in permutations(everything, 2)), n - 1)
    return float(1 - observed / expected)


def simulated(
    n_items: int, seed: int, accuracies: np.ndarray = ACCURACIES
) -> tuple[Ratings, Ratings]:
    """The truth, and what independent annotators say of it."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(n_items) < 0.4).astype(int)
    is_right = rng.random((n_items, len(accuracies))) < accuracies
    return truth, np.where(is_right, truth[:, None], 1 - truth[:, None])


@pytest.mark.parametrize(("lines", "alpha"), EXAMPLES)
def test_alpha_is_that_of_the_published_examples(lines: list[str], alpha: float) -> None:
    assert round(krippendorffs_alpha(ratings_of(lines)), 3) == alpha


@pytest.mark.parametrize("seed", range(20))
def test_alpha_is_the_ratio_of_disagreements_pair_by_pair(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ratings = rng.integers(0, 2 + seed % 4, size=(25, 2 + seed % 3))
    ratings[rng.random(ratings.shape) < 0.3] = MISSING
    assert krippendorffs_alpha(ratings) == pytest.approx(alpha_by_pairs(ratings), abs=1e-9)


def test_alpha_of_one_class_alone_is_not_a_number() -> None:
    assert np.isnan(krippendorffs_alpha(np.zeros((5, 2), dtype=int)))
    assert np.isnan(krippendorffs_alpha(np.full((5, 2), MISSING)))


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_kappa_is_that_of_scikit_learn(weights: str) -> None:
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    second[::3] = first[::3]
    wanted = cohen_kappa_score(first, second, weights=None if weights == "none" else weights)
    assert cohens_kappa(first, second, 4, weights) == pytest.approx(wanted, abs=1e-12)  # type: ignore[arg-type]


def test_kappa_rests_on_the_items_that_both_rated() -> None:
    first = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    second = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    assert cohens_kappa(first, second) == pytest.approx(0.4)  # 35 of 50 agree, 25 by chance
    alone = np.array([0, 1, MISSING])
    more = np.append(first, alone), np.append(second, [MISSING, MISSING, 1])
    assert cohens_kappa(*more) == pytest.approx(0.4)
    assert np.isnan(cohens_kappa(alone, np.full(3, MISSING)))


@pytest.mark.parametrize("seed", range(4))
def test_the_accuracies_of_three_annotators_are_found_without_the_truth(seed: int) -> None:
    """Three people are the fewest that identify the model, so it takes as many as 60,000 items."""
    truth, ratings = simulated(60_000, seed)
    found = dawid_skene(one_hot(ratings, 2))
    assert found.converged
    assert np.abs(found.accuracies - (ratings == truth[:, None]).mean(axis=0)).max() < 0.01
    assert np.abs(found.accuracies - ACCURACIES).max() < 0.01


def test_the_reliable_one_outvotes_two_others() -> None:
    truth, ratings = simulated(4_000, 0)
    votes = (ratings.sum(axis=1) > 1).astype(int)
    settled = dawid_skene(one_hot(ratings, 2)).posteriors.argmax(axis=1)
    assert (settled == truth).mean() > (votes == truth).mean() + 0.01


def test_the_anaesthetists_are_as_published() -> None:
    """The estimates of Dawid and Skene (1979), who printed two decimals."""
    seven = ratings_of([*map("".join, zip(*ANAESTHETISTS.split(), strict=True))])
    answers = one_hot(seven, 4)
    by_person = np.concatenate([answers[:, :3].sum(axis=1, keepdims=True), answers[:, 3:]], axis=1)
    found = dawid_skene(by_person, n_classes=4, smoothing=NO_SMOOTHING)
    assert found.prior.round(2).tolist() == [0.40, 0.42, 0.11, 0.07]
    first = [[0.89, 0.11, 0, 0], [0.07, 0.88, 0.05, 0], [0, 0.34, 0.66, 0], [0, 0, 0.56, 0.44]]
    assert found.confusions[0].round(2).tolist() == first


def test_the_order_of_the_items_changes_nothing() -> None:
    _, ratings = simulated(500, 1)
    order = np.random.default_rng(0).permutation(len(ratings))
    there, again = (dawid_skene(one_hot(rows, 2)) for rows in (ratings, ratings[order]))
    assert there.confusions.tobytes() == again.confusions.tobytes()
    assert there.posteriors[order].tobytes() == again.posteriors.tobytes()


def test_an_annotator_with_few_labels_is_neither_perfect_nor_useless() -> None:
    _, ratings = simulated(300, 2)
    newcomer = np.full((300, 1), MISSING)
    newcomer[0] = ratings[0, 2]
    found = dawid_skene(one_hot(np.hstack([ratings, newcomer]), 2))
    right = found.confusions[3][[0, 1], [0, 1]]
    assert ((right > 0.5) & (right < 0.9)).all()


def test_nobody_labelled_anything() -> None:
    found = dawid_skene(one_hot(np.full((3, 2), MISSING), 2))
    assert found.posteriors.tolist() == [[0.5, 0.5]] * 3
    assert np.isnan(found.accuracies).all()
    for nothing in ((0, 2, 2), (0, 0, 2)):
        assert dawid_skene(np.zeros(nothing)).converged


def test_the_hard_items_rank_first() -> None:
    _, ratings = simulated(400, 5, np.full(5, 0.97))
    hard = np.arange(20)
    ratings[hard] = np.random.default_rng(6).integers(0, 2, size=(20, 5))
    is_split = disagreement(ratings[hard]) > 0.5  # chance left some of them without a dissent
    first = np.argsort(-dawid_skene(one_hot(ratings, 2)).difficulty, kind="stable")
    assert set(hard[is_split]) <= set(first[:40])
    assert set(hard[is_split]) <= set(np.argsort(-disagreement(ratings), kind="stable")[:40])


def test_disagreement_is_the_share_of_pairs() -> None:
    found = disagreement(ratings_of(["0001", "001.", "010."]))
    assert found[:3].tolist() == pytest.approx([0, 2 / 3, 2 / 3])
    assert np.isnan(found[3])


def test_an_unclear_instruction_shows() -> None:
    _, clear = simulated(200, 7, np.full(3, 0.95))
    _, unclear = simulated(200, 8, np.full(3, 0.65))
    versions = np.repeat([["2"], ["1"]], 200, axis=0).repeat(3, axis=1)
    found = agreement_by_version(np.vstack([clear, unclear]), versions)
    assert found["2"].alpha > 0.6
    assert found["1"].alpha < 0.3
    assert found["2"].disagreement < found["1"].disagreement
    assert (found["1"].n_items, found["1"].n_ratings) == (200, 600)


def test_two_people_who_followed_different_instructions_are_no_pair() -> None:
    found = agreement_by_version(np.array([[1, 0]]), np.array([["1", "2"]]))
    assert [one.n_items for one in found.values()] == [0, 0]
    assert agreement(np.array([[1, 0]])).disagreement == 1
