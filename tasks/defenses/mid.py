"""MID (Wang et al., AAAI 2021): limit what the prediction may know of the image.

The network's last layer reads a noisy code; the loss adds the code's divergence from a standard
normal, an upper bound of its mutual information with the image.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from tasks.defenses.defense import Defense, Forward
from tasks.defenses.networks import Bottleneck
from tasks.defenses.spec import MidSpec


class Mid(Defense):
    """Cross entropy plus beta times the code's information."""

    def __init__(self, spec: MidSpec, network: nn.Module) -> None:
        self.beta = spec.beta
        self.bottleneck = next(m for m in network.modules() if isinstance(m, Bottleneck))

    def loss(self, forward: Forward, views: Tensor, labels: Tensor, progress: float) -> Tensor:
        """Return the loss summed over the rows."""
        loss = functional.cross_entropy(forward(views), labels, reduction="sum")
        return loss + self.beta * self.bottleneck.information
