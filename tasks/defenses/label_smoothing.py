"""Label smoothing, positive or negative (Struppek et al., ICLR 2024).

A negative share pushes the other classes' logits apart from each other, which disturbs the
gradients of an attack; it is off at first, since training does not start well with it.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from tasks.defenses.defense import Defense, Forward


class LabelSmoothing(Defense):
    """(1 - alpha) times the cross entropy, plus alpha times its mean over all classes.

    Args:
        alpha: when it is full.
        start: progress up to which it is 0.
        full: progress from which it is full; linear between.
    """

    def __init__(self, alpha: float, start: float = 0.0, full: float = 0.0) -> None:
        self.alpha, self.start, self.full = alpha, start, full

    def alpha_at(self, progress: float) -> float:
        """Return alpha at a share of the training."""
        if progress >= self.full:
            return self.alpha
        if progress <= self.start:
            return 0.0
        return self.alpha * (progress - self.start) / (self.full - self.start)

    def loss(self, forward: Forward, views: Tensor, labels: Tensor, progress: float) -> Tensor:
        """Return the loss summed over the rows."""
        log_p = functional.log_softmax(forward(views), dim=1)
        alpha = self.alpha_at(progress)
        own = functional.nll_loss(log_p, labels, reduction="sum")
        return (1 - alpha) * own - alpha * log_p.mean(dim=1).sum()
