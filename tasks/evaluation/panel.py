"""Who judges: a classifier, perhaps a second one and one without surrogates, and an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tasks.classifiers import Classifier
from tasks.draws import Draws
from tasks.evaluation.distances import distances
from tasks.evaluation.features import Features
from tasks.evaluation.frechet import fid, kid
from tasks.evaluation.intervals import Interval, cluster_mean
from tasks.evaluation.judge import TARGET, Verdicts, judge
from tasks.evaluation.neighbours import Prdc, prdc_by_class
from tasks.types import Image8, TargetClass

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """What reconstructions are shown to; only the first is always there.

    Attributes:
        first: the evaluation classifier; its verdict is the attack accuracy.
        second: of another architecture and seed than the first and the attacked one.
        closed: without surrogate classes, so that every face is one of the private people.
        features: between which distances are taken; None takes none.
        features_of: whose features they are.
        knowledge: whether a student is trained on the reconstructions.
        architectures: of first and second.
    """

    first: Classifier
    second: Classifier | None = None
    closed: Classifier | None = None
    features: Features | None = None
    features_of: str = "evaluation classifier"
    knowledge: bool = False
    architectures: tuple[str, str] = ("", "")


def disagreement(first: Verdicts, second: Verdicts) -> npt.NDArray[np.bool_]:
    """Return which reconstructions (targets, n) two judges call differently."""
    found: npt.NDArray[np.bool_] = first.verdict != second.verdict
    return found


def closed_hits(
    classifier: Classifier, reconstructions: Image8, targets: Sequence[TargetClass]
) -> npt.NDArray[np.bool_]:
    """Return which reconstructions a judge that knows no surrogate gives to the target.

    The papers' convention. Such a judge must choose among private people, so that a picture of the
    surrogate counts as whoever it resembles most, sometimes the target.
    """
    found: npt.NDArray[np.bool_] = judge(classifier, reconstructions, targets).verdict == TARGET
    return found


@dataclass(frozen=True)
class SetMetrics:
    """How the reconstructions of the attacked classes compare with those classes' own images.

    Attributes:
        dimensions: of the features.
        real: training images of the attacked classes.
        nearest: KNN distance.
        mean: mean distance.
        centre: feature distance.
        held_out: KNN distance of the classes' own test images; None where there are none.
        fid: see `frechet.fid`.
        kid: see `frechet.kid`.
        by_class: precision, recall, density and coverage, by label.
    """

    dimensions: int
    real: int
    nearest: Interval
    mean: Interval
    centre: Interval
    held_out: float | None
    fid: float | None
    kid: float | None
    by_class: dict[int, Prdc]


def set_metrics(
    features: Features,
    reconstructions: Image8,
    targets: Sequence[TargetClass],
    train: tuple[Image8, npt.NDArray[np.int64]],
    test: tuple[Image8, npt.NDArray[np.int64]],
    draws: Draws,
) -> SetMetrics:
    """Compare reconstructions with real images, class by class under the classes' own labels.

    Args:
        features: of stored images.
        reconstructions: (targets, n, h, w, 3).
        targets: in the order of the first axis.
        train: real training images of at least those classes, and their labels.
        test: the same of test images; may be empty.
        draws: of the intervals.
    """
    count, each = reconstructions.shape[:2]
    flat = features(reconstructions.reshape(-1, *reconstructions.shape[2:]))
    labels = [int(target.label) for target in targets]
    fake = dict(zip(labels, flat.reshape(count, each, -1), strict=True))
    real, held_out = (_by_label(features, part, labels) for part in (train, test))
    far = [distances(fake[label], real[label]) for label in labels]
    own = [
        distances(held_out[label], real[label]).nearest for label in labels if len(held_out[label])
    ]
    every = np.concatenate([real[label] for label in labels])

    def over_targets(name: str) -> Interval:
        found = cluster_mean(np.stack([getattr(one, name) for one in far]), draws)
        return replace(found, low=max(0.0, found.low))

    return SetMetrics(
        dimensions=flat.shape[1],
        real=len(every),
        nearest=over_targets("nearest"),
        mean=over_targets("mean"),
        centre=over_targets("centre"),
        held_out=float(np.concatenate(own).mean()) if own else None,
        fid=fid(every, flat),
        kid=kid(every, flat),
        by_class=prdc_by_class(real, fake),
    )


def _by_label(
    features: Features,
    part: tuple[Image8, npt.NDArray[np.int64]],
    labels: Sequence[int],
) -> dict[int, Floats]:
    images, own = part
    wanted = np.isin(own, labels)
    found, shown = features(images[wanted]), own[wanted]
    return {label: found[shown == label] for label in labels}
