"""Students: networks that an attacker distils from the classifier, to average their gradients.

LOMMA (Nguyen et al., CVPR 2023), section 4.2: what target classifier and students agree on is more
likely to be a face than a quirk of one network. They learn on the prior's images, which stand for
the public data that the prior was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from attacks.attack import to_bounds
from attacks.prior import Prior
from tasks.classifiers import Classifier, TorchClassifier, build_model, normalise
from tasks.device import autocast_dtype
from tasks.draws import Draws
from tasks.training_spec import TrainingSpec

BATCH = 64
LEARNING_RATE, MOMENTUM = 0.01, 0.9
"""As published."""


def distil(
    classifier: Classifier,
    prior: Prior,
    architectures: Sequence[str],
    steps: int,
    draws: Draws,
) -> list[TorchClassifier]:
    """Return students of a classifier, trained on its scores of the prior's images.

    Args:
        classifier: the model under attack; every image is one query, whatever the students.
        prior: where the images come from.
        architectures: of the students.
        steps: of SGD, `BATCH` images each.
        draws: of weights and images.
    """
    device = classifier.device
    dtype = autocast_dtype("auto", device)
    networks = [
        build_model(
            TrainingSpec(architecture=name), classifier.num_classes, draws.child("student", i)
        ).to(device)
        for i, name in enumerate(architectures)
    ]
    optimizers = [
        torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
        for network in networks
    ]
    for step in range(steps):
        z = torch.from_numpy(draws.child("z", step).normal(np.arange(BATCH), prior.z_size))
        with torch.no_grad():
            images = to_bounds(
                prior.synthesize(prior.map(z.float().to(device))), prior.bounds, classifier.bounds
            )
            taught = classifier.scores(images)
        for network, optimizer in zip(networks, optimizers, strict=True):
            with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
                logits = network(normalise(images).contiguous(memory_format=torch.channels_last))
            student = functional.log_softmax(logits.float(), dim=1)
            loss = functional.kl_div(student, taught, reduction="batchmean")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return [
        TorchClassifier(network, classifier.num_classes, classifier.image_size, dtype)
        for network in networks
    ]
