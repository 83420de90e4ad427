"""Generative Model Inversion (Zhang et al., CVPR 2020): momentum in z, held real by a critic.

The search is the released one: Nesterov's momentum written out, z kept in a box, a critic's
judgement beside 100 times the cross entropy. (The released evaluation reads a candidate's score
with its row in the batch for a label; here with its own class.) With Adam and the max-margin loss
it is PLG-MI's search; with the logit loss, features and students LOMMA's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from attacks.attack import Access, AttackResult, check_finite, labels_of, to_bounds
from attacks.candidates import best_first, candidate_ids, synthesize_all
from attacks.curve import Curve
from attacks.objective import Objective
from attacks.parts import each, slices
from attacks.prior import Prior
from attacks.search import synthesize_flat
from attacks.spec import GmiSpec
from attacks.students import BATCH as LEARNT
from tasks.classifiers import Classifier
from tasks.draws import Draws, IntArray
from tasks.types import TargetClass

MOMENTUM = 0.9


class GMI:
    """Generative Model Inversion.

    Args:
        spec: the budget.
    """

    access: ClassVar[Access] = "white-box"

    def __init__(self, spec: GmiSpec) -> None:
        self.spec = spec

    def images(self, targets: int) -> int:
        """Return how many images it synthesises or shows."""
        each = self.spec.steps * max(1, self.spec.views) + 1
        taught = LEARNT * self.spec.student_steps if self.spec.students else 0
        return targets * self.spec.restarts * each + taught

    def run(
        self, classifier: Classifier, prior: Prior, targets: Sequence[TargetClass], draws: Draws
    ) -> AttackResult:
        """Return `restarts` reconstructions of each target, the most confident first."""
        spec = self.spec
        labels = labels_of(targets, classifier.device).repeat_interleave(spec.restarts)
        ids = candidate_ids(targets, spec.restarts)
        objective = Objective(spec, classifier, prior, draws)
        start = torch.from_numpy(draws.child("start").normal(ids, prior.z_size)).float()
        start = start.to(classifier.device)
        parts = [(start[p], labels[p], ids[p]) for p in slices(len(start))]
        searched = each(_search_part, classifier, (self, objective, prior), parts)
        for _, curve in searched:
            objective.curve.join(curve)
        z = torch.cat([latents for latents, _ in searched])
        w = prior.map(z)
        images = synthesize_flat(prior, w, classifier)
        found = [classifier.scores(images[p]) for p in slices(len(images))]
        sure = torch.cat(found).gather(1, labels[:, None])[:, 0]
        confidence, rows = best_first(sure, len(targets), spec.restarts)
        return AttackResult(
            synthesize_all(prior, w[rows]), w[rows], confidence, objective.curve.points()
        )

    def search(
        self, objective: Objective, prior: Prior, z: Tensor, labels: Tensor, ids: IntArray
    ) -> Tensor:
        """Return each candidate's last latent z, (n, z_size)."""
        spec = self.spec
        z = z.clone().requires_grad_(True)
        velocity = torch.zeros_like(z)
        adam = torch.optim.Adam([z], lr=spec.learning_rate) if spec.optimiser == "adam" else None
        for step in range(spec.steps):
            images = prior.synthesize(prior.map(z))
            seen = to_bounds(images, prior.bounds, objective.classifier.bounds)
            identity = objective(seen, labels, ids, step)
            check_finite(identity.detach(), labels, spec.label, step)
            loss = spec.identity_weight * identity
            if prior.critic is not None:
                loss = loss - prior.critic(images)
            # Divided, not averaged: a candidate's gradient does not depend on the batch.
            (gradient,) = torch.autograd.grad(loss.sum() / spec.averaged_over, z)
            with torch.no_grad():
                if adam is not None:
                    z.grad = gradient
                    adam.step()
                else:
                    before = velocity
                    velocity = MOMENTUM * before - spec.learning_rate * gradient
                    z += (1 + MOMENTUM) * velocity - MOMENTUM * before
                z.clamp_(-spec.clip, spec.clip)
        return z.detach()


def _search_part(
    classifier: Classifier,
    shared: tuple[GMI, Objective, Prior],
    part: tuple[Tensor, Tensor, IntArray],
) -> tuple[Tensor, Curve]:
    attack, objective, prior = shared
    objective = objective.seen_by(classifier)
    return attack.search(objective, prior, *part), objective.curve
