"""Membership inference by a threshold on the loss (Yeom et al., CSF 2018).

The attacker calls an image a training image where the model is sure of its label. Shadow models
(LiRA) find more; what this finds is there at least.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Scores = npt.NDArray[np.floating[Any]]


def auc(members: Scores, others: Scores) -> float:
    """Return the chance that a training image has the higher score; ties count half.

    Args:
        members: probability of the own label, of training images.
        others: of images that were not trained on.
    """
    ranks = rankdata(np.concatenate([members, others]))
    count = len(members)
    above = ranks[:count].sum() - count * (count + 1) / 2
    return float(above / (count * len(others)))


def advantage(members: Scores, others: Scores) -> float:
    """Return true less false positives at the threshold that is best on these very scores."""
    edges = np.unique(np.concatenate([members, others]))
    below = [
        np.searchsorted(np.sort(part), edges, "left") / len(part) for part in (members, others)
    ]
    return float(max(0.0, (below[1] - below[0]).max()))
