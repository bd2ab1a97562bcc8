"""What pushed an answer, of classifiers of which it is known what they hear."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from spira_tasks.evaluation import explanations
from spira_tasks.evaluation.explanations import CELL_SECONDS, Recording
from spira_tasks.speech.classifier import Classifier, ClassifierSpec
from spira_tasks.speech.features import FeatureSpec

HEARD = 10  # the mel band that the planted classifier hears: of the second of six groups
TONE_HZ = 540.0
LOUD_SECONDS = (2.0, 2.5)  # when the planted sound has it


def planted(feature: str) -> tuple[Classifier, Recording]:
    """A classifier that hears how loud one mel band is, and nothing else; and a recording."""
    classifier = Classifier(ClassifierSpec(features=FeatureSpec(name=feature), model="logistic"))
    recording = recorded(classifier)
    quiet = recorded(classifier, loudness=0.0)
    classifier.standardize.mean.copy_(quiet.features.mean(dim=(0, 1)))
    linear, spectral = classifier.scorer.linear, classifier.extractor.spectral
    assert isinstance(linear, nn.Linear)
    assert spectral is not None
    weights = torch.zeros(40)
    weights[HEARD] = 0.5
    linear.weight.data[0] = weights if spectral.dct is None else weights @ spectral.dct
    return classifier.eval(), recording


def recorded(classifier: Classifier, seconds: float = 5.5, loudness: float = 0.1) -> Recording:
    """Noise, and for half a second a tone that the planted classifier hears."""
    n_samples = round(16_000 * seconds)
    rng = np.random.default_rng(1)
    waveform = 0.001 * rng.standard_normal(n_samples)
    time = np.arange(n_samples) / 16_000
    is_loud = (time >= LOUD_SECONDS[0]) & (time < LOUD_SECONDS[1])
    waveform += loudness * is_loud * np.sin(2 * np.pi * TONE_HZ * time)
    pcm16 = np.round(32_767 * waveform).astype(np.int16)
    features = classifier.extractor.of_recording(torch.from_numpy(pcm16 / 32_768).float())
    return Recording(features, pcm16)


def of_one(made: tuple[Classifier, Recording]) -> tuple[Classifier, list[Recording]]:
    return made[0], [made[1]]


def test_a_map_points_to_when_and_at_which_frequencies_the_answer_was_made() -> None:
    cells, found = explanations.explain(*of_one(planted("log_mel")), 0)
    edges = found["band_edges_hz"]
    assert cells.loc[cells["from_hz"] != edges[1], "points"].abs().max() == 0
    pushing = cells[cells["points"] > 0.5 * cells["points"].max()]
    assert pushing["from_seconds"].between(1.75, 2.5).all()
    assert pushing["to_hz"].unique().tolist() == [edges[2]]
    (facts,) = found["recordings"]
    assert facts["bands"][1] == max(facts["bands"]) > 10
    assert facts["parts"]["speech"] > 10
    assert abs(facts["parts"]["edges"]) < 5


def test_coefficients_are_explained_as_the_bands_that_they_are_of() -> None:
    maps = [
        explanations.explain(*of_one(planted(feature)), 0)[0]["points"]
        for feature in ("log_mel", "mfcc")
    ]
    assert maps[0].abs().max() > 1
    assert maps[1].to_numpy() == pytest.approx(maps[0].to_numpy(), abs=0.02)


def test_what_is_explained_is_the_score_of_the_recording() -> None:
    classifier, recording = planted("mfcc")
    cut = explanations.Cut.of(classifier, recording)
    everything = (range(len(cut.parts)), range(6))
    probability, points = cut.points(classifier, [everything, ([], range(6))])
    assert probability == pytest.approx(classifier.score(recording.features))
    baseline = classifier.score(classifier.standardize.mean.expand(1, 401, 40))
    assert probability - points[0] / 100 == pytest.approx(baseline, abs=1e-5)
    assert points[1] == 0


def test_what_is_padded_behind_a_short_recording_explains_nothing() -> None:
    classifier, _ = planted("mfcc")
    recording = recorded(classifier, seconds=3.0)
    cut = explanations.Cut.of(classifier, recording)
    assert len(cut.parts) == 3.0 / CELL_SECONDS
    assert int((cut.time_of >= 0).sum()) == 301


def test_maps_of_random_weights_are_other_maps_and_those_of_the_same_weights_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(7)
    classifier = Classifier(ClassifierSpec(options={"n_hidden": 4}))
    recording = recorded(classifier, seconds=3.0)
    before = torch.get_rng_state()
    cells, found = explanations.explain(classifier, [recording], 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert abs(found["randomised"]["all_layers"]["signed"]) < 0.5
    again, same = explanations.explain(classifier, [recording], 0)
    pd.testing.assert_frame_equal(again, cells)
    assert same == found
    monkeypatch.setattr(explanations, "randomised", lambda one, *_: one)
    unchanged = explanations.explain(classifier, [recording], 0)[1]["randomised"]
    assert unchanged["all_layers"] == pytest.approx({"signed": 1, "absolute": 1})


def test_random_weights_in_the_last_layer_leave_the_others_as_they_are() -> None:
    classifier = Classifier(ClassifierSpec(options={"n_hidden": 4}))
    other = explanations.randomised(classifier, "last_layer", 0)
    own, theirs = classifier.scorer.state_dict(), other.scorer.state_dict()
    changed = {name for name in own if not torch.equal(own[name], theirs[name])}
    assert changed == {"dense.3.weight", "dense.3.bias"}
    all_of_them = explanations.randomised(classifier, "all_layers", 0).scorer.state_dict()
    assert not torch.equal(own["convolutions.0.weight"], all_of_them["convolutions.0.weight"])


def test_a_typical_recording_of_each_kind_of_answer_is_chosen() -> None:
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 1.0])
    scores = np.array([0.9, 0.6, 0.7, 0.2, 0.1, 0.4, 0.8, 0.65])
    # patients found: 0.6 0.65 0.7 0.9; missed: 0.2; controls recognised: 0.1 0.4; called: 0.8
    assert explanations.chosen(labels, scores, 0.5) == [7, 3, 4, 6]
    assert explanations.chosen(labels[:3], scores[:3], 0.5) == [2]
