"""Plug & Play Attack (Struppek et al., ICML 2022): search w space for images of a target class.

Steps as in the paper: initial selection from a pool, optimisation with the Poincare loss under
random crops, final selection by the confidence under strong random views. All targets are searched
in one batch; the draws of a candidate depend on its target and its rank alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from attacks.attack import Access, AttackResult, check_finite, labels_of, to_bounds
from attacks.candidates import candidate_ids, random_views, synthesize_all
from attacks.losses import poincare
from attacks.pool import BATCH, score_pool
from attacks.prior import Prior
from attacks.spec import PpaSpec
from tasks.classifiers import Classifier
from tasks.draws import Draws, IntArray
from tasks.types import TargetClass

OPTIMISE_AREA = (0.9, 1.0)
"""Area of the random crops in each step (paper's released settings)."""

SELECT_AREA = (0.5, 0.9)
"""Area of the random crops in the final selection (released settings; there also ratio 0.8-1.2)."""


class PPA:
    """Plug & Play Attack.

    Args:
        spec: the budget.
    """

    access: ClassVar[Access] = "white-box"

    def __init__(self, spec: PpaSpec) -> None:
        self.spec = spec

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
        w = pool.best(labels, count).flatten(0, 1)
        wanted = labels.repeat_interleave(count)
        ids = candidate_ids(targets, count)

        for start in range(0, len(w), BATCH):
            part = slice(start, start + BATCH)
            w[part] = self._optimise(classifier, prior, w[part], wanted[part], ids[part], draws)
        confidence = torch.cat(
            [
                self._robust_confidence(
                    classifier,
                    prior,
                    w[i : i + BATCH],
                    wanted[i : i + BATCH],
                    ids[i : i + BATCH],
                    draws,
                )
                for i in range(0, len(w), BATCH)
            ]
        )
        best = confidence.view(len(targets), count).topk(min(spec.keep, count), dim=1)
        latents = torch.gather(
            w.view(len(targets), count, -1), 1, best.indices[:, :, None].expand(-1, -1, w.shape[1])
        )
        return AttackResult(synthesize_all(prior, latents), latents, best.values)

    def _optimise(
        self,
        classifier: Classifier,
        prior: Prior,
        w: Tensor,
        labels: Tensor,
        ids: IntArray,
        draws: Draws,
    ) -> Tensor:
        w = w.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([w], lr=self.spec.learning_rate, betas=(0.1, 0.1))
        for step in range(self.spec.steps):
            images = to_bounds(prior.synthesize(w), prior.bounds, classifier.bounds)
            uniform = draws.child("crop", step).uniform(ids, 4)
            loss = poincare(
                classifier.logits(random_views(images, uniform, OPTIMISE_AREA, flip=False)), labels
            )
            check_finite(loss.detach(), labels, self.spec.name, step)
            optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()  # a sum: a candidate's gradient does not depend on the batch
            optimizer.step()
        return w.detach()

    @torch.no_grad()
    def _robust_confidence(
        self,
        classifier: Classifier,
        prior: Prior,
        w: Tensor,
        labels: Tensor,
        ids: IntArray,
        draws: Draws,
    ) -> Tensor:
        images = to_bounds(prior.synthesize(w), prior.bounds, classifier.bounds)
        total = torch.zeros(len(w), device=w.device)
        for round_ in range(self.spec.selection_rounds):
            uniform = draws.child("select", round_).uniform(ids, 4)
            scores = classifier.scores(random_views(images, uniform, SELECT_AREA, flip=True))
            total += scores.gather(1, labels[:, None])[:, 0]
        return total / self.spec.selection_rounds
