"""MIRROR, black box (An et al., NDSS 2022): a genetic search in P-space that sees scores only.

Crossover prefers the fitter parent, p1 / (p1 + p2). (The released code divides log-probabilities,
which prefers the worse one.) Restarts search disjoint parts of the pool, so that a target's
reconstructions are answers of independent searches. Its curve is the elite's minus log score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from attacks.attack import Access, AttackResult, check_finite, labels_of, to_bounds
from attacks.candidates import candidate_ids, synthesize_all
from attacks.curve import Curve
from attacks.parts import each, slices
from attacks.pool import Pool, score_pool
from attacks.prior import Prior
from attacks.pspace import PBox, to_p, to_w
from attacks.spec import MirrorBSpec
from tasks.classifiers import Classifier
from tasks.draws import Draws, IntArray
from tasks.types import TargetClass


class MirrorB:
    """MIRROR, black box.

    Args:
        spec: the budget.
    """

    access: ClassVar[Access] = "scores"

    def __init__(self, spec: MirrorBSpec) -> None:
        self.spec = spec

    def images(self, targets: int) -> int:
        """Return how many images it synthesises at the most."""
        spec = self.spec
        born = spec.population + spec.generations * (spec.population - 1)
        return spec.pool + targets * spec.restarts * born

    @torch.no_grad()
    def run(
        self, classifier: Classifier, prior: Prior, targets: Sequence[TargetClass], draws: Draws
    ) -> AttackResult:
        """Return the elite of each of `restarts` searches a target, the most confident first."""
        spec = self.spec
        labels = labels_of(targets, classifier.device)
        pool = score_pool(
            classifier, prior, spec.pool, draws.child("pool"), truncation=spec.truncation
        )
        box = PBox.of(pool.latents, spec.clip_sigmas, prior.slope)
        p = box.clip(
            to_p(self._populations(pool, labels), prior.slope)
        )  # (searches, population, w_size)
        wanted = labels.repeat_interleave(spec.restarts)
        ids = candidate_ids(targets, spec.restarts)
        fitness = self._fitness(classifier, prior, p, wanted, 0)
        curve = Curve()
        curve.add(0, -fitness.max(dim=1).values)
        for generation in range(spec.generations):
            open_ = fitness.max(dim=1).values.exp() < spec.stop_confidence
            open_ |= torch.tensor(spec.stop_confidence >= 1, device=p.device)
            if not bool(open_.any()):
                break
            rows = torch.nonzero(open_)[:, 0]
            step = draws.child("generation", generation)
            children = self._children(p[rows], fitness[rows], box, ids[rows.cpu().numpy()], step)
            born = self._fitness(classifier, prior, children, wanted[rows], generation + 1)
            elite = fitness[rows].argmax(dim=1, keepdim=True)
            kept = torch.gather(p[rows], 1, elite[:, :, None].expand(-1, -1, p.shape[2]))
            p[rows] = torch.cat([kept, children], dim=1)
            fitness[rows] = torch.cat([fitness[rows].gather(1, elite), born], dim=1)
            curve.add(generation + 1, -fitness.max(dim=1).values)

        top = fitness.max(dim=1)
        best = p[torch.arange(len(p), device=p.device), top.indices]
        shape = (len(targets), spec.restarts)
        order = top.values.view(shape).argsort(dim=1, descending=True, stable=True)
        latents = torch.gather(
            to_w(best, prior.slope).view(*shape, -1),
            1,
            order[:, :, None].expand(-1, -1, p.shape[2]),
        )
        confidence = top.values.view(shape).gather(1, order).exp()
        return AttackResult(synthesize_all(prior, latents), latents, confidence, curve.points())

    def _populations(self, pool: Pool, labels: Tensor) -> Tensor:
        """Return populations in w, the fittest of each restart's own part of the pool."""
        spec = self.spec
        parts = []
        for restart in range(spec.restarts):
            part = Pool(
                pool.latents[restart :: spec.restarts], pool.scores[restart :: spec.restarts]
            )
            best = part.best(labels, min(spec.population, len(part.latents)))
            repeats = -(-spec.population // best.shape[1])
            parts.append(best.repeat(1, repeats, 1)[:, : spec.population])
        return torch.stack(parts, dim=1).flatten(0, 1)

    def _fitness(
        self, classifier: Classifier, prior: Prior, p: Tensor, labels: Tensor, generation: int
    ) -> Tensor:
        """Return log probabilities of the target class, (searches, individuals)."""
        flat = to_w(p, prior.slope).flatten(0, 1)
        wanted = labels.repeat_interleave(p.shape[1])
        parts = [(flat[part], wanted[part]) for part in slices(len(flat))]
        found = each(_fitness_part, classifier, prior, parts)
        log_scores = torch.cat(found).clamp_min(1e-30).log()
        check_finite(-log_scores, wanted, self.spec.label, generation)
        return log_scores.view(p.shape[:2])

    def _children(
        self, p: Tensor, fitness: Tensor, box: PBox, ids: IntArray, draws: Draws
    ) -> Tensor:
        """Return a generation's children, (searches, population - 1, w_size)."""
        spec = self.spec
        searches, population, size = p.shape
        born = population - 1

        def uniform(name: str, *shape: int) -> Tensor:
            count = 1
            for length in shape:
                count *= length
            found = torch.from_numpy(draws.child(name).uniform(ids, count)).float()
            return found.view(searches, *shape).to(p.device)

        # Parents with replacement, with probability softmax(fitness).
        chance = functional.softmax(fitness, dim=1).cumsum(dim=1)
        parents = torch.searchsorted(chance, uniform("parents", 2 * born) * chance[:, -1:])
        parents = parents.clamp_max(population - 1)
        genes = torch.gather(p, 1, parents[:, :, None].expand(-1, -1, size))
        first, second = genes[:, :born], genes[:, born:]
        score = fitness.gather(1, parents)
        weight = torch.sigmoid(score[:, :born] - score[:, born:])  # p1 / (p1 + p2)
        children = torch.where(uniform("cross", born, size) < weight[:, :, None], first, second)
        shift = (2 * uniform("shift", born, size) - 1) * spec.mutation_size * box.std
        mutated = uniform("mutate", born, size) < spec.mutation_probability
        return box.clip(torch.where(mutated, children + shift, children))


@torch.no_grad()
def _fitness_part(classifier: Classifier, prior: Prior, part: tuple[Tensor, Tensor]) -> Tensor:
    """Return the scores of the wanted classes of latents w, (n,)."""
    w, labels = part
    images = to_bounds(prior.synthesize(w), prior.bounds, classifier.bounds)
    return classifier.scores(images).gather(1, labels[:, None])[:, 0]
