"""What a white-box attack minimises: a loss, over views, over students, near the public's features.

Every option is another paper's contribution and serves every attack with gradients: the losses of
PPA, PLG-MI and LOMMA, LOMMA's feature regularisation and model augmentation, and AlignMI's
transformation-averaged gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from attacks.attack import to_bounds
from attacks.candidates import turned_views
from attacks.curve import Curve
from attacks.losses import LOSSES
from attacks.parts import slices
from attacks.prior import Prior
from attacks.spec import WhiteBoxSpec
from attacks.students import distil
from tasks.classifiers import Classifier
from tasks.draws import Draws, IntArray

Loss = Callable[[Tensor, Tensor], Tensor]

PUBLIC_IMAGES = 1024
"""Images of the prior whose mean features stand for the public's."""


class Objective:
    """A loss of images, one value a candidate, that an attack may minimise.

    Args:
        spec: loss, views, features and students.
        classifier: the model under attack.
        prior: images of the public come from it.
        draws: of students, public images and views.
        loss: instead of the one that `spec` names.
    """

    def __init__(
        self,
        spec: WhiteBoxSpec,
        classifier: Classifier,
        prior: Prior,
        draws: Draws,
        loss: Loss | None = None,
    ) -> None:
        self.spec = spec
        self.classifier = classifier
        self.draws = draws
        self.loss = loss or LOSSES[spec.loss]
        self.curve = Curve()
        self.students: Sequence[Classifier] = (
            distil(classifier, prior, spec.students, spec.student_steps, draws.child("students"))
            if spec.students
            else ()
        )
        self.public_features = (
            mean_features(classifier, prior, draws.child("public")) if spec.feature_weight else None
        )

    def seen_by(self, classifier: Classifier) -> Objective:
        """Return the same with a curve of its own, for one batch of candidates.

        Args:
            classifier: the same model, whose count of queries counts for the batch.
        """
        twin = copy.copy(self)
        twin.classifier, twin.curve = classifier, Curve()
        return twin

    def __call__(self, images: Tensor, labels: Tensor, ids: IntArray, step: int) -> Tensor:
        """Return losses (n,) of images (n, 3, s, s) in the classifier's bounds.

        Args:
            images: with a gradient.
            labels: of the target classes, (n,).
            ids: keys of the candidates, for their random views, (n,).
            step: of the optimisation.
        """
        loss = self._over_views(images, labels, ids, step)
        self.curve.add(step, loss)
        return loss

    def _over_views(self, images: Tensor, labels: Tensor, ids: IntArray, step: int) -> Tensor:
        if not self.spec.views:
            return self._one_view(images, labels)
        total = torch.zeros(len(images), device=images.device)
        for view in range(self.spec.views):
            uniform = self.draws.child("view", step, view).uniform(ids, 6)
            total = total + self._one_view(turned_views(images, uniform), labels)
        return total / self.spec.views

    def _one_view(self, images: Tensor, labels: Tensor) -> Tensor:
        weight = self.spec.feature_weight
        if weight and self.public_features is not None:
            logits, features = self.classifier.embed(images)
            gap = (features - self.public_features).square().mean(dim=1)
        else:
            logits, gap = self.classifier.logits(images), None
        loss = self.loss(logits, labels)
        for student in self.students:
            loss = loss + self.loss(student.logits(images), labels)
        loss = loss / (1 + len(self.students))
        return loss if gap is None else loss + weight * gap


@torch.no_grad()
def mean_features(classifier: Classifier, prior: Prior, draws: Draws) -> Tensor:
    """Return the mean penultimate features of the prior's images, (features,).

    LOMMA, section 4.1, regularises towards a draw around that mean; its released code towards the
    mean itself, as here.
    """
    total: Tensor | None = None
    for part in slices(PUBLIC_IMAGES):
        z = torch.from_numpy(draws.normal(np.arange(part.start, part.stop), prior.z_size)).float()
        images = to_bounds(
            prior.synthesize(prior.map(z.to(classifier.device))), prior.bounds, classifier.bounds
        )
        found = classifier.embed(images)[1].sum(0)
        total = found if total is None else total + found
    assert total is not None
    return total / PUBLIC_IMAGES
