"""BREP-MI (Kahla et al., CVPR 2022): sees labels alone, and moves away from the class's boundary.

Starts are latents that the classifier gives to the target. Points on a sphere around a latent tell
where the class ends: the latent moves away from those outside, and once most lie inside, the sphere
grows. The answer is the latent with the largest sphere. All searches move in one batch. Its curve
is the radius that was reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attacks.attack import Access, AttackResult, labels_of, to_bounds
from attacks.candidates import best_first, candidate_ids, synthesize_all
from attacks.curve import Curve
from attacks.parts import each, slices
from attacks.prior import Prior
from attacks.spec import BrepMiSpec
from tasks.classifiers import Classifier
from tasks.draws import Draws
from tasks.errors import NonFiniteLossError
from tasks.types import TargetClass


class BrepMi:
    """Boundary-repelling model inversion.

    Args:
        spec: the budget.
    """

    access: ClassVar[Access] = "label-only"

    def __init__(self, spec: BrepMiSpec) -> None:
        self.spec = spec

    def images(self, targets: int) -> int:
        """Return how many images it synthesises at the most."""
        asked = self.spec.steps * (self.spec.points + 1)
        return self.spec.pool + targets * self.spec.restarts * asked

    @torch.no_grad()
    def run(
        self, classifier: Classifier, prior: Prior, targets: Sequence[TargetClass], draws: Draws
    ) -> AttackResult:
        """Return `restarts` reconstructions of each target, those of the largest sphere first.

        `confidence` is r / (1 + r) of the last sphere's radius r. A target that no latent of the
        pool is given to has nothing to start from: its reconstructions are the pool's first
        latents, with confidence 0.
        """
        spec = self.spec
        labels = labels_of(targets, classifier.device)
        z, found = self._starts(classifier, prior, labels, draws.child("pool"))
        ids = candidate_ids(targets, spec.restarts)
        wanted = labels.repeat_interleave(spec.restarts)
        radius = torch.full((len(z),), spec.radius, device=z.device)
        answer, reached = z.clone(), torch.zeros(len(z), device=z.device)
        waited = torch.zeros(len(z), dtype=torch.int64, device=z.device)
        curve = Curve()
        for step in range(spec.steps):
            open_ = torch.nonzero(found & (waited < spec.patience))[:, 0]
            if not len(open_):
                break
            keys = ids[open_.cpu().numpy()]
            normal = draws.child("sphere", step).normal(keys, spec.points * prior.z_size)
            around = torch.from_numpy(normal).float().to(z.device)
            around = around.view(len(open_), spec.points, -1)
            around = around / around.norm(dim=2, keepdim=True).clamp_min(1e-12)
            points = z[open_, None] + radius[open_, None, None] * around
            points = points.clamp(-spec.clip, spec.clip)
            inside = self._labels(classifier, prior, points.flatten(0, 1)).view(points.shape[:2])
            inside = inside == wanted[open_, None]
            grows = inside.float().mean(dim=1) > spec.share
            answer[open_[grows]] = z[open_[grows]]
            reached[open_[grows]] = radius[open_[grows]]
            radius[open_[grows]] *= spec.growth
            waited[open_] = torch.where(grows, 0, waited[open_] + 1)
            # Away from the mean direction of the points outside.
            outside = (~inside).float()[:, :, None]
            away = -(around * outside).sum(dim=1) / outside.sum(dim=1).clamp_min(1)
            length = (radius[open_] / 3).clamp_max(spec.step_size)[:, None]
            moved = (z[open_] + length * away).clamp(-spec.clip, spec.clip)
            # A move out of the class is taken back: labels are all that this attack knows.
            stays = self._labels(classifier, prior, moved) == wanted[open_]
            goes = stays & ~grows
            z[open_[goes]] = moved[goes]
            curve.add(step, reached)
        answer = torch.where((reached > 0)[:, None], answer, z)
        reached = torch.where(found & (reached == 0), spec.radius / 2, reached)
        confidence, rows = best_first(reached / (1 + reached), len(targets), spec.restarts)
        latents = prior.map(answer)[rows]
        return AttackResult(synthesize_all(prior, latents), latents, confidence, curve.points())

    def _starts(
        self, classifier: Classifier, prior: Prior, labels: Tensor, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        """Return z (targets * restarts, z_size) in each target's class, and whether it is one."""
        spec, device = self.spec, classifier.device
        z = torch.from_numpy(draws.normal(np.arange(spec.pool), prior.z_size)).float().to(device)
        z = z.clamp(-spec.clip, spec.clip)
        said = self._labels(classifier, prior, z)
        starts, found = [], []
        for label in labels.tolist():
            rows = torch.nonzero(said == label)[: spec.restarts, 0]
            count = len(rows)
            if count:  # fewer than asked for: they start again, and their spheres differ
                rows = rows.repeat(-(-spec.restarts // count))[: spec.restarts]
            else:
                rows = torch.arange(spec.restarts, device=device) % spec.pool
            starts.append(z[rows])
            found.append(torch.full((spec.restarts,), count > 0, device=device))
        return torch.cat(starts), torch.cat(found)

    def _labels(self, classifier: Classifier, prior: Prior, z: Tensor) -> Tensor:
        """Return the classifier's labels of latents (n, z_size), (n,)."""
        shared = prior, self.spec.label
        return torch.cat(each(_label_part, classifier, shared, [z[p] for p in slices(len(z))]))


@torch.no_grad()
def _label_part(classifier: Classifier, shared: tuple[Prior, str], z: Tensor) -> Tensor:
    """Return the labels of one batch."""
    prior, label = shared
    images = prior.synthesize(prior.map(z))
    if not bool(torch.isfinite(images).all()):
        raise NonFiniteLossError(
            f"attack {label}: the prior's images are not finite; give another one"
        )
    return classifier.labels(to_bounds(images, prior.bounds, classifier.bounds))
