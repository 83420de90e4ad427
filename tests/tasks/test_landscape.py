"""Curvature and loss around samples, against the exact Hessian of small models."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tasks.classifiers import SmallMixer, SmallVgg, TorchClassifier
from tasks.draws import Draws
from tasks.landscape import hessian_trace, latent_loss, loss_along, pixel_loss

LABELS = torch.tensor([2, 0, 1])


def exact(loss_of: object, points: Tensor, labels: Tensor) -> Tensor:
    """The trace from the whole matrix, one point at a time."""
    traces = []
    for point, label in zip(points, labels, strict=True):

        def single(x: Tensor, label: Tensor = label) -> Tensor:
            return loss_of(x[None], label[None])[0]  # type: ignore[operator,no-any-return]

        matrix = torch.autograd.functional.hessian(single, point)
        traces.append(matrix.reshape(point.numel(), point.numel()).trace())
    return torch.stack(traces)


def softmax_loss(points: Tensor, labels: Tensor) -> Tensor:
    weights = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=points.dtype)
    return functional.cross_entropy(points @ weights.T, labels, reduction="none")


def points(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_one_probe_is_exact_where_the_hessian_is_diagonal() -> None:
    scale = torch.arange(1.0, 6.0, dtype=torch.float64)
    trace = hessian_trace(lambda x, _: (scale * x**2).sum(1), points(3, 5), LABELS, Draws(0), 1)
    assert trace == pytest.approx(torch.full((3,), 2 * 15.0, dtype=torch.float64))


def test_many_probes_come_to_the_exact_trace_of_a_softmax_model() -> None:
    at = points(3, 6)
    wanted = exact(softmax_loss, at, LABELS)
    few = hessian_trace(softmax_loss, at, LABELS, Draws(0), probes=2)
    many = hessian_trace(softmax_loss, at, LABELS, Draws(0), probes=3000)
    assert many == pytest.approx(wanted, rel=0.06)
    assert (many - wanted).abs().max() < (few - wanted).abs().max()


@pytest.mark.parametrize("network", [SmallVgg, SmallMixer])
def test_it_is_the_trace_of_a_real_network(network: type[SmallVgg] | type[SmallMixer]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = network(4, width=4).double()
    for parameter in module.parameters():  # away from the flat start of an untrained network
        parameter.data *= 1.5
    size = 8
    loss_of = pixel_loss(TorchClassifier(module, 4, size))
    at = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0)).double()

    def in_double(images: Tensor, labels: Tensor) -> Tensor:
        logits = module((images - 0.5) / 0.5)
        return functional.cross_entropy(logits, labels, reduction="none")

    wanted = exact(in_double, at, LABELS)
    found = torch.stack(
        [hessian_trace(loss_of, at, LABELS, Draws(seed), probes=200) for seed in range(3)]
    )
    spread = found.std(dim=0) / 3**0.5
    assert ((found.mean(0) - wanted).abs() < 6 * spread + 0.02 * wanted.abs()).all()


def test_latents_have_the_curvature_of_the_generators_way() -> None:
    """Images A w under a smooth loss: the trace is that of A' H A."""
    mix = points(12, 2)

    class Bowl:
        def logits(self, images: Tensor) -> Tensor:
            half = images.flatten(1).square().sum(1) / 2
            return torch.stack([-half, torch.zeros_like(half)], dim=1)

    at = 0.1 * points(3, 2)
    loss_of = latent_loss(Bowl(), lambda w: (w @ mix.T).view(-1, 3, 2, 2))  # type: ignore[arg-type]
    labels = torch.tensor([0, 1, 0])
    found = hessian_trace(loss_of, at, labels, Draws(0), probes=2000)
    assert found == pytest.approx(exact(loss_of, at, labels), rel=0.05)


def test_a_straight_loss_has_no_curvature() -> None:
    assert hessian_trace(lambda x, _: 3 * x.sum(1), points(3, 4), LABELS, Draws(0)).abs().max() == 0


def test_the_loss_rises_with_the_square_of_the_radius() -> None:
    """Noise of sigma r on d coordinates lifts |x|^2 at the origin by exactly d r^2."""
    found = loss_along(
        lambda x, _: x.square().sum(1),
        torch.zeros(3, 50, dtype=torch.float64),
        LABELS,
        (0.0, 0.1, 0.2),
        Draws(0),
    )
    assert found.mean(0).tolist() == pytest.approx([0.0, 0.5, 2.0])


def test_a_points_draws_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    at = points(3, 6)
    whole = hessian_trace(softmax_loss, at, LABELS, Draws(0), 4)
    along = loss_along(softmax_loss, at, LABELS, (0.1,), Draws(0))
    monkeypatch.setattr("tasks.landscape.BATCH", 2)
    assert torch.allclose(hessian_trace(softmax_loss, at, LABELS, Draws(0), 4), whole)
    assert torch.allclose(loss_along(softmax_loss, at, LABELS, (0.1,), Draws(0)), along)
    assert not torch.allclose(hessian_trace(softmax_loss, at, LABELS, Draws(1), 4), whole)
