"""The one interface of all attacks, and what an attack returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from attacks.prior import Prior
from tasks.classifiers import Classifier
from tasks.draws import Draws
from tasks.errors import NonFiniteLossError
from tasks.spec import Spec
from tasks.types import UNIT, Bounds, TargetClass

Access = Literal["white-box", "scores", "label-only"]


@dataclass(frozen=True)
class AttackResult:
    """Reconstructions of each target class, best first by the attack's own measure.

    Attributes:
        images: (targets, n, 3, s, s) in the unit range.
        latents: (targets, n, w_size).
        confidence: the attack's own measure in [0, 1], (targets, n): as a rule the attacked
            classifier's confidence in the target class.
        curve: mean over the candidates of what the attack improves, after each of its steps: the
            loss that it minimises, or for a search without one what the attack's file says.
    """

    images: Tensor
    latents: Tensor
    confidence: Tensor
    curve: tuple[float, ...] = ()


class Attack(Protocol):
    """Reconstructs images of target classes from a classifier and a public prior."""

    access: ClassVar[Access]

    @property
    def spec(self) -> Spec:
        """The budget."""

    def images(self, targets: int) -> int:
        """Return how many images it synthesises or shows at the most, for the bill."""

    def run(
        self, classifier: Classifier, prior: Prior, targets: Sequence[TargetClass], draws: Draws
    ) -> AttackResult:
        """Search for every target at once.

        Args:
            classifier: the model under attack; black-box attacks may use `scores` only.
            prior: generator trained on public data.
            targets: whom to reconstruct. The attacker knows the label, not the surrogate.
            draws: all randomness, keyed by target, so that a target's result does not depend on
                which others are attacked beside it.

        Raises:
            NonFiniteLossError: the loss of a target is not finite.
        """


def labels_of(targets: Sequence[TargetClass], device: torch.device) -> Tensor:
    """Return the labels of the targets as int64 (targets,)."""
    return torch.tensor([int(t.label) for t in targets], dtype=torch.int64, device=device)


def to_bounds(images: Tensor, source: Bounds, wanted: Bounds = UNIT) -> Tensor:
    """Map pixel values from one range to another, linearly."""
    if source == wanted:
        return images
    scale = (wanted.high - wanted.low) / (source.high - source.low)
    return (images - source.low) * scale + wanted.low


def check_finite(loss: Tensor, labels: Tensor, attack: str, step: int) -> None:
    """Stop when a loss is not finite.

    Args:
        loss: one value a candidate, (n,).
        labels: its target class, (n,).
        attack: name for the sentence.
        step: of the optimisation.

    Raises:
        NonFiniteLossError: names the first class and step.
    """
    bad = ~torch.isfinite(loss)
    if bool(bad.any()):
        label = int(labels[bad][0])
        raise NonFiniteLossError(
            f"attack {attack}: the loss of class {label} is {float(loss[bad][0])} at step {step}; "
            "the classifier gives no finite logits there, or the learning rate is too high"
        )
