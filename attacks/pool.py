"""The pool: latents drawn from the prior and scored once for all targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attacks.attack import to_bounds
from attacks.parts import each, slices
from attacks.prior import Prior
from tasks.classifiers import Classifier
from tasks.draws import Draws


@dataclass(frozen=True)
class Pool:
    """Latents and the attacked classifier's scores of their images.

    Attributes:
        latents: w, (n, w_size).
        scores: class probabilities, (n, num_classes).
    """

    latents: Tensor
    scores: Tensor

    def best(self, labels: Tensor, count: int) -> Tensor:
        """Return the latents with the highest scores for each label, (labels, count, w_size)."""
        top = self.scores[:, labels].topk(count, dim=0).indices  # (count, labels)
        return self.latents[top.T]


@torch.no_grad()
def score_pool(
    classifier: Classifier,
    prior: Prior,
    size: int,
    draws: Draws,
    *,
    truncation: float = 1.0,
    mirror: bool = False,
) -> Pool:
    """Draw `size` latents and score their images for all classes at once.

    Args:
        classifier: the model under attack; only its scores are used.
        prior: the generator.
        size: latents to draw; latent i is the same for every size above i.
        draws: of the pool.
        truncation: towards the mean latent.
        mirror: average the scores over the image and its mirror image, as PPA does.
    """
    found = each(_score_part, classifier, (prior, draws, truncation, mirror), slices(size))
    return Pool(torch.cat([w for w, _ in found]), torch.cat([scores for _, scores in found]))


@torch.no_grad()
def _score_part(
    classifier: Classifier, shared: tuple[Prior, Draws, float, bool], part: slice
) -> tuple[Tensor, Tensor]:
    prior, draws, truncation, mirror = shared
    z = torch.from_numpy(draws.normal(np.arange(part.start, part.stop), prior.z_size)).float()
    w = prior.map(z.to(classifier.device), truncation)
    images = to_bounds(prior.synthesize(w), prior.bounds, classifier.bounds)
    scores = classifier.scores(images)
    if mirror:
        scores = (scores + classifier.scores(images.flip(3))) / 2
    return w, scores
