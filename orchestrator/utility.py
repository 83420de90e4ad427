"""What a defence costs beyond the mean: who else is let in, who pays, and who is remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from orchestrator.records import PersonScore, Rate, Utility
from tasks.types import Image8

if TYPE_CHECKING:
    from orchestrator.trial import World
    from tasks.classifiers import Classifier


def utility_of(classifier: Classifier, world: World, recipe: pa.Table) -> Utility:
    """Measure the side effects of a trial.

    Args:
        classifier: the trained one.
        world: shared data.
        recipe: what it was trained on.
    """
    from augment.plan import received
    from tasks.evaluation import predict
    from tasks.evaluation.membership import advantage, auc

    labels = world.rows["label"].to_numpy().astype(np.int64)
    protected = [int(target.label) for target in world.targets]
    own = np.isin(labels, protected)
    train, test = world.mask("train") & own, world.mask("test") & own
    found: dict[str, float | None] = {"membership_auc": None, "membership_advantage": None}
    if train.any() and test.any():
        sure, less_sure = (
            predict(classifier, world.images[part])[np.arange(int(part.sum())), labels[part]]
            for part in (train, test)
        )
        found = {
            "membership_auc": round(auc(sure, less_sure), 6),
            "membership_advantage": round(advantage(sure, less_sure), 6),
        }
    flooded = received(recipe, world.rows, world.num_classes) > 0
    flooded[protected] = False
    paying = world.mask("test") & np.isin(labels, np.flatnonzero(flooded))
    return Utility(
        surrogate_accepts=_surrogate_accepts(classifier, world),
        held_out_accepts=_held_out_accepts(classifier, world, recipe),
        receivers=_accuracy(classifier, world, paying, labels) if paying.any() else None,
        members=int(train.sum()),
        others=int(test.sum()),
        **found,
    )


def people_of(classifier: Classifier, world: World, recipe: pa.Table) -> tuple[PersonScore, ...]:
    """Measure each target class by itself, and those that its wrong labels went to.

    Args:
        classifier: the trained one.
        world: shared data.
        recipe: what it was trained on.
    """
    from tasks.evaluation import predict

    test = world.mask("test")
    labels = world.rows["label"].to_numpy().astype(np.int64)
    right = predict(classifier, world.images[test]).argmax(axis=1) == labels[test]
    n = np.bincount(labels[test], minlength=world.num_classes)
    hits = np.bincount(labels[test][right], minlength=world.num_classes)
    source = recipe["source_row"].to_numpy()
    own, given = labels[source], recipe["label"].to_numpy()
    wrong = np.flatnonzero((own != given) & world.mask("train")[source])
    found = []
    for target, pseudonym in zip(world.targets, world.pseudonyms, strict=True):
        label = int(target.label)
        got = np.unique(given[wrong[own[wrong] == label]])
        paying = Rate.of(int(hits[got].sum()), int(n[got].sum())) if n[got].any() else None
        mine = Rate.of(int(hits[label]), int(n[label]))
        found.append(PersonScore(pseudonym=pseudonym, accuracy=mine, receivers=paying))
    return tuple(found)


def _accuracy(classifier: Classifier, world: World, part: np.ndarray, labels: np.ndarray) -> Rate:
    from tasks.evaluation import predict

    right = predict(classifier, world.images[part]).argmax(axis=1) == labels[part]
    return Rate.of(int(right.sum()), len(right))


def _surrogate_accepts(classifier: Classifier, world: World) -> Rate | None:
    lent = np.flatnonzero(world.mask("surrogate"))
    who = world.rows["identity"].to_numpy(zero_copy_only=False)[lent]
    return _accepts(classifier, world, world.images[lent], who)


def _held_out_accepts(classifier: Classifier, world: World, recipe: pa.Table) -> Rate | None:
    """Count on what was held out for this; else on what the plan left over of the pool."""
    if world.never_lent is not None:
        kept = world.never_lent
        return _accepts(classifier, world, kept.images, kept.identities)
    pool = np.flatnonzero(world.mask("surrogate"))
    left = np.setdiff1d(pool, recipe["source_row"].to_numpy())
    who = world.rows["identity"].to_numpy(zero_copy_only=False)[left]
    return _accepts(classifier, world, world.images[left], who)


def _accepts(classifier: Classifier, world: World, images: Image8, who: np.ndarray) -> Rate | None:
    from tasks.evaluation import predict

    if not len(images) or not world.targets:
        return None
    said = predict(classifier, images).argmax(axis=1)
    taken = [
        said[np.isin(who, [str(lender.identity) for lender in target.surrogates])] == target.label
        for target in world.targets
    ]
    every = np.concatenate(taken)
    return Rate.of(int(every.sum()), len(every)) if len(every) else None
