"""The released code's CelebA recipe, step by step, to compare with (SCccc21/DCD, Nov 2024).

Kept as it is there: the order of the steps, with noise taken of what carries a target's label after
mislabelling; shares rounded down; five pictures of each surrogate, repeated by one number for all;
sigma 8/255 on every target copy; noise taken back to 8 bits by truncation; wrong labels drawn from
all other classes, protected ones among them; no noise at all where the surrogates' sigma is 0.

Not kept: its draws, which are unseeded there and keyed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from augment.receivers import Receivers
from augment.recipes import Recipes, Role
from augment.spec import TARGET_SIGMA, DcdSpec
from tasks.draws import Draws, IntArray
from tasks.types import TargetClass

PICTURES = 5
"""Different pictures taken of each surrogate."""

Positions = npt.NDArray[np.int64]


def official_recipes(
    rows: pa.Table,
    targets: Sequence[TargetClass],
    own: Sequence[Positions],
    lent: Mapping[str, Positions],
    receivers: Receivers,
    num_classes: int,
    dcd: DcdSpec,
    seed: int,
) -> list[Recipes]:
    """Return the recipes of all targets; arguments as for `augment.paper.paper_recipes`.

    The only levers are both mislabel fractions, the surrogate's sigma and `steps`; the others have
    no place in the released code.
    """
    row_ids = rows["row_id"].to_numpy()
    names = rows["source"]
    number = {int(target.label): i for i, target in enumerate(targets)}
    owner = np.repeat(np.arange(len(targets)), [len(group) for group in own])
    base = np.concatenate(own)
    right = np.repeat([int(target.label) for target in targets], [len(group) for group in own])

    # A. Loss control, on labels that earlier targets may have changed already.
    labels = right.copy()
    for target in targets:
        if "loss" in dcd.steps:
            mine = np.flatnonzero(labels == int(target.label))
            draws = Draws(seed, ("official", target.identity))
            wrong = _some(mine, row_ids[base], dcd.mislabel_fraction, draws.child("mislabel"))
            labels[wrong] = _another(row_ids[base[wrong]], target, num_classes, draws.child("to"))
    moved = labels != right
    parts = [
        Recipes.plain("clean", owner[~moved], base[~moved], labels[~moved]),
        Recipes.plain("mislabelled", owner[moved], base[moved], labels[moved]),
    ]

    # Surrogates: the same number of repetitions for all, from the mean of their class sizes.
    surrogate = _surrogates(targets, lent, names) if "injection" in dcd.steps else None
    if surrogate is not None:
        parts.append(surrogate)
    if dcd.surrogate_sigma == 0 or "curvature" not in dcd.steps:
        return parts

    # B. Curvature control: copies of the surrogates, and of what carries a target's label by now.
    if surrogate is not None:
        parts.append(_copies("surrogate_noise", surrogate, dcd.surrogate_sigma))
    noisy = np.flatnonzero(np.isin(labels, list(number)))
    given = right[noisy].copy()
    for target in targets:
        mine = np.flatnonzero(given == int(target.label))
        draws = Draws(seed, ("official", target.identity, "curvature"))
        ids = row_ids[base[noisy]]
        wrong = _some(mine, ids, dcd.curvature_mislabel_fraction, draws.child("choose"))
        given[wrong] = _another(ids[wrong], target, num_classes, draws.child("to"))
    copies = Recipes.plain("target_noise", owner[noisy], base[noisy], given)
    parts.append(_copies("target_noise", copies, TARGET_SIGMA))
    return parts


def _surrogates(
    targets: Sequence[TargetClass], lent: Mapping[str, Positions], names: pa.ChunkedArray
) -> Recipes:
    lenders = [target.surrogates[0].identity for target in targets]
    total = sum(len(lent[name]) for name in lenders)
    repeats = -(-total // (PICTURES * len(lenders)))
    owner, source, repeat = [], [], []
    for i, name in enumerate(lenders):
        files = names.take(pa.array(lent[name])).to_pylist()
        first = lent[name][np.argsort(np.array(files, dtype=object), kind="stable")][:PICTURES]
        owner.append(np.full(len(first) * repeats, i))
        source.append(np.tile(first, repeats))
        repeat.append(np.repeat(np.arange(repeats), len(first)))
    who = np.concatenate(owner)
    label = np.array([int(target.label) for target in targets])[who]
    plain = Recipes.plain("surrogate", who, np.concatenate(source), label)
    return Recipes("surrogate", who, plain.source, label, plain.sigma, np.concatenate(repeat))


def _copies(role: Role, base: Recipes, sigma: float) -> Recipes:
    noise = np.full(len(base.owner), sigma, dtype=np.float32)
    return Recipes(
        role,
        base.owner,
        base.source,
        base.label,
        noise,
        base.repeat,
        truncate=True,
    )


def _some(positions: Positions, ids: IntArray, fraction: float, draws: Draws) -> Positions:
    """Return floor(fraction * n) of the positions."""
    order = np.argsort(draws.bits(ids[positions])[:, 0], kind="stable")
    return positions[order[: int(fraction * len(positions))]]


def _another(ids: IntArray, target: TargetClass, num_classes: int, draws: Draws) -> Positions:
    """Return a uniform label other than the target's for each row."""
    drawn = draws.integers(ids, 0, num_classes - 1)[:, 0]
    return drawn + (drawn >= int(target.label))
