"""The three steps of the paper's section 2, for all targets at once and by columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from augment.lending import lend
from augment.receivers import Receivers
from augment.recipes import Recipes, Role
from augment.spec import DcdSpec
from augment.target_draws import Floats, Positions, TargetDraws, ranks
from tasks.draws import IntArray, keyed_bits
from tasks.errors import TargetClassError
from tasks.types import TargetClass


def paper_recipes(
    rows: pa.Table,
    targets: Sequence[TargetClass],
    own: Sequence[Positions],
    lent: Mapping[str, Positions],
    receivers: Receivers,
    num_classes: int,
    dcd: DcdSpec,
    seed: int,
) -> list[Recipes]:
    """Return the recipes of all targets.

    Args:
        rows: the row table.
        targets: the classes under protection.
        own: positions of each target's training rows.
        lent: positions of each lender's rows.
        receivers: hands out wrong labels.
        num_classes: of the model; not needed here.
        dcd: the levers.
        seed: of the experiment.

    Raises:
        TargetClassError: a target would keep no image under its own label.
    """
    row_ids = rows["row_id"].to_numpy()
    draws = TargetDraws(targets, row_ids, receivers, seed)
    levers = [dcd.of_target(target.identity) for target in targets]
    loss, curvature = "loss" in dcd.steps, "curvature" in dcd.steps
    mislabel = np.array([lever.mislabel_fraction * loss for lever in levers])
    mine = _Own.of(own)
    _check_that_some_stay(targets, mine, mislabel)

    # Loss control: a share of the target's own images gets a wrong label.
    wrong = draws.choose(mine.source, mine.owner, mislabel, "mislabel")
    parts = [
        _rightly("clean", draws, mine.source[~wrong], mine.owner[~wrong]),
        _wrongly("mislabelled", draws, mine.source[wrong], mine.owner[wrong], "mislabel-to"),
    ]

    # Surrogate injection, and decoys where they are asked for.
    added: list[Recipes] = []
    if "injection" in dcd.steps:
        who = [target.surrogates for target in targets]
        counts = [lever.surrogate_count for lever in levers]
        images = lend(draws, lent, who, mine.count, counts, dcd.distinct_surrogates, "lend")
        surrogate = replace(
            _rightly("surrogate", draws, images.source, images.owner), repeat=images.repeat
        )
        added.append(surrogate)
        if curvature:
            added += _surrogate_noise(surrogate, levers)
        added += _decoys(draws, lent, targets, mine.count, mislabel, dcd)

    # Curvature control on the target's side: steep. The noise is taken around every clean target
    # image, as in the paper; the released code leaves out those that it has just mislabelled.
    if curvature:
        added += _target_noise(draws, mine, levers)
    if dcd.max_inflation is not None:
        added = _thin(added, mine.count, dcd.max_inflation, draws)
    return parts + added


@dataclass(frozen=True)
class _Own:
    """The targets' own rows: whose each is, where it is, and how many each target has."""

    owner: Positions
    source: Positions
    count: Positions

    @classmethod
    def of(cls, groups: Sequence[Positions]) -> _Own:
        count = np.array([len(group) for group in groups])
        return cls(np.repeat(np.arange(len(groups)), count), np.concatenate(groups), count)


def _check_that_some_stay(targets: Sequence[TargetClass], mine: _Own, mislabel: Floats) -> None:
    empty = np.flatnonzero(np.rint(mislabel * mine.count) >= mine.count)
    if len(empty):
        first = int(empty[0])
        n = int(mine.count[first])
        raise TargetClassError(
            f"target {targets[first].identity!r} has {n} training images; "
            f"mislabel_fraction={mislabel[first]:g} leaves none under its own label; "
            f"use at most {(n - 1) / n:.2f}"
        )


def _surrogate_noise(surrogate: Recipes, levers: Sequence[DcdSpec]) -> list[Recipes]:
    """Curvature control on the surrogate's side: flat."""
    copies = np.array([lever.surrogate_copies for lever in levers])
    sigma = np.array([lever.surrogate_sigma for lever in levers], dtype=np.float32)
    parts = []
    for copy in range(int(copies.max(initial=0))):
        with_it = copies[surrogate.owner] > copy
        parts.append(_noisy("surrogate_noise", surrogate, with_it, sigma, copy))
    return parts


def _noisy(
    role: Role,
    base: Recipes,
    chosen: npt.NDArray[np.bool_],
    sigma: npt.NDArray[np.float32],
    copy: int,
) -> Recipes:
    part = base.keep(chosen)
    return replace(part, role=role, sigma=sigma[part.owner], copy=copy)


def _rightly(role: Role, draws: TargetDraws, source: IntArray, owner: Positions) -> Recipes:
    return Recipes.plain(role, owner, source, draws.label[owner])


def _wrongly(
    role: Role, draws: TargetDraws, source: IntArray, owner: Positions, *path: str | int
) -> Recipes:
    return Recipes.plain(role, owner, source, draws.wrong_labels(source, owner, *path))


def _target_noise(draws: TargetDraws, mine: _Own, levers: Sequence[DcdSpec]) -> list[Recipes]:
    copies = np.array([lever.target_copies for lever in levers])
    sigma = np.array([lever.target_sigma for lever in levers], dtype=np.float32)
    fraction = np.array([lever.curvature_mislabel_fraction for lever in levers])
    base = _rightly("target_noise", draws, mine.source, mine.owner)
    parts = []
    for copy in range(int(copies.max(initial=0))):
        part = _noisy("target_noise", base, copies[mine.owner] > copy, sigma, copy)
        steep = draws.choose(part.source, part.owner, fraction, "curvature", copy)
        labels = part.label.copy()
        labels[steep] = draws.wrong_labels(
            part.source[steep], part.owner[steep], "curvature-to", copy
        )
        parts.append(replace(part, label=labels))
    return parts


def _decoys(
    draws: TargetDraws,
    lent: Mapping[str, Positions],
    targets: Sequence[TargetClass],
    match: Positions,
    mislabel: Floats,
    dcd: DcdSpec,
) -> list[Recipes]:
    """Return further identities under the target's label, with the target's own mislabel rate.

    The rate is kept for each decoy on its own, so that none of them stands out.
    """
    parts = []
    for number in range(max(len(target.decoys) for target in targets)):
        who = [target.decoys[number : number + 1] for target in targets]
        counts = [dcd.decoy_count] * len(targets)
        found = lend(draws, lent, who, match, counts, None, f"decoy-{number}")
        wrong = draws.choose(found.source, found.owner, mislabel, "decoy", number)
        right = ~wrong
        named = _rightly("decoy", draws, found.source[right], found.owner[right])
        hidden = _wrongly(
            "decoy_mislabelled",
            draws,
            found.source[wrong],
            found.owner[wrong],
            "decoy-to",
            number,
        )
        parts += [
            replace(named, repeat=found.repeat[right]),
            replace(hidden, repeat=found.repeat[wrong]),
        ]
    return parts


def _thin(
    parts: Sequence[Recipes], before: Positions, most: float, draws: TargetDraws
) -> list[Recipes]:
    """Keep of what is added to a target so much that its rows stay within the budget.

    Every role keeps the same share, rounded down, and within a role rightly and wrongly labelled
    rows do.
    """
    added = sum(np.bincount(part.owner, minlength=len(before)) for part in parts)
    room = np.floor((most - 1) * before + 1e-9)
    share = np.minimum(room / np.maximum(added, 1), 1.0)
    kept = []
    for number, part in enumerate(parts):
        group = 2 * part.owner + (part.label != draws.label[part.owner])
        keys = draws.keys("thin", number)[part.owner]
        ids = draws.row_ids[part.source]
        rank = ranks(keyed_bits(keys, ids + part.repeat), ids, group)
        size = np.bincount(group, minlength=2 * len(before))
        kept.append(part.keep(rank < np.floor(share[part.owner] * size[group] + 1e-9)))
    return kept
