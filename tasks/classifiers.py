"""Classifiers: small nets for small images, torchvision's by name, and what an attack may see.

Every classifier takes images in the unit range and normalises inside, once, at the border.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.defenses.networks import change_network
from tasks.draws import Draws
from tasks.errors import AccessError, SpecError
from tasks.suggestions import did_you_mean
from tasks.training_spec import TrainingSpec
from tasks.types import UNIT, Bounds


class Classifier(Protocol):
    """What an attack and an evaluation see of a trained model."""

    bounds: Bounds
    image_size: int
    num_classes: int
    device: torch.device

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (n, num_classes) of images (n, 3, s, s) in `bounds`, differentiable."""

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and penultimate features (n, features), both differentiable."""

    def scores(self, images: Tensor) -> Tensor:
        """Return class probabilities (n, num_classes), without a gradient."""

    def labels(self, images: Tensor) -> Tensor:
        """Return the likeliest class of each image, int64 (n,)."""


class TorchClassifier:
    """A module behind the protocol: frozen, in evaluation mode.

    Args:
        module: takes normalised images.
        num_classes: its outputs.
        image_size: height and width that it was trained on.
        autocast: dtype of the forward pass, None for float32.
        output: an output defence that scores and labels come through; logits and features do not.
    """

    bounds = UNIT
    output: nn.Module | None = None

    def __init__(
        self,
        module: nn.Module,
        num_classes: int,
        image_size: int,
        autocast: torch.dtype | None = None,
        output: nn.Module | None = None,
    ) -> None:
        self.module = module.eval().requires_grad_(False)
        self.num_classes = num_classes
        self.image_size = image_size
        self.autocast = autocast
        self.output = output
        self.device = next(module.parameters()).device

    def logits(self, images: Tensor) -> Tensor:
        """Return float32 logits (n, num_classes); gradients flow to the images."""
        with torch.autocast(
            self.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None
        ):
            images = normalise(images).contiguous(memory_format=torch.channels_last)
            outputs: Tensor = self.module(images)
        return outputs.float()

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 logits and penultimate features: what the last linear layer takes.

        Raises:
            AccessError: the network has no linear layer.
        """
        linear = [module for module in self.module.modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise AccessError(
                f"{type(self.module).__name__} has no linear layer, so it has no penultimate "
                "features; use an attack without features, such as ppa"
            )
        seen: list[Tensor] = []
        with linear[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
            logits = self.logits(images)
        return logits, seen[-1].flatten(1).float()

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """Return class probabilities (n, num_classes)."""
        scores = functional.softmax(self.logits(images), dim=1)
        if self.output is not None:
            scores = self.output(scores)
        return scores

    @torch.no_grad()
    def labels(self, images: Tensor) -> Tensor:
        """Return the likeliest class of each image, int64 (n,)."""
        answers = self.logits(images) if self.output is None else self.scores(images)
        return answers.argmax(dim=1)


class CountingClassifier:
    """White-box access that counts the images shown, for the record."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self.bounds = classifier.bounds
        self.image_size = classifier.image_size
        self.num_classes = classifier.num_classes
        self.device = classifier.device
        self.queries = 0

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (n, num_classes), differentiable."""
        self.queries += len(images)
        return self._classifier.logits(images)

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and penultimate features, differentiable."""
        self.queries += len(images)
        return self._classifier.embed(images)

    def scores(self, images: Tensor) -> Tensor:
        """Return class probabilities (n, num_classes)."""
        self.queries += len(images)
        return self._classifier.scores(images)

    def labels(self, images: Tensor) -> Tensor:
        """Return the likeliest class of each image, int64 (n,)."""
        self.queries += len(images)
        return self._classifier.labels(images)


class ScoresOnly(CountingClassifier):
    """A classifier behind an API: answers with scores, counts them, grants no gradient."""

    def logits(self, images: Tensor) -> Tensor:
        """Refuse: logits are white-box access.

        Raises:
            AccessError: always.
        """
        raise AccessError(
            "a black-box attack asked for logits; it may use scores() only, or declare "
            "access = 'white-box'"
        )

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Refuse: features are white-box access.

        Raises:
            AccessError: always.
        """
        raise AccessError(
            "a black-box attack asked for features; it may use scores() only, or declare "
            "access = 'white-box'"
        )

    def scores(self, images: Tensor) -> Tensor:
        """Return class probabilities (n, num_classes); every image is one query."""
        return super().scores(images.detach())

    def labels(self, images: Tensor) -> Tensor:
        """Return the likeliest class (n,); every image is one query."""
        return super().labels(images.detach())


class LabelsOnly(ScoresOnly):
    """A classifier that names the likeliest class and nothing else."""

    def scores(self, images: Tensor) -> Tensor:
        """Refuse: scores say more than a label.

        Raises:
            AccessError: always.
        """
        raise AccessError(
            "a label-only attack asked for scores; it may use labels() only, or declare "
            "access = 'scores'"
        )


ACCESS: dict[str, type[CountingClassifier]] = {
    "white-box": CountingClassifier,
    "scores": ScoresOnly,
    "label-only": LabelsOnly,
}
"""What stands between an attack and the classifier, by the access that the attack declares."""


def normalise(images: Tensor) -> Tensor:
    """Map the unit range to mean 0.5, deviation 0.5: what PPA's and DCD's classifiers use."""
    return (images - 0.5) / 0.5


def build_model(spec: TrainingSpec, num_classes: int, draws: Draws) -> nn.Module:
    """Return an untrained network as the defence wants it, its weights drawn by `draws`.

    Raises:
        SpecError: no network has that name, or it lacks what the defence needs.
    """
    with seeded(draws.child("init")):
        return change_network(_network(spec, num_classes), spec.defense)


def _network(spec: TrainingSpec, num_classes: int) -> nn.Module:
    if spec.architecture in SMALL_NETS:
        return SMALL_NETS[spec.architecture](num_classes, spec.width)
    from torchvision import models

    known = models.list_models(module=models)
    if spec.architecture not in known:
        raise SpecError(
            f"architecture {spec.architecture!r} is unknown"
            f"{did_you_mean(spec.architecture, [*SMALL_NETS, *known])}"
        )
    network: nn.Module = models.get_model(spec.architecture, weights=None, num_classes=num_classes)
    return network


@contextmanager
def seeded(draws: Draws) -> Iterator[None]:
    """Give torch's global generator, which initialisers and dropout use, a keyed state inside."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(draws.key)
        yield


class SmallResNet(nn.Module):
    """Stem and three residual stages of widths w, 2w, 4w, for images of 32 to 64 pixels."""

    def __init__(self, num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.stages = nn.Sequential(
            _Residual(width, width, 1),
            _Residual(width, 2 * width, 2),
            _Residual(2 * width, 4 * width, 2),
        )
        self.head = nn.Linear(4 * width, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return penultimate features (n, 4w)."""
        maps: Tensor = self.stages(self.stem(images))
        return maps.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, num_classes) of normalised images (n, 3, s, s)."""
        logits: Tensor = self.head(self.features(images))
        return logits


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.skip = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.body(x) + self.skip(x)
        return functional.relu(total)


class SmallVgg(nn.Module):
    """Plain convolutions with SiLU and dropout: unlike the small residual net in every block."""

    def __init__(self, num_classes: int, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs in (2 * width, 4 * width, 6 * width):
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.SiLU(),
                nn.MaxPool2d(2),
                nn.Dropout2d(0.1),
            ]
            inputs = outputs
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.neck = nn.Sequential(nn.Linear(16 * inputs, 8 * width), nn.SiLU(), nn.Dropout(0.3))
        self.head = nn.Linear(8 * width, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return penultimate features (n, 8w)."""
        features: Tensor = self.neck(self.body(images))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, num_classes) of normalised images (n, 3, s, s)."""
        logits: Tensor = self.head(self.features(images))
        return logits


class SmallMixer(nn.Module):
    """Patches mixed by depthwise and pointwise convolutions: no pyramid, no 3 x 3 stem.

    The layout of Trockman and Kolter's ConvMixer (2022) at width 2w, on a grid of 8 x 8 patches of
    a picture of 32 pixels: a third kind of net, so that two judges rarely err alike.
    """

    def __init__(self, num_classes: int, width: int = 16) -> None:
        super().__init__()
        channels = 2 * width
        self.patches = nn.Sequential(
            nn.Conv2d(3, channels, 4, 4), nn.GELU(), nn.BatchNorm2d(channels)
        )
        self.blocks = nn.Sequential(*(_Mixing(channels) for _ in range(5)))
        self.head = nn.Linear(channels, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return penultimate features (n, 2w)."""
        maps: Tensor = self.blocks(self.patches(images))
        return maps.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, num_classes) of normalised images (n, 3, s, s)."""
        logits: Tensor = self.head(self.features(images))
        return logits


class _Mixing(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, channels, 5, padding=2, groups=channels),
            nn.GELU(),
            nn.BatchNorm2d(channels),
        )
        self.pointwise = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.GELU(), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.pointwise(x + self.spatial(x))
        return mixed


SMALL_NETS: dict[str, type[SmallResNet] | type[SmallVgg] | type[SmallMixer]] = {
    "small-resnet": SmallResNet,
    "small-vgg": SmallVgg,
    "small-mixer": SmallMixer,
}
