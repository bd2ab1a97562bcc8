"""The fused layers give the numbers and the gradients of torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spira_tasks.speech import cpu, fused
from spira_tasks.speech.model import SpiraConv

pytestmark = pytest.mark.skipif(not fused.has_compiler(), reason="numba is not installed")


def layer(n_frames: int, scale: float = 1.0) -> tuple[Tensor, nn.GroupNorm]:
    torch.manual_seed(3)
    norm = nn.GroupNorm(4, 8)
    norm.weight.data.normal_(1, 0.5)
    norm.bias.data.normal_(0, 0.5)
    return (scale * torch.randn(3, 8, n_frames, 13) - scale).requires_grad_(), norm


def oracle(x: Tensor, norm: nn.GroupNorm, pooled: bool, mask: Tensor) -> list[Tensor]:
    """The output and its three gradients in double precision, with what was dropped as a mask."""
    exact = x.detach().double().requires_grad_()
    weight, bias = (
        values.detach().double().requires_grad_() for values in (norm.weight, norm.bias)
    )
    y = functional.mish(functional.group_norm(exact, 4, weight, bias, norm.eps))
    y = (functional.max_pool2d(y, (2, 1)) if pooled else y) * mask
    gradients = torch.autograd.grad(y, [exact, weight, bias], towards(y))
    return [y.detach(), *gradients]


def towards(y: Tensor) -> Tensor:
    return torch.linspace(-1, 1, y.numel(), dtype=y.dtype).sin().view_as(y)


@pytest.mark.parametrize("scale", [1.0, 300.0])  # the last as features that are not standardised
@pytest.mark.parametrize("dropout", [0.0, 0.7])
@pytest.mark.parametrize(("n_frames", "pooled"), [(20, True), (21, True), (1, False), (9, False)])
def test_values_and_gradients_are_those_of_torch_in_double_precision(
    n_frames: int, pooled: bool, dropout: float, scale: float
) -> None:
    x, norm = layer(n_frames, scale)
    y = fused.normalised_mish(x, norm, pooled, dropout)
    gradients = torch.autograd.grad(y, [x, norm.weight, norm.bias], towards(y))
    exact = oracle(x, norm, pooled, (y.detach() != 0) / (1 - dropout))
    for found, expected in zip([y.detach(), *gradients], exact, strict=True):
        error = (found - expected).abs().max() / expected.abs().max()
        assert float(error) < 3e-6


def test_mish_is_right_for_large_and_small_values() -> None:
    norm = nn.GroupNorm(1, 1, eps=0.0)
    x = torch.cat([torch.linspace(-50, 50, 2_001), torch.tensor([-200.0, 200.0])])
    norm.weight.data.fill_(float(x.std(correction=0)))  # so that it is normalised to itself
    norm.bias.data.fill_(float(x.mean()))
    y = fused.normalised_mish(x.view(1, 1, -1, 1), norm, False, 0.0).view(-1)
    torch.testing.assert_close(y, functional.mish(x), rtol=2e-6, atol=1e-5)


def test_it_drops_as_often_as_asked_and_anew_each_time() -> None:
    x, norm = layer(400)
    dropped = [(fused.normalised_mish(x, norm, True, 0.3) == 0).double() for _ in range(2)]
    for one in dropped:  # 62,400 values: a standard deviation is 0.0018
        assert float(one.mean()) == pytest.approx(0.3, abs=0.009)
        for dim in range(4):  # no pattern along an axis
            neighbours = one.narrow(dim, 1, one.shape[dim] - 1) * one.narrow(
                dim, 0, one.shape[dim] - 1
            )
            assert float(neighbours.mean()) == pytest.approx(0.09, abs=0.008)
    assert float((dropped[0] * dropped[1]).mean()) == pytest.approx(0.09, abs=0.006)


def trained(n_threads: int) -> list[Tensor]:
    torch.set_num_threads(n_threads)
    x, norm = layer(40)
    y = fused.normalised_mish(x, norm, True, 0.5)
    return [y.detach(), *torch.autograd.grad(y, [x, norm.weight, norm.bias], towards(y))]


def test_the_seed_alone_decides_every_bit_whatever_the_number_of_threads() -> None:
    once, again, three = trained(1), trained(1), trained(3)
    cpu.prepare(n_threads=2)
    for first, second, third in zip(once, again, three, strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, third)


def test_a_value_that_is_not_a_number_stays_none() -> None:
    x, norm = layer(20)
    x.data[0, 0, 0, 0] = torch.nan
    assert fused.normalised_mish(x, norm, True, 0.0)[0, 0].isnan().all()


def test_the_network_learns_as_with_the_plain_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dropout the fused network and the plain one have the same gradients."""
    torch.manual_seed(1)
    model = SpiraConv(61, 10, dropout=0.0)
    features = torch.randn(4, 61, 10)
    functions = (model, model.plain)
    gradients = [
        torch.autograd.grad(f(features).sum(), list(model.parameters())) for f in functions
    ]
    for fast, plain in zip(*gradients, strict=True):
        assert float((fast - plain).abs().max() / plain.abs().max()) < 1e-5
    monkeypatch.setattr(fused, "has_compiler", lambda: False)  # as where numba is not installed
    assert torch.equal(model(features), model.plain(features))
