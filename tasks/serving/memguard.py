"""MemGuard (Jia et al., CCS 2019): adversarial noise on scores, under which no label changes.

A small network g learns to tell scores of trained-on images from scores of others. For each answer
noise e is searched in logits so that g no longer can, h(softmax(z + e)) = 0 for g's logit h:

    |h(softmax(z + e))| + 10 max(0, max_j (z + e)_j - (z + e)_label) + c |softmax(z + e) - s|_1

is descended by steps of one length until h changes its sign and the label is kept; then c is made
ten times larger, and the last noise that was found counts. The noise is added with a chance that
keeps the expected change within epsilon. That chance is drawn once for an answer: it is keyed by
the answer, so that asking again averages nothing away.

As in the released code (github.com/jinyuan-jia/MemGuard, defense_framework.py): these weights,
steps of length 0.1, sorted scores for g, and c from 0.1. Different: the answer's scores, not its
logits, are what g and the search start from (z = log s, equal up to a constant); 30 steps for each
of four weights c, not 300 for each of up to seven; held-out training images stand for its separate
reference set.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.draws import Draws
from tasks.serving.spec import MemGuardSpec

_WEIGHTS = (0.1, 1.0, 10.0, 100.0)
_LABEL_WEIGHT = 10.0
_BATCH = 64


class MemGuard(nn.Module):
    """Noise on scores."""

    def __init__(self, spec: MemGuardSpec, num_classes: int) -> None:
        super().__init__()
        self.spec = spec
        layers: list[nn.Module] = []
        sizes = (num_classes, 256, 128, 64)
        for inputs, outputs in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.guess = nn.Sequential(*layers, nn.Linear(64, 1))

    def fit(self, members: Tensor, others: Tensor, draws: Draws) -> None:
        """Teach g, on as many rows of the one kind as of the other."""
        from tasks.serving.output import batches

        count = min(len(members), len(others))
        chosen = np.argsort(draws.child("members").bits(np.arange(len(members)))[:, 0])[:count]
        scores = torch.cat([members[torch.from_numpy(chosen)], others[:count]])
        wanted = torch.cat([torch.ones(count), torch.zeros(count)]).to(scores.device)
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
        for epoch in range(self.spec.epochs):
            for rows in batches(len(scores), _BATCH, epoch, draws):
                found = self.membership(scores[rows])
                loss = functional.binary_cross_entropy_with_logits(found, wanted[rows])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()

    def membership(self, scores: Tensor) -> Tensor:
        """Return h, g's logit that an image was trained on, (n,)."""
        logit: Tensor = self.guess(scores.sort(dim=1).values)[:, 0]
        return logit

    def forward(self, scores: Tensor) -> Tensor:
        """Return what is answered instead of scores (n, classes); the label is the same."""
        scores = scores.detach()
        with torch.enable_grad():
            noisy = self._search(scores)
        with torch.no_grad():
            better = self.membership(noisy).abs() < self.membership(scores).abs()
            change = (noisy - scores).abs().sum(dim=1)
            chance = torch.where(better, self.spec.epsilon / change.clamp_min(1e-12), 0.0)
            drawn = torch.from_numpy(_once(scores)).to(scores.device)
            return torch.where((drawn < chance)[:, None], noisy, scores)

    def _search(self, scores: Tensor) -> Tensor:
        """Return for each answer the last noisy one that was found, or itself."""
        z, labels = scores.clamp_min(1e-12).log(), scores.argmax(dim=1)
        before = self.membership(scores).detach()
        found, alive = scores.clone(), torch.ones(len(scores), dtype=torch.bool, device=z.device)
        for weight in _WEIGHTS:
            noise, ended = torch.zeros_like(z), ~alive
            for _ in range(self.spec.steps):
                noise.requires_grad_(True)
                loss = self._loss(scores, z + noise, labels, weight)
                (slope,) = torch.autograd.grad(loss, noise)
                with torch.no_grad():
                    length = slope.norm(dim=1, keepdim=True).clamp_min(1e-12)
                    moved = noise - self.spec.step * slope / length
                    noise = torch.where(ended[:, None], noise, moved)
                    tried = functional.softmax(z + noise, dim=1)
                    kept = tried.argmax(dim=1) == labels
                    new = ~ended & kept & (self.membership(tried) * before <= 0)
                    found[new] = tried[new]
                    ended = ended | new
                if bool(ended.all()):
                    break
            alive = alive & ended
            if not bool(alive.any()):
                break
        return found

    def _loss(self, scores: Tensor, logits: Tensor, labels: Tensor, weight: float) -> Tensor:
        tried = functional.softmax(logits, dim=1)
        own = logits.gather(1, labels[:, None])[:, 0]
        others = logits.scatter(1, labels[:, None], float("-inf")).amax(dim=1)
        change = (tried - scores).abs().sum(dim=1)
        each = self.membership(tried).abs() + _LABEL_WEIGHT * (others - own).clamp_min(0)
        return (each + weight * change).sum()


def _once(scores: Tensor) -> np.ndarray:
    """Return one draw in [0, 1) for each answer, the same whenever it is given: four digits of it.

    Digits beyond differ with the batch that a query comes in.
    """
    rounded = np.rint(scores.detach().cpu().numpy() * 1e4).astype(np.int64)
    numbers = [
        int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=7).digest(), "little")
        for row in rounded
    ]
    return np.asarray(numbers, dtype=np.float64) / 2.0**56
