"""Class balancing: every class is seen equally often."""

from __future__ import annotations

import numpy as np

from tasks.draws import Draws
from tasks.pipelines.pipeline import Pipeline, Rows, Upload


class ClassBalance(Pipeline):
    """Takes as many rows of each class as a class has on average."""

    def rows(self, upload: Upload) -> Rows:
        """Return the rows, some several times, some never."""
        return balanced(upload.labels.numpy(), upload.draws.child("balance"))


def balanced(labels: Rows, draws: Draws) -> Rows:
    """Return round(mean class size) rows of each class, sorted; a small class goes round again.

    Args:
        labels: (n,).
        draws: which rows of a large class are left out.
    """
    rank = draws.bits(np.arange(len(labels)))[:, 0]
    classes = np.unique(labels)
    each = max(1, round(len(labels) / len(classes)))
    found = []
    for label in classes:
        own = np.flatnonzero(labels == label)
        found.append(np.resize(own[np.argsort(rank[own], kind="stable")], each))
    return np.sort(np.concatenate(found))
