"""IF-GMI (Qiu et al., ECCV 2024): PPA's search, then on through the generator's inner features.

After w, the features that each of the first layers hands on are optimised together with w, inside
an L1 ball around where they were: the generator's inner spaces hold more images than w does, and
the balls keep them near its own. Features leave w, so `latents` are where the search left it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from attacks.attack import Access, AttackResult, check_finite, labels_of, to_bounds
from attacks.candidates import best_first, candidate_ids, random_views
from attacks.objective import Objective
from attacks.parts import slices
from attacks.pool import score_pool
from attacks.ppa import search_images
from attacks.prior import Prior, State
from attacks.search import BETAS, OPTIMISE_AREA, robust_confidence, search
from attacks.spec import IfGmiSpec
from tasks.classifiers import Classifier
from tasks.draws import Draws, IntArray
from tasks.types import UNIT, TargetClass


class IfGmi:
    """PPA, continued in intermediate features.

    Args:
        spec: the budget.
    """

    access: ClassVar[Access] = "white-box"

    def __init__(self, spec: IfGmiSpec) -> None:
        self.spec = spec

    def images(self, targets: int) -> int:
        """Return how many images it synthesises or shows."""
        inner = self.spec.layers * self.spec.layer_steps * max(1, self.spec.views)
        return search_images(self.spec, targets) + targets * self.spec.candidates * inner

    def run(
        self, classifier: Classifier, prior: Prior, targets: Sequence[TargetClass], draws: Draws
    ) -> AttackResult:
        """Return `keep` reconstructions of each target, the most robust first."""
        spec = self.spec
        labels = labels_of(targets, classifier.device)
        count = min(spec.candidates, spec.pool)
        pool = score_pool(
            classifier,
            prior,
            spec.pool,
            draws.child("pool"),
            truncation=spec.truncation,
            mirror=True,
        )
        wanted = labels.repeat_interleave(count)
        ids = candidate_ids(targets, count)
        objective = Objective(spec, classifier, prior, draws)
        w = search(
            spec, objective, prior, pool.best(labels, count).flatten(0, 1), wanted, ids, draws
        )
        parts = [
            self._inner(objective, prior, w[p], wanted[p], ids[p], draws) for p in slices(len(w))
        ]
        w = torch.cat([latents for latents, _ in parts])
        images = torch.cat([found for _, found in parts])
        sure = robust_confidence(classifier, images, wanted, ids, spec.selection_rounds, draws)
        confidence, rows = best_first(sure, len(targets), spec.keep)
        shown = to_bounds(images, classifier.bounds, UNIT).clamp(0, 1)
        return AttackResult(shown[rows], w[rows], confidence, objective.curve.points())

    def _inner(
        self,
        objective: Objective,
        prior: Prior,
        w: Tensor,
        labels: Tensor,
        ids: IntArray,
        draws: Draws,
    ) -> tuple[Tensor, Tensor]:
        """Return latents and images (n, 3, s, s), in the classifier's bounds, of one batch."""
        spec, last = self.spec, prior.num_layers
        w = w.clone()
        state: State = ()
        for layer in range(1, min(spec.layers, last - 1) + 1):
            with torch.no_grad():
                start = tuple(part.float() for part in prior.advance(state, w, layer - 1, layer))
            radius = spec.radii[min(layer, len(spec.radii)) - 1]
            inner = [part.clone().requires_grad_(True) for part in start]
            w.requires_grad_(True)
            optimizer = torch.optim.Adam([w, *inner], lr=spec.learning_rate, betas=BETAS)
            for step in range(spec.layer_steps):
                images = prior.finish(prior.advance(tuple(inner), w, layer, last))
                images = to_bounds(images, prior.bounds, objective.classifier.bounds)
                uniform = draws.child("crop", "layer", layer, step).uniform(ids, 4)
                views = random_views(images, uniform, OPTIMISE_AREA, flip=False)
                loss = objective(views, labels, ids, spec.steps + layer * spec.layer_steps + step)
                check_finite(loss.detach(), labels, spec.label, step)
                optimizer.zero_grad(set_to_none=True)
                loss.sum().backward()
                optimizer.step()
                with torch.no_grad():
                    for part, centre in zip(inner, start, strict=True):
                        part.copy_(centre + into_l1_ball(part - centre, radius))
            w = w.detach()
            state = tuple(part.detach() for part in inner)
        with torch.no_grad():
            images = prior.finish(prior.advance(state, w, layer, last))
        return w, to_bounds(images, prior.bounds, objective.classifier.bounds)


def into_l1_ball(values: Tensor, radius: float) -> Tensor:
    """Return the nearest point (n, ...) of the L1 ball around 0 to each row, in Euclidean distance.

    By sorting (Duchi et al., ICML 2008): soft thresholding at the level that makes the norm fit.
    """
    flat = values.flatten(1)
    size = flat.abs()
    ordered = size.sort(dim=1, descending=True).values
    excess = ordered.cumsum(dim=1) - radius
    rank = torch.arange(1, flat.shape[1] + 1, device=flat.device, dtype=flat.dtype)
    inside = ordered * rank > excess
    last = inside.sum(dim=1, keepdim=True).clamp_min(1)
    threshold = (excess.gather(1, last - 1) / last).clamp_min(0)
    return (flat.sign() * (size - threshold).clamp_min(0)).view_as(values)
