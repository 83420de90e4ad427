"""Modes: what a target's candidates fall into, in the attacked classifier's own feature space.

A class that DCD protects holds two people, so the candidates of an attack fall into two places, and
the evaluation classifier, which could tell them apart, is not the attacker's to ask.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

ROUNDS = 20


def cluster(features: Tensor, modes: int) -> Tensor:
    """Return the mode of each candidate, int64 (targets, n): 0 holds the target's first candidate.

    k-means on directions (spherical), each target's candidates on their own. The first centre is
    the first candidate, each next one the candidate farthest from all centres: no draw is needed,
    and a small mode is as likely to be found as a large one.

    Args:
        features: penultimate features, (targets, n, d).
        modes: at the most; a mode may end empty.
    """
    points = functional.normalize(features - features.mean(dim=(0, 1)), dim=2)
    targets, count, _ = points.shape
    rows = torch.arange(targets, device=points.device)
    chosen = [torch.zeros(targets, dtype=torch.int64, device=points.device)]
    nearest = (points * points[:, :1]).sum(dim=2)
    for _ in range(1, min(modes, count)):
        chosen.append(nearest.argmin(dim=1))
        seen = (points * points[rows, chosen[-1]][:, None]).sum(dim=2)
        nearest = torch.maximum(nearest, seen)
    centres = torch.stack([points[rows, one] for one in chosen], dim=1)  # (targets, modes, d)
    for _ in range(ROUNDS):
        member = torch.einsum("tnd,tmd->tnm", points, centres).argmax(dim=2)
        share = functional.one_hot(member, centres.shape[1]).to(points)
        total = torch.einsum("tnm,tnd->tmd", share, points)
        empty = share.sum(dim=1) == 0
        centres = torch.where(empty[:, :, None], centres, functional.normalize(total, dim=2))
    return torch.einsum("tnd,tmd->tnm", points, centres).argmax(dim=2)


def one_of_each(member: Tensor, worth: Tensor, keep: int) -> Tensor:
    """Return candidates by turns from all modes, the best of each first, int64 (targets, keep).

    Args:
        member: mode of each candidate, (targets, n).
        worth: higher is better, (targets, n).
        keep: at most n.
    """
    better = (worth[:, None, :] > worth[:, :, None]) | (
        (worth[:, None, :] == worth[:, :, None])
        & torch.ones_like(member[0, :, None] * member[0]).tril(-1).bool()
    )
    same = member[:, None, :] == member[:, :, None]
    turn = (better & same).sum(dim=2)  # how many of the own mode come before
    # Turn first, worth second: the best of every mode stand before any mode's second.
    place = turn * member.shape[1] + better.sum(dim=2)
    return place.argsort(dim=1, stable=True)[:, :keep]
