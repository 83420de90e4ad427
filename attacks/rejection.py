"""Successive rejection: a target's clearly worse candidates are dropped before all steps are spent.

Halving (Karnin, Koren and Somekh, ICML 2013; Jamieson and Talwalkar, AISTATS 2016): after some of
the steps the worse half of each target's candidates leaves the batch, so that its calls are really
saved. Who leaves is decided among a target's own candidates, and a survivor ends where it would
have ended without rejection.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attacks.candidates import best_first
from attacks.objective import Objective
from attacks.prior import Prior
from attacks.search import Climb, climb
from attacks.spec import PpaSpec
from tasks.draws import Draws, IntArray


def stretches(
    rungs: Sequence[int], steps: int, candidates: int, keep: int
) -> list[tuple[range, int]]:
    """Return the steps between rungs, and how many candidates of a target take them.

    Args:
        rungs: steps after which the worse half leaves, ascending; those past the end do nothing.
        steps: of a survivor.
        candidates: of a target at the start.
        keep: so many stay at the least.
    """
    found, begin = [], 0
    for rung in rungs:
        if rung < steps and candidates > keep:
            found.append((range(begin, rung), candidates))
            begin, candidates = rung, max(keep, (candidates + 1) // 2)
    return [*found, (range(begin, steps), candidates)]


def candidate_steps(spec: PpaSpec) -> int:
    """Return how many steps the candidates of one target take together."""
    plan = stretches(spec.rungs, spec.steps, spec.candidates, spec.keep)
    return sum(len(steps) * left for steps, left in plan)


def search_rejecting(
    spec: PpaSpec,
    objective: Objective,
    prior: Prior,
    w: Tensor,
    labels: Tensor,
    ids: IntArray,
    draws: Draws,
    targets: int,
) -> tuple[Tensor, Tensor]:
    """Return the survivors' latents (targets * left, w_size) and their rows in the input.

    Args:
        spec: steps, rungs and how many to keep.
        objective: minimised; by it candidates are compared.
        prior: the generator.
        w: starts, (targets * n, w_size).
        labels: target classes, (targets * n,).
        ids: keys of the candidates, (targets * n,).
        draws: of the crops.
        targets: how many groups of candidates there are.
    """
    state, rows = Climb.start(w), torch.arange(len(w), device=w.device)
    plan = stretches(spec.rungs, spec.steps, len(w) // targets, spec.keep)
    for (steps, _), after in zip(plan, [*plan[1:], None], strict=True):
        own = ids[rows.cpu().numpy()]
        state, loss = climb(spec, objective, prior, state, labels[rows], own, draws, steps)
        if after is not None:
            better = best_first(-loss, targets, after[1])[1].sort(dim=1).values.flatten()
            state, rows = state.take(better), rows[better]
    return state.w, rows
