"""MIRROR, white box (An et al., NDSS 2022): gradient search in w, kept in a box in P-space.

Every start is a reconstruction of its own, at the step where its own loss was lowest. (The released
code keeps the step of the lowest loss of the whole batch, and shows one image of eight.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from attacks.attack import Access, AttackResult, check_finite, labels_of, to_bounds
from attacks.candidates import candidate_ids, synthesize_all
from attacks.curve import Curve
from attacks.objective import Objective
from attacks.parts import each, slices
from attacks.pool import score_pool
from attacks.prior import Prior
from attacks.pspace import PBox
from attacks.spec import MirrorWSpec
from attacks.students import BATCH as LEARNT
from tasks.classifiers import Classifier
from tasks.draws import Draws, IntArray
from tasks.types import TargetClass


class MirrorW:
    """MIRROR, white box.

    Args:
        spec: the budget.
    """

    access: ClassVar[Access] = "white-box"

    def __init__(self, spec: MirrorWSpec) -> None:
        self.spec = spec

    def images(self, targets: int) -> int:
        """Return how many images it synthesises or shows."""
        spec = self.spec
        each = (spec.steps + 1) * max(1, spec.views)
        taught = LEARNT * spec.student_steps if spec.students else 0
        return spec.pool + targets * spec.starts * each + taught

    def run(
        self, classifier: Classifier, prior: Prior, targets: Sequence[TargetClass], draws: Draws
    ) -> AttackResult:
        """Return `starts` reconstructions of each target, the most confident first."""
        spec = self.spec
        labels = labels_of(targets, classifier.device)
        pool = score_pool(
            classifier, prior, spec.pool, draws.child("pool"), truncation=spec.truncation
        )
        objective = Objective(spec, classifier, prior, draws)
        ids = candidate_ids(targets, min(spec.starts, spec.pool))
        box = PBox.of(pool.latents, spec.clip_sigmas, prior.slope)
        starts = min(spec.starts, spec.pool)
        w = pool.best(labels, starts).flatten(0, 1)
        wanted = labels.repeat_interleave(starts)
        parts = [(w[p], wanted[p], ids[p]) for p in slices(len(w))]
        found = each(_optimise_part, classifier, (self, objective, prior, box), parts)
        for _, _, curve in found:
            objective.curve.join(curve)
        w = torch.cat([latents for latents, _, _ in found])
        losses = torch.cat([loss for _, loss, _ in found])

        order = losses.view(len(targets), starts).argsort(dim=1, stable=True)
        latents = torch.gather(
            w.view(len(targets), starts, -1), 1, order[:, :, None].expand(-1, -1, w.shape[1])
        )
        ranked = losses.view(len(targets), starts).gather(1, order)
        # The cross entropy is minus the log of the confidence; other losses only rank.
        confidence = torch.exp(-ranked) if spec.loss == "cross-entropy" else torch.sigmoid(-ranked)
        return AttackResult(
            synthesize_all(prior, latents), latents, confidence, objective.curve.points()
        )

    def optimise(
        self,
        objective: Objective,
        prior: Prior,
        box: PBox,
        w: Tensor,
        labels: Tensor,
        ids: IntArray,
    ) -> tuple[Tensor, Tensor]:
        """Return the best latent (n, w_size) of each start and its loss (n,)."""
        w = box.clip_w(w).requires_grad_(True)
        optimizer = torch.optim.Adam([w], lr=self.spec.learning_rate)
        best = w.detach().clone()
        lowest = torch.full((len(w),), math.inf, device=w.device)
        for step in range(self.spec.steps + 1):
            images = to_bounds(prior.synthesize(w), prior.bounds, objective.classifier.bounds)
            loss = objective(images, labels, ids, step)
            check_finite(loss.detach(), labels, self.spec.label, step)
            better = loss.detach() < lowest
            lowest = torch.where(better, loss.detach(), lowest)
            best = torch.where(better[:, None], w.detach(), best)
            if step == self.spec.steps:
                break  # the last pass only scores what the last step found
            for group in optimizer.param_groups:
                group["lr"] = self.spec.learning_rate * projector_schedule(step, self.spec.steps)
            optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()
            optimizer.step()
            with torch.no_grad():
                w.copy_(box.clip_w(w))
        return best, lowest


def _optimise_part(
    classifier: Classifier,
    shared: tuple[MirrorW, Objective, Prior, PBox],
    part: tuple[Tensor, Tensor, IntArray],
) -> tuple[Tensor, Tensor, Curve]:
    attack, objective, prior, box = shared
    objective = objective.seen_by(classifier)
    return *attack.optimise(objective, prior, box, *part), objective.curve


def projector_schedule(step: int, steps: int) -> float:
    """Return the learning rate's factor in (0, 1]: up over 5 %, cosine down over the last 25 %."""
    t = (step + 1) / (steps + 1)
    down = min(1.0, (1.0 - t) / 0.25)
    return (0.5 - 0.5 * math.cos(math.pi * down)) * min(1.0, t / 0.05)
