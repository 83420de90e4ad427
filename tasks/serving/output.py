"""The one interface of output defences, and how one is fitted, saved and built again."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tasks.classifiers import seeded
from tasks.draws import Draws
from tasks.errors import TrainingError
from tasks.serving.memguard import MemGuard
from tasks.serving.purification import Purification
from tasks.serving.spec import AnyOutput, MemGuardSpec, PurificationSpec, RawSpec

OutputDefense = MemGuard | Purification
"""A module from scores (n, classes) to scores (n, classes)."""


def make_output(spec: AnyOutput, num_classes: int) -> OutputDefense | None:
    """Return an output defence that is not fitted yet; None where answers are the network's own."""
    if isinstance(spec, MemGuardSpec):
        return MemGuard(spec, num_classes)
    if isinstance(spec, PurificationSpec):
        return Purification(spec, num_classes)
    return None


def fit_output(spec: AnyOutput, members: Tensor, others: Tensor, draws: Draws) -> OutputDefense:
    """Fit an output defence.

    Args:
        spec: the settings; not those of raw answers.
        members: scores of images that the classifier was trained on, (n, classes).
        others: scores of images that were held out, (m, classes).
        draws: all randomness.

    Raises:
        TrainingError: nothing was held out.
    """
    if not len(others) or not len(members):
        raise TrainingError(
            f"serving.defense={spec.name} has no held-out images to be fitted on; raise "
            "serving.defense.held_out"
        )
    with seeded(draws.child("init")):
        found = make_output(spec, members.shape[1])
        assert found is not None
        found.train()
        found.fit(members, others, draws)
    found.eval().requires_grad_(False)
    return found


def held_out_rows(sources: np.ndarray, spec: AnyOutput, draws: Draws) -> np.ndarray:
    """Return which rows the classifier is not trained on, bool (n,).

    All copies of an image go together, or the held-out ones would have been learnt.

    Args:
        sources: which image each row is made from, (n,).
        spec: the settings.
        draws: keyed by image.
    """
    if isinstance(spec, RawSpec):
        return np.zeros(len(sources), dtype=bool)
    return np.asarray(draws.child("held out").uniform(sources)[:, 0] < spec.held_out)


def batches(count: int, size: int, epoch: int, draws: Draws) -> list[Tensor]:
    """Return the rows of one epoch in a keyed order."""
    order = np.argsort(draws.child("order", epoch).bits(np.arange(count))[:, 0], kind="stable")
    return [torch.from_numpy(part) for part in np.array_split(order, max(1, count // size))]
