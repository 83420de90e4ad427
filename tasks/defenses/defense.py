"""The one interface of training-time defences: views, the loss, and what an epoch starts with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.nn import functional

from tasks.draws import Draws

Forward = Callable[[Tensor], Tensor]
"""Float32 logits (n, classes) of normalised views (n, 3, h, w)."""


class Defense:
    """Plain training; a defence overrides what it changes."""

    def begin(self, network: nn.Module) -> None:
        """Prepare a fresh network before its first step."""

    def start_epoch(self, network: nn.Module) -> None:
        """Settle modes, after the network was put into training mode."""

    def views(self, views: Tensor, rows: npt.NDArray[np.int64], draws: Draws) -> Tensor:
        """Return augmented views (n, 3, h, w) in [0, 1] as the defence wants them.

        Args:
            views: of the rows.
            rows: their positions, which the draws are keyed by.
            draws: of the epoch.
        """
        return views

    def loss(self, forward: Forward, views: Tensor, labels: Tensor, progress: float) -> Tensor:
        """Return the loss summed over the rows.

        Args:
            forward: the network.
            views: normalised.
            labels: (n,).
            progress: share of the training that is done, in [0, 1).
        """
        return functional.cross_entropy(forward(views), labels, reduction="sum")
