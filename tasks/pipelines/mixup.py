"""MixUp (Zhang et al., ICLR 2018): every step sees two images in one, and both labels."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.draws import Draws
from tasks.pipelines.pipeline import LossOf, Pipeline
from tasks.pipelines.spec import MixUpSpec


class MixUp(Pipeline):
    """Mixes each image with another of its batch, by one share a batch.

    The losses are mixed instead of the labels: for cross entropy that is the same, and it works
    beside every training-time defence.
    """

    def __init__(self, spec: MixUpSpec) -> None:
        self.alpha = spec.alpha

    def loss(self, loss_of: LossOf, views: Tensor, labels: Tensor, draws: Draws) -> Tensor:
        """Return the mixed loss summed over the rows."""
        source = draws.generator()
        share = float(source.beta(self.alpha, self.alpha))
        other = torch.from_numpy(source.permutation(len(labels))).to(labels.device)
        mixed = share * views + (1 - share) * views[other]
        return share * loss_of(mixed, labels) + (1 - share) * loss_of(mixed, labels[other])
