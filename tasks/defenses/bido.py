"""BiDO (Peng et al., KDD 2022): bilateral dependency of hidden layers.

The loss adds each hidden layer's dependence on the images and takes off its dependence on the
labels, by normalised HSIC or by COCO (Gretton et al., 2005). Dependence is measured within the rows
of one process, so BiDO is trained in one.
"""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.defenses.defense import Defense, Forward
from tasks.defenses.networks import hidden_layers
from tasks.defenses.spec import BidoSpec


class Bido(Defense):
    """Cross entropy plus weighted dependences."""

    def __init__(self, spec: BidoSpec, network: nn.Module) -> None:
        self.spec = spec
        self.layers = hidden_layers(network, spec.layers)

    def loss(self, forward: Forward, views: Tensor, labels: Tensor, progress: float) -> Tensor:
        """Return the loss summed over the rows."""
        maps: list[Tensor] = []
        with ExitStack() as stack:
            for layer in self.layers:
                stack.enter_context(
                    layer.register_forward_hook(lambda _, __, output: maps.append(output))
                )
            logits = forward(views)
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        with torch.autocast(views.device.type, enabled=False):
            images = gaussian_kernel(views.flatten(1).float(), self.spec.sigma)
            answers = functional.one_hot(labels, logits.shape[1]).float()
            wanted = answers @ answers.T
            measure = hsic if self.spec.measure == "hsic" else coco
            total = torch.zeros((), device=views.device)
            for hidden in maps:
                kernel = gaussian_kernel(hidden.flatten(1).float(), self.spec.sigma)
                total = total + self.spec.input_weight * measure(images, kernel)
                total = total - self.spec.label_weight * measure(kernel, wanted)
        return loss + len(views) * self.spec.scale * total


def gaussian_kernel(x: Tensor, sigma: float) -> Tensor:
    """Return the kernel matrix (m, m) of rows (m, d), its width per dimension."""
    square = x.square().sum(dim=1)
    distance = (square[:, None] + square[None, :] - 2 * x @ x.T).clamp_min(0)
    return torch.exp(-distance / (2 * sigma**2 * x.shape[1]))


def hsic(a: Tensor, b: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Return the normalised Hilbert-Schmidt independence criterion of two kernel matrices (m, m).

    The sum of squared canonical correlations (Fukumizu et al., 2008); 0 for independent samples.
    """
    found: Tensor = (_normalised(a, epsilon) * _normalised(b, epsilon).T).sum()
    return found


def coco(a: Tensor, b: Tensor) -> Tensor:
    """Return the constrained covariance of two kernel matrices (m, m)."""
    product = _centred(a) @ _centred(b)
    largest: Tensor = torch.linalg.matrix_norm(product, ord=2)
    return largest.clamp_min(1e-12).sqrt() / len(a)


def _normalised(kernel: Tensor, epsilon: float) -> Tensor:
    centred, count = _centred(kernel), len(kernel)
    ridge = epsilon * count * torch.eye(count, device=kernel.device)
    found: Tensor = torch.linalg.solve(centred + ridge, centred)
    return found


def _centred(kernel: Tensor) -> Tensor:
    return (
        kernel - kernel.mean(dim=0, keepdim=True) - kernel.mean(dim=1, keepdim=True) + kernel.mean()
    )
