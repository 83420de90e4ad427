"""Prediction purification (Yang et al., 2020): an autoencoder takes off what is an image's own.

The autoencoder G is fitted on scores s of images that the classifier did not learn, by

    |G(s) - s|^2 + weight * cross_entropy(G(s), argmax s)

so that answers about trained-on images come to look like the others. The paper's purifier against
inversion, without the discriminator that it adds against membership inference; layers shrink from
the classes over four times the code to the code, and grow again, where the paper sizes each data
set's by hand. A label can change, seldom.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.draws import Draws
from tasks.serving.spec import PurificationSpec

_BATCH, _RATE = 64, 2e-3

LEAST_STEPS = 2000
"""Where few images are held out, passes alone are too few: of 400 test images of 40 people it kept
the labels of 25 to 42 % after 120 steps, and of all after 500 (`benchmarks/purification.py`).
"""


class Purification(nn.Module):
    """Scores through a narrow network."""

    def __init__(self, spec: PurificationSpec, num_classes: int) -> None:
        super().__init__()
        self.spec = spec
        wide = 4 * spec.code
        self.layers = nn.Sequential(
            nn.Linear(num_classes, wide),
            nn.ReLU(),
            nn.Linear(wide, spec.code),
            nn.ReLU(),
            nn.Linear(spec.code, wide),
            nn.ReLU(),
            nn.Linear(wide, num_classes),
        )

    def fit(self, members: Tensor, others: Tensor, draws: Draws) -> None:
        """Teach the autoencoder on the scores of others alone."""
        from tasks.serving.output import batches

        optimizer = torch.optim.Adam(self.parameters(), lr=_RATE)
        a_pass = len(batches(len(others), _BATCH, 0, draws))
        for epoch in range(max(self.spec.epochs, -(-LEAST_STEPS // a_pass))):
            for rows in batches(len(others), _BATCH, epoch, draws):
                loss = self._loss(others[rows])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()

    def forward(self, scores: Tensor) -> Tensor:
        """Return purified scores (n, classes)."""
        return functional.softmax(self.layers(scores), dim=1)

    def _loss(self, scores: Tensor) -> Tensor:
        logits: Tensor = self.layers(scores)
        near = (functional.softmax(logits, dim=1) - scores).square().sum(dim=1).mean()
        label = functional.cross_entropy(logits, scores.argmax(dim=1))
        return near + self.spec.label_weight * label
