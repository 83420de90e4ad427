"""Losses that attacks minimise: one value a candidate."""

from __future__ import annotations

import math
from collections.abc import Callable

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


def max_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the largest other logit minus the target's, (n,) (PLG-MI, section 3.3)."""
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -math.inf)
    return others.max(dim=1).values - own


def logit(logits: Tensor, labels: Tensor) -> Tensor:
    """Return minus the target's raw logit, (n,) (LOMMA, section 4.1: no softmax)."""
    return -logits.gather(1, labels[:, None])[:, 0]


def level(logits: Tensor, labels: Tensor, confidence: float) -> Tensor:
    """Return how far the scores are from `confidence` in the target and flat elsewhere, (n,) >= 0.

    Mislabelled at random, a target's own face is recognised with middling confidence, and no other
    class stands out; a surrogate's is recognised with high confidence. The value is the divergence
    of the scores from that profile.

    Args:
        logits: (n, num_classes).
        labels: (n,).
        confidence: held in the target class, in (0, 1).
    """
    others = logits.shape[1] - 1
    wanted = torch.full_like(logits, (1 - confidence) / max(others, 1))
    wanted.scatter_(1, labels[:, None], confidence)
    return (wanted * (wanted.log() - functional.log_softmax(logits, dim=1))).sum(dim=1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "poincare": poincare,
    "cross-entropy": cross_entropy,
    "max-margin": max_margin,
    "logit": logit,
}
