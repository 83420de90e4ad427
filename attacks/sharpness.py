"""A curvature probe: how steep the loss stands around an image, by finite differences."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.losses import cross_entropy
from attacks.parts import slices
from attacks.spec import AdaptiveSpec
from tasks.classifiers import Classifier
from tasks.draws import Draws, IntArray

STEP = 8 / 255
"""Length of a probe in each pixel: the sigma by which DCD steepens the loss around the target."""


@torch.no_grad()
def sharpness(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    ids: IntArray,
    spec: AdaptiveSpec,
    draws: Draws,
) -> Tensor:
    """Return the mean second difference of the cross entropy along random signs, (n,).

    An estimate of the Hessian's trace over the pixels, divided by their number's share of a step:
    E[loss(x + hv) + loss(x - hv) - 2 loss(x)] / h^2 with v of random signs (Hutchinson).

    Args:
        classifier: the model under attack.
        images: (n, 3, s, s) in the classifier's bounds.
        labels: (n,).
        ids: keys of the candidates, (n,).
        spec: `probes`.
        draws: of the signs.
    """
    found = []
    step = STEP * (classifier.bounds.high - classifier.bounds.low)
    for part in slices(len(images)):
        here, wanted = images[part], labels[part]
        centre = cross_entropy(classifier.logits(here), wanted)
        total = torch.zeros_like(centre)
        for probe in range(spec.probes):
            uniform = draws.child("probe", probe).uniform(ids[part], here[0].numel())
            sign = torch.from_numpy(uniform < 0.5).to(here).view_as(here).mul_(2).sub_(1)
            for shifted in (here + step * sign, here - step * sign):
                total += cross_entropy(classifier.logits(shifted), wanted) - centre
        found.append(total / (spec.probes * step**2))
    return torch.cat(found)
