"""Losses that attacks minimise: one value a candidate."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def poincare(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the Poincare distance between logits and the target's corner, (n,), >= 0.

    PPA, section 3.3: the logits are scaled to L1 norm 1, the corner is pulled in by 1e-4, and the
    hyperbolic distance keeps a gradient where the cross entropy's has vanished.

    Args:
        logits: (n, num_classes).
        labels: (n,).
    """
    u = logits / logits.abs().sum(dim=1, keepdim=True).clamp_min(1e-12)
    v = (functional.one_hot(labels, logits.shape[1]).to(u) - 1e-4).clamp(0, 1)
    gap = (u - v).square().sum(dim=1)
    # The clamp keeps a one-hot u, which lies on the rim, from an infinite distance.
    inside = (1 - u.square().sum(dim=1)).clamp_min(1e-7) * (1 - v.square().sum(dim=1))
    return torch.acosh(1 + 2 * gap / inside)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return -log softmax(logits)[label], (n,)."""
    return functional.cross_entropy(logits, labels, reduction="none")
