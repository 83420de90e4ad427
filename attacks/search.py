"""PPA's search in w: chosen starts, Adam under random crops, rank by robust confidence.

The attacks that build on it differ in what they minimise and in which candidates they keep. All
targets are searched in one batch; the draws of a candidate depend on its target and rank alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.attack import check_finite, to_bounds
from attacks.candidates import random_views
from attacks.curve import Curve
from attacks.objective import Objective
from attacks.parts import each, slices
from attacks.prior import Prior
from attacks.spec import SearchSpec
from tasks.classifiers import Classifier
from tasks.draws import Draws, IntArray

BETAS = (0.1, 0.1)
"""Of Adam, as published: hardly any memory."""

OPTIMISE_AREA = (0.9, 1.0)
"""Area of the random crops in each step (released settings)."""

RECENT = 3
"""Steps over which a candidate's loss is averaged: one random crop may be a lucky one."""

SELECT_AREA = (0.5, 0.9)
"""Area of the random crops in the final selection (released settings; there also ratio 0.8-1.2)."""


def search(
    spec: SearchSpec,
    objective: Objective,
    prior: Prior,
    w: Tensor,
    labels: Tensor,
    ids: IntArray,
    draws: Draws,
) -> Tensor:
    """Return optimised latents (n, w_size).

    Args:
        spec: steps and learning rate.
        objective: minimised.
        prior: the generator.
        w: starts, (n, w_size).
        labels: target classes, (n,).
        ids: keys of the candidates, (n,).
        draws: of the crops.
    """
    whole = range(spec.steps)
    return climb(spec, objective, prior, Climb.start(w), labels, ids, draws, whole)[0].w


@dataclass(frozen=True)
class Climb:
    """Candidates on their way: latents and Adam's two moments, (n, w_size) each."""

    w: Tensor
    first: Tensor
    second: Tensor

    @classmethod
    def start(cls, w: Tensor) -> Climb:
        """Return candidates before their first step."""
        return cls(w, torch.zeros_like(w), torch.zeros_like(w))

    def take(self, rows: Tensor | slice) -> Climb:
        """Return the candidates at `rows` alone."""
        return Climb(self.w[rows], self.first[rows], self.second[rows])


def climb(
    spec: SearchSpec,
    objective: Objective,
    prior: Prior,
    state: Climb,
    labels: Tensor,
    ids: IntArray,
    draws: Draws,
    steps: range,
) -> tuple[Climb, Tensor]:
    """Return candidates after `steps`, and the mean loss of each over the last few of them, (n,).

    Climbing from 0 to a and from a to b is climbing from 0 to b. The other arguments are those of
    `search`.
    """
    shared = spec, objective, prior, draws, steps
    parts = [(state.take(p), labels[p], ids[p]) for p in slices(len(state.w))]
    found = each(_climb_part, objective.classifier, shared, parts)
    for _, _, curve in found:
        objective.curve.join(curve)
    ends = [end for end, _, _ in found]
    joined = (torch.cat([getattr(end, name) for end in ends]) for name in ("w", "first", "second"))
    return Climb(*joined), torch.cat([loss for _, loss, _ in found])


def _climb_part(
    classifier: Classifier,
    shared: tuple[SearchSpec, Objective, Prior, Draws, range],
    part: tuple[Climb, Tensor, IntArray],
) -> tuple[Climb, Tensor, Curve]:
    """Climb with one batch."""
    spec, objective, prior, draws, steps = shared
    state, labels, ids = part
    objective = objective.seen_by(classifier)
    latents = state.w.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([latents], lr=spec.learning_rate, betas=BETAS)
    moments = {"exp_avg": state.first.clone(), "exp_avg_sq": state.second.clone()}
    optimizer.state[latents] = {"step": torch.tensor(float(steps.start)), **moments}
    recent = torch.zeros(len(latents), device=latents.device)
    for step in steps:
        images = to_bounds(prior.synthesize(latents), prior.bounds, classifier.bounds)
        uniform = draws.child("crop", step).uniform(ids, 4)
        views = random_views(images, uniform, OPTIMISE_AREA, flip=False)
        loss = objective(views, labels, ids, step)
        check_finite(loss.detach(), labels, spec.label, step)
        if step >= steps.stop - RECENT:
            recent += loss.detach() / min(RECENT, len(steps))
        optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()  # a sum: a candidate's gradient does not depend on the batch
        optimizer.step()
    end = Climb(latents.detach(), moments["exp_avg"], moments["exp_avg_sq"])
    return end, recent, objective.curve


@torch.no_grad()
def robust_confidence(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    ids: IntArray,
    rounds: int,
    draws: Draws,
) -> Tensor:
    """Return the mean score of the target class under strong random views, (n,).

    Args:
        classifier: the model under attack; only its scores are used.
        images: (n, 3, s, s) in the classifier's bounds.
        labels: target classes, (n,).
        ids: keys of the candidates, (n,).
        rounds: views of each image.
        draws: of the views.
    """
    parts = [(images[p], labels[p], ids[p]) for p in slices(len(images))]
    return torch.cat(each(_robust_part, classifier, (rounds, draws), parts))


@torch.no_grad()
def _robust_part(
    classifier: Classifier, shared: tuple[int, Draws], part: tuple[Tensor, Tensor, IntArray]
) -> Tensor:
    """Look at one batch."""
    (rounds, draws), (images, labels, ids) = shared, part
    total = torch.zeros(len(labels), device=images.device)
    for round_ in range(rounds):
        uniform = draws.child("select", round_).uniform(ids, 4)
        scores = classifier.scores(random_views(images, uniform, SELECT_AREA, flip=True))
        total += scores.gather(1, labels[:, None])[:, 0]
    return total / rounds


@torch.no_grad()
def synthesize_flat(prior: Prior, w: Tensor, classifier: Classifier) -> Tensor:
    """Return images (n, 3, s, s) in the classifier's bounds of latents (n, w_size)."""
    return torch.cat(
        [
            to_bounds(prior.synthesize(w[part]), prior.bounds, classifier.bounds)
            for part in slices(len(w))
        ]
    )
