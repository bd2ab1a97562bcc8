"""The networks by name: their sizes, their options, and that each of them learns."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from spira_tasks.errors import ConfigError
from spira_tasks.speech.classifier import Classifier, ClassifierSpec
from spira_tasks.speech.features import FeatureSpec
from spira_tasks.speech.networks import NETWORKS, build
from spira_tasks.speech.transformer import MfccGramTransformer

SMALL: dict[str, dict[str, Any]] = {
    "spiraconv_v1": {"n_hidden": 8, "dropout": 0.1},
    "spiraconv_v2": {"n_hidden": 8, "dropout": 0.1},
    "spiraconv_v4": {"n_hidden": 8, "dropout": 0.1, "pooling": "average"},
    "cnn14": {"channels": [4, 8], "dropout": 0.1},
    "mfcc_gram_transformer": {"n_channels": 16, "n_layers": 1},
    "logistic": {},
}


@pytest.mark.parametrize(
    ("name", "shape", "options", "n_parameters"),
    [
        ("spiraconv_v2", (401, 40), {}, 691_613),
        ("logistic", (1, 17), {}, 18),
        # of the batch normalisation of bins, four blocks, and two layers
        ("cnn14", (401, 64), {}, 128 + 2_512 + 13_952 + 55_552 + 221_696 + 16_512 + 129),
        # of a token, two layers of attention (4 × 64 × 65) and two dense layers, and the end
        ("mfcc_gram_transformer", (401, 40), {}, 64 * 161 + 2 * 33_472 + 128 + 65),
    ],
)
def test_a_network_has_the_parameters_that_its_description_counts(
    name: str, shape: tuple[int, int], options: dict[str, Any], n_parameters: int
) -> None:
    network = build(name, shape[0], shape[1], options)
    assert sum(weight.numel() for weight in network.parameters()) == n_parameters
    assert network.eval()(torch.randn(3, *shape)).shape == (3,)


def separable(n_windows: int, n_frames: int = 64, n_bins: int = 8) -> tuple[Tensor, Tensor]:
    """Windows of noise; in those of label 1 the last half of the bins is louder."""
    torch.manual_seed(5)
    labels = torch.arange(n_windows) % 2
    louder = labels[:, None, None] * (torch.arange(n_bins) >= n_bins // 2)
    return torch.randn(n_windows, n_frames, n_bins) + louder, labels.float()


def trained(name: str, features: Tensor, labels: Tensor) -> tuple[nn.Module, str]:
    torch.manual_seed(7)
    network = build(name, features.shape[1], features.shape[2], SMALL[name])
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(15):
        loss = nn.functional.binary_cross_entropy_with_logits(network(features), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return network.eval(), hashlib.sha256(save(network.state_dict())).hexdigest()


@pytest.mark.parametrize("name", NETWORKS.ours)
def test_each_network_learns_what_can_be_separated_and_twice_the_same(name: str) -> None:
    features, labels = separable(64)
    network, digest = trained(name, features[:32], labels[:32])
    with torch.inference_mode():
        right = (network(features[32:]) > 0) == labels[32:].bool()
    assert right.float().mean() >= 0.9
    assert trained(name, features[:32], labels[:32])[1] == digest


@torch.inference_mode()
def test_the_transformer_is_an_encoder_whose_first_step_can_be_computed_by_hand() -> None:
    network = MfccGramTransformer(9, 3, n_grouped=2, n_channels=4, n_heads=2, n_layers=1).eval()
    features = torch.randn(2, 9, 3)
    changed = features.clone()
    changed[:, 8] += 100  # a frame that makes no token
    assert torch.equal(network(features), network(changed))
    expected = [math.sin(1), math.sin(0.01), math.cos(1), math.cos(0.01)]
    assert torch.allclose(network.positions[1], torch.tensor(expected))


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("cnn14", (401, 40), {"chanels": 3}, r"no option chanels\. Its options are: channels, dro"),
        ("logistic", (1, 17), {"dropout": 0.3}, r"no option dropout\. Its options are: none"),
        ("spiraconv_v2", (401, 40), {"version": "spiraconv_v1"}, "no option version"),
        ("spiraconv_v2", (401, 40), {"dropout": 7}, "dropout=7: dropout probability has to be"),
        ("cnn14", (1, 17), {}, "of 1 frames of 17 bins: 4 blocks halve a window so often"),
        ("mfcc_gram_transformer", (401, 40), {"n_heads": 5}, "a multiple of n_heads"),
        ("spiraconv_v2", (1, 17), {}, "Change its options, or the feature and the windows"),
        ("resnet", (401, 40), {}, "no 'resnet' among the networks. Known are: spiraconv_v1"),
    ],
)
def test_an_option_that_cannot_be_is_refused_with_what_can(
    name: str, shape: tuple[int, int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, shape[0], shape[1], options)


def test_a_classifier_of_an_older_version_is_the_same_network() -> None:
    spec = ClassifierSpec(options={"dropout": 0.3, "n_hidden": 5})
    fields = json.loads(spec.to_json())
    old_features = (
        *("name", "sample_rate_hz", "n_fft", "win_length", "hop_length", "n_mels", "n_mfcc"),
        *("window_seconds", "step_seconds", "tail"),
    )
    features = {name: fields["features"][name] for name in old_features}
    old = {"task": "SENTENCE", "model": "spiraconv_v2", "operating_point": 0.5}
    text = json.dumps({**old, "features": features, "dropout": 0.3, "n_hidden": 5})
    assert ClassifierSpec.from_json(text) == spec == ClassifierSpec.from_json(spec.to_json())


@torch.inference_mode()
def test_a_network_without_a_faster_pass_is_scored_as_it_is_when_it_is_not_trained() -> None:
    spec = ClassifierSpec(
        features=FeatureSpec(window_seconds=1, n_mels=16, n_mfcc=16),
        model="cnn14",
        options=SMALL["cnn14"],
    )
    classifier = Classifier(spec).train()
    features = torch.randn(3, 101, 16)
    expected = torch.sigmoid(classifier.eval().network(features))
    assert torch.equal(classifier.train().window_scores(features), expected)
