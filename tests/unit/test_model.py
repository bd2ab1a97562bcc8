"""SPIRAConv: the published shapes and numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from spira_tasks.speech.model import SpiraConv, mish


@pytest.mark.parametrize(("n_frames", "n_parameters"), [(401, 691_613), (301, 499_613)])
def test_it_has_the_published_number_of_parameters(n_frames: int, n_parameters: int) -> None:
    model = SpiraConv(n_frames, 40, "spiraconv_v2")
    assert sum(weight.numel() for weight in model.parameters()) == n_parameters


def test_the_convolutions_give_the_published_shapes() -> None:
    model = SpiraConv(401, 40).eval()
    shapes, hidden = [], torch.zeros(2, 1, 401, 40)
    for layer in model.convolutions:
        hidden = layer(hidden)
        if isinstance(layer, nn.Dropout):
            shapes.append(tuple(hidden.shape[1:]))
    assert shapes == [(32, 194, 40), (16, 93, 40), (8, 44, 40), (4, 43, 40)]
    assert model.dense[0].in_features == 6880


@pytest.mark.parametrize("version", ["spiraconv_v1", "spiraconv_v2", "spiraconv_v4"])
def test_each_version_gives_a_window_one_score(version: str) -> None:
    """As published, version 1 scored every time step when it was given windows."""
    model = SpiraConv(401, 40, version)  # type: ignore[arg-type]
    assert model(torch.randn(3, 401, 40)).shape == (3,)
    norm = nn.BatchNorm2d if version == "spiraconv_v1" else nn.GroupNorm
    assert sum(isinstance(layer, norm) for layer in model.convolutions) == 4


def test_kernels_dilations_and_what_the_dense_layers_see_can_be_chosen() -> None:
    model = SpiraConv(401, 40, "spiraconv_v4", kernels=(3, 3, 3, 3), dilations=(1, 2, 1, 2))
    # (401 - 2) // 2, (199 - 4) // 2, (97 - 2) // 2, 47 - 4 frames of 4 channels
    assert model.dense[0].in_features == 43 * 4 * 40
    assert model(torch.randn(3, 401, 40)).shape == (3,)
    average = SpiraConv(401, 40, n_hidden=20, pooling="average")
    assert average.dense[0].in_features == 4 * 40
    assert average.dense[0].out_features == 20
    assert average.eval()(torch.randn(2, 601, 40)).shape == (2,)  # any number of frames


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernels": (7, 5, 3)}, "3 kernels and 4 dilations"),
        ({"dilations": (20, 20, 20, 20)}, "too short for kernels"),
    ],
)
def test_layers_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpiraConv(401, 40, **options)


def test_features_are_never_mixed_before_the_dense_layers() -> None:
    """Every kernel looks along time only: a change in one bin stays in that bin."""
    model = SpiraConv(401, 40).eval()
    convolutions = [layer for layer in model.convolutions if isinstance(layer, nn.Conv2d)]
    assert [layer.kernel_size for layer in convolutions] == [(7, 1), (5, 1), (3, 1), (2, 1)]
    assert [layer.dilation for layer in convolutions] == [(2, 1), (2, 1), (2, 1), (1, 1)]


@pytest.mark.parametrize("version", ["spiraconv_v1", "spiraconv_v2"])
@pytest.mark.parametrize("n_frames", [401, 302])  # an odd and an even number is pooled
@pytest.mark.parametrize("pooling", ["flatten", "average"])
@torch.inference_mode()
def test_the_faster_pass_gives_the_numbers_of_the_published_network(
    version: str, n_frames: int, pooling: str
) -> None:
    torch.manual_seed(1)
    model = SpiraConv(n_frames, 40, version, pooling=pooling).eval()  # type: ignore[arg-type]
    for layer in model.convolutions:
        if isinstance(layer, (nn.GroupNorm, nn.BatchNorm2d)):  # as after a training
            layer.weight.normal_(1, 0.5)
            layer.bias.normal_(0, 0.5)
    features = torch.randn(3, n_frames, 40) * torch.tensor([0.1, 1.0, 10.0])[:, None, None]
    assert torch.allclose(model.infer(features), model.plain(features), rtol=0, atol=1e-6)
    assert torch.equal(model(features), model.infer(features))


def test_mish_is_that_of_torch_wherever_its_exponential_overflows() -> None:
    x = torch.cat([torch.linspace(-30, 30, 10_001), torch.tensor([-1e4, -100, 89, 200, 1e4])])
    assert torch.allclose(mish(x), nn.functional.mish(x), rtol=1e-6, atol=2e-6)


@torch.no_grad()
def test_version_1_learns_batch_statistics_and_uses_them_when_it_is_not_trained() -> None:
    torch.manual_seed(1)
    model, features = SpiraConv(61, 10, "spiraconv_v1", dropout=0.0), 5 + torch.randn(8, 61, 10)
    before = model(features).std()  # normalised by the batch
    for _ in range(60):
        model(features)
    norm = next(layer for layer in model.convolutions if isinstance(layer, nn.BatchNorm2d))
    assert bool(norm.running_mean.abs().max() > 0.1)  # type: ignore[union-attr]
    after = model.eval()(features)
    assert float(after.std()) == pytest.approx(float(before), rel=0.05)
    torch.testing.assert_close(model.infer(features), after, rtol=0, atol=1e-6)
