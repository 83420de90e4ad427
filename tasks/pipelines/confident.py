"""Confident learning (Northcutt, Jiang and Chuang, JAIR 2021): which labels are probably wrong.

The rule is the paper's confident joint with its off-diagonal rows removed: a class's threshold is
the mean probability of that class over the rows that carry its label; a row is confidently of the
likeliest class whose threshold it reaches; where that is not its label, the row goes. Probabilities
are out of sample, by cross-validation with the trainer's own network.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from tasks.pipelines.pipeline import Pipeline, Rows, Upload
from tasks.pipelines.spec import ConfidentSpec

_AT_ONCE = 256


class ConfidentLearning(Pipeline):
    """Removes rows whose label a cross-validated network confidently denies."""

    def __init__(self, spec: ConfidentSpec) -> None:
        self.spec = spec

    def rows(self, upload: Upload) -> Rows:
        """Return the rows that stay, sorted; a class never loses its last one."""
        labels = upload.labels.numpy()
        sure = out_of_sample(upload, self.spec.folds, self.spec.epochs_share)
        wrong = probably_wrong(sure, labels)
        kept = np.bincount(labels[~wrong], minlength=upload.num_classes)
        wrong &= kept[labels] > 0
        return np.flatnonzero(~wrong)


def probably_wrong(sure: npt.NDArray[np.floating], labels: Rows) -> npt.NDArray[np.bool_]:
    """Return which rows lie off the diagonal of the confident joint.

    Args:
        sure: out-of-sample probabilities (n, classes).
        labels: as given, (n,).
    """
    classes = sure.shape[1]
    own = sure[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, weights=own, minlength=classes)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    confident = np.where(sure >= thresholds, sure, -1.0)
    found = confident.argmax(axis=1)
    return np.asarray((confident.max(axis=1) >= 0) & (found != labels))


def out_of_sample(upload: Upload, folds: int, epochs_share: float) -> npt.NDArray[np.float32]:
    """Return each row's probabilities by a network that was not trained on it, (n, classes).

    Folds are drawn by row, as an ordinary trainer draws them: copies of one picture fall apart.
    """
    from tasks.classifiers import TorchClassifier, build_model
    from tasks.device import default_device
    from tasks.training import fit

    count = len(upload.labels)
    fold = np.argsort(upload.draws.child("folds").bits(np.arange(count))[:, 0]) % folds
    # argsort of keyed bits is a permutation, so the folds have equal sizes.
    epochs = max(1, round(epochs_share * upload.training.epochs))
    spec = upload.training.model_copy(update={"epochs": epochs})
    sure = np.zeros((count, upload.num_classes), np.float32)
    for turn in range(folds):
        draws = upload.draws.child("fold", turn)
        learning, left = (torch.from_numpy(np.flatnonzero(m)) for m in (fold != turn, fold == turn))
        model = build_model(spec, upload.num_classes, draws)
        fit(
            model,
            upload.images[learning],
            upload.labels[learning],
            spec,
            draws,
            device=default_device(),
        )
        size = upload.images.shape[2]
        classifier = TorchClassifier(model, upload.num_classes, size)
        for part in left.split(_AT_ONCE):
            images = upload.images[part].to(classifier.device)
            sure[part.numpy()] = classifier.scores(images).cpu().numpy()
    return sure
