"""The shape of a classifier's loss around samples: its curvature, and how it rises with distance.

The paper's claim (its Figure 2): DCD makes the loss of the target's label low and flat around
surrogate samples, and high and steep around the target's own. Here it is measured: the trace of
the Hessian in pixels or along a prior's latents, and the loss along random directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tasks.classifiers import Classifier
from tasks.draws import Draws

LossOf = Callable[[Tensor, Tensor], Tensor]
"""Maps points (n, ...) and labels (n,) to a loss each, (n,), twice differentiable in the points.

The loss of a point must not depend on the other points: a network in evaluation mode."""

BATCH = 64


def pixel_loss(classifier: Classifier) -> LossOf:
    """Return the cross entropy as a function of the image (n, 3, s, s)."""

    def loss_of(images: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(classifier.logits(images), labels, reduction="none")

    return loss_of


def latent_loss(classifier: Classifier, images_of: Callable[[Tensor], Tensor]) -> LossOf:
    """Return the cross entropy as a function of the latent, through a generator.

    Args:
        classifier: the model.
        images_of: maps latents (n, d) to images in the classifier's bounds; a prior is not known
            in this room.
    """
    in_pixels = pixel_loss(classifier)
    return lambda latents, labels: in_pixels(images_of(latents), labels)


def hessian_trace(
    loss_of: LossOf, points: Tensor, labels: Tensor, draws: Draws, probes: int = 8
) -> Tensor:
    """Return an unbiased estimate of tr H of the loss at each point, (n,).

    Hutchinson (1989): E[v' H v] = tr H for v of independent signs; H v by a second backward pass.
    Signs have the least variance of all such v, and none where H is diagonal.

    Args:
        loss_of: the loss.
        points: (n, ...).
        labels: (n,).
        draws: of the signs, keyed by the point's position and the probe.
        probes: products a point.
    """
    traces = []
    for start in range(0, len(points), BATCH):
        rows = np.arange(start, min(start + BATCH, len(points)))
        at = points[start : start + BATCH].detach().requires_grad_(True)
        loss = loss_of(at, labels[start : start + BATCH]).sum()
        (slope,) = torch.autograd.grad(loss, at, create_graph=True)
        total = torch.zeros(len(at), dtype=at.dtype, device=at.device)
        for probe in range(probes):
            signs = _signs(draws.child("probe", probe), rows, at)
            product = _derivative((slope * signs).sum(), at, keep=probe + 1 < probes)
            total += (product * signs).flatten(1).sum(1)
        traces.append((total / probes).detach())
    return torch.cat(traces)


@torch.no_grad()
def loss_along(
    loss_of: LossOf,
    points: Tensor,
    labels: Tensor,
    radii: Sequence[float],
    draws: Draws,
    directions: int = 8,
) -> Tensor:
    """Return the mean loss at each radius in random directions from each point, (n, radii).

    A direction is normal noise scaled to a root mean square of 1 a coordinate, so that radius r is
    noise of sigma r. Points may leave the range of pixels: clipping would bend the way.

    Args:
        loss_of: the loss.
        points: (n, ...).
        labels: (n,).
        radii: root mean square a coordinate; 0 is the point itself.
        draws: of the directions, keyed by the point's position.
        directions: for each point, the same at every radius.
    """
    found = torch.zeros(len(points), len(radii))
    for start in range(0, len(points), BATCH):
        rows = np.arange(start, min(start + BATCH, len(points)))
        at, own = points[start : start + BATCH], labels[start : start + BATCH]
        for k in range(directions):
            noise = draws.child("direction", k).normal(rows, at[0].numel())
            noise /= np.sqrt(np.square(noise).mean(axis=1, keepdims=True))
            way = torch.from_numpy(noise).to(at).view_as(at)
            for j, radius in enumerate(radii):
                found[start : start + BATCH, j] += loss_of(at + radius * way, own).cpu()
    return found / directions


def _derivative(value: Tensor, at: Tensor, *, keep: bool) -> Tensor:
    """Return d value / d at; a loss that is linear there has a slope without a graph: zero."""
    if not value.requires_grad:
        return torch.zeros_like(at)
    (found,) = torch.autograd.grad(value, at, retain_graph=keep, allow_unused=True)
    return torch.zeros_like(at) if found is None else found


def _signs(draws: Draws, rows: np.ndarray, like: Tensor) -> Tensor:
    bits = draws.bits(rows, like[0].numel()) & np.uint64(1)
    return torch.from_numpy(2.0 * bits.astype(np.float64) - 1).to(like).view_as(like)
