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
from attacks.objective import Objective
from attacks.pool import BATCH
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

    def take(self, rows: Tensor) -> Climb:
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
    ends, losses = [], []
    for start in range(0, len(state.w), BATCH):
        part = slice(start, start + BATCH)
        latents = state.w[part].clone().requires_grad_(True)
        optimizer = torch.optim.Adam([latents], lr=spec.learning_rate, betas=BETAS)
        moments = {"exp_avg": state.first[part].clone(), "exp_avg_sq": state.second[part].clone()}
        optimizer.state[latents] = {"step": torch.tensor(float(steps.start)), **moments}
        recent = torch.zeros(len(latents), device=latents.device)
        for step in steps:
            images = to_bounds(prior.synthesize(latents), prior.bounds, objective.classifier.bounds)
            uniform = draws.child("crop", step).uniform(ids[part], 4)
            views = random_views(images, uniform, OPTIMISE_AREA, flip=False)
            loss = objective(views, labels[part], ids[part], step)
            check_finite(loss.detach(), labels[part], spec.label, step)
            if step >= steps.stop - RECENT:
                recent += loss.detach() / min(RECENT, len(steps))
            optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()  # a sum: a candidate's gradient does not depend on the batch
            optimizer.step()
        ends.append(Climb(latents.detach(), moments["exp_avg"], moments["exp_avg_sq"]))
        losses.append(recent)
    joined = (torch.cat([getattr(end, name) for end in ends]) for name in ("w", "first", "second"))
    return Climb(*joined), torch.cat(losses)


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
    found = []
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        total = torch.zeros(len(labels[part]), device=images.device)
        for round_ in range(rounds):
            uniform = draws.child("select", round_).uniform(ids[part], 4)
            scores = classifier.scores(random_views(images[part], uniform, SELECT_AREA, flip=True))
            total += scores.gather(1, labels[part, None])[:, 0]
        found.append(total / rounds)
    return torch.cat(found)


@torch.no_grad()
def synthesize_flat(prior: Prior, w: Tensor, classifier: Classifier) -> Tensor:
    """Return images (n, 3, s, s) in the classifier's bounds of latents (n, w_size)."""
    return torch.cat(
        [
            to_bounds(prior.synthesize(w[i : i + BATCH]), prior.bounds, classifier.bounds)
            for i in range(0, len(w), BATCH)
        ]
    )
